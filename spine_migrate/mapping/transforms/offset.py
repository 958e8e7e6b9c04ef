"""Offset: an integer moved by a constant, refused where the result would leave the type's range."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from spine_migrate.mapping.transforms.base import Refusal, Sql, Transform
from spine_migrate.mapping.types import INTEGER_RANGE


class Offset(Transform):
    def __init__(self, given: str, by: int) -> None:
        self.given = self.gives = given
        self.by = by
        low, high = INTEGER_RANGE[given]
        self.low, self.high = max(low, low - by), min(high, high - by)

    def sql(self, value: Sql) -> Sql:
        return sql.SQL("({} + {})").format(value, sql.Literal(self.by))

    def python(self, value: Any) -> Any:
        return value + self.by

    def inverse_sql(self, value: Sql) -> Sql:
        return sql.SQL("({} - {})").format(value, sql.Literal(self.by))

    def inverse_python(self, value: Any) -> Any:
        return value - self.by

    def refusals(self, value: Sql) -> list[Refusal]:
        return [
            Refusal(
                "out_of_range",
                sql.SQL("{} NOT BETWEEN {} AND {}").format(value, sql.Literal(self.low), sql.Literal(self.high)),
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
