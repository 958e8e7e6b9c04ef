"""Value map: a listed value becomes its counterpart; any other value is refused, or passes unchanged on request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from psycopg import sql

from spine_migrate.mapping.transforms.base import Refusal, Sql, Transform
from spine_migrate.mapping.types import literal


class ValueMap(Transform):
    """``values`` maps source values to target values; where several give the same one, the first is what comes back."""

    def __init__(self, given: str, gives: str, values: Mapping[Any, Any], *, others_pass: bool = False) -> None:
        self.given = given
        self.gives = gives
        self.values = dict(values)
        self.others_pass = others_pass
        self.back: dict[Any, Any] = {}
        for old, new in self.values.items():
            self.back.setdefault(new, old)
        # A value that passes unchanged onto a mapped one would come back as something else.
        collides = others_pass and any(new not in self.values for new in self.back)
        self.lossless = len(self.back) == len(self.values) and not collides

    def _case(self, value: Sql, pairs: Mapping[Any, Any], given: str, gives: str) -> Sql:
        whens = sql.SQL(" ").join(
            sql.SQL("WHEN {} THEN {}").format(literal(old, given), literal(new, gives)) for old, new in pairs.items()
        )
        otherwise = sql.SQL(" ELSE {}").format(value) if self.others_pass else sql.SQL("")
        return sql.SQL("CASE {} {}{} END").format(value, whens, otherwise)

    def sql(self, value: Sql) -> Sql:
        return self._case(value, self.values, self.given, self.gives)

    def python(self, value: Any) -> Any:
        return self.values.get(value, value if self.others_pass else None)

    def inverse_sql(self, value: Sql) -> Sql:
        return self._case(value, self.back, self.gives, self.given)

    def inverse_python(self, value: Any) -> Any:
        return self.back.get(value, value if self.others_pass else None)

    def loses(self, value: Sql) -> Sql | None:
        """Not the first of its kind, or passed unchanged onto what another value is mapped to."""
        lost = [old for old, new in self.values.items() if self.back[new] != old]
        if self.others_pass:
            lost += [new for new in self.back if new not in self.values]
        return sql.SQL("{} IN ({})").format(value, self._listed(lost)) if lost else None

    def _listed(self, values: Iterable[Any]) -> Sql:
        return sql.SQL(", ").join(literal(value, self.given) for value in values)

    def refusals(self, value: Sql) -> list[Refusal]:
        if self.others_pass:
            return []
        return [
            Refusal(
                "unknown_value",
                sql.SQL("{} NOT IN ({})").format(value, self._listed(self.values)),
                sql.SQL("format('%L is not in the value map', {})").format(value),
            )
        ]

    def refuse(self, value: Any) -> str | None:
        return None if self.others_pass or value in self.values else "unknown_value"

    def doc(self) -> str:
        same = [str(old) for old, new in self.values.items() if old == new]
        other = [f"{old} → {new}" for old, new in self.values.items() if old != new]
        parts = [*other, *([f"unchanged: {', '.join(same)}"] if same else [])]
        return "value map (" + "; ".join([*parts, *(["others pass unchanged"] if self.others_pass else [])]) + ")"
