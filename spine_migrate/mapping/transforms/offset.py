"""Offset: an integer moved by a constant, refused where the result would leave the type's range."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from spine_migrate.mapping.transforms.base import Refusal, Sql, Transform
from spine_migrate.mapping.types import INTEGER_RANGE, literal


class Offset(Transform):
    """Raises ValueError where the type cannot hold the constant itself."""

    def __init__(self, given: str, by: int) -> None:
        if given not in INTEGER_RANGE:
            raise ValueError(f"works on integer or bigint, but is given {given}")
        low, high = INTEGER_RANGE[given]
        if not low <= by <= high:
            raise ValueError(f"{by} is out of the range of {given}")
        self.given = self.gives = given
        self.by = by
        self.low, self.high = max(low, low - by), min(high, high - by)

    def sql(self, value: Sql) -> Sql:
        return sql.SQL("({} + {})").format(value, literal(self.by, self.given))

    def python(self, value: Any) -> Any:
        return value + self.by

    def inverse_sql(self, value: Sql) -> Sql:
        # One side only, as for refusals.
        reached = (
            sql.SQL("{} >= {}").format(value, literal(self.low + self.by, self.given))
            if self.by > 0
            else sql.SQL("{} <= {}").format(value, literal(self.high + self.by, self.given))
        )
        return sql.SQL("CASE WHEN {} THEN {} - {} END").format(reached, value, literal(self.by, self.given))

    def inverse_python(self, value: Any) -> Any:
        return value - self.by

    def refusals(self, value: Sql) -> list[Refusal]:
        # One side only: the other is where the type itself ends.
        condition = (
            sql.SQL("{} > {}").format(value, literal(self.high, self.given))
            if self.by > 0
            else sql.SQL("{} < {}").format(value, literal(self.low, self.given))
        )
        return [
            Refusal(
                "out_of_range",
                condition,
                sql.SQL("format('%s moved by %s leaves the range of {}', {}, {})").format(
                    sql.SQL(self.gives),
                    value,
                    sql.Literal(self.by),
                ),
            )
        ]

    def refuse(self, value: Any) -> str | None:
        return None if self.low <= value <= self.high else "out_of_range"

    def doc(self) -> str:
        return f"plus {self.by}" if self.by >= 0 else f"minus {-self.by}"
