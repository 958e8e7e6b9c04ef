"""Cast: the same value in another type, where both directions have one meaning on the server and in Python."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from psycopg import sql

from spine_migrate.mapping.safe_cast import UUID as _UUID
from spine_migrate.mapping.safe_cast import from_text, narrowed
from spine_migrate.mapping.transforms.base import Refusal, Sql, Transform
from spine_migrate.mapping.types import INTEGER_RANGE, literal, typename

_INTEGER = r"^-?[0-9]{1,19}$"


@dataclass(frozen=True)
class _Rule:
    """One pair of types: ``pattern`` is what a text must look like, ``limit`` the type whose range it must fit."""

    lossless: bool
    pattern: str | None = None
    limit: str | None = None


# text to uuid and text to integer lose the spelling ("A0EE…", "007"); the inverse writes the canonical form.
_RULES: dict[tuple[str, str], _Rule] = {
    ("text", "uuid"): _Rule(lossless=False, pattern=_UUID),
    ("uuid", "text"): _Rule(lossless=True),
    ("text", "integer"): _Rule(lossless=False, pattern=_INTEGER, limit="integer"),
    ("text", "bigint"): _Rule(lossless=False, pattern=_INTEGER, limit="bigint"),
    ("integer", "text"): _Rule(lossless=True),
    ("bigint", "text"): _Rule(lossless=True),
    ("integer", "bigint"): _Rule(lossless=True),
    ("bigint", "integer"): _Rule(lossless=True, limit="integer"),
}
PAIRS = tuple(_RULES)


class Cast(Transform):
    """Raises ValueError for a pair of types that is not listed."""

    def __init__(self, given: str, gives: str) -> None:
        if (given, gives) not in _RULES:
            choices = ", ".join(f"{a} to {b}" for a, b in PAIRS)
            raise ValueError(f"there is no cast from {given} to {gives}; there are {choices}")
        self.given = given
        self.gives = gives
        self.rule = _RULES[given, gives]
        self.lossless = self.rule.lossless

    def sql(self, value: Sql) -> Sql:
        return sql.SQL("{}::{}").format(value, typename(self.gives))

    def python(self, value: Any) -> Any:
        return _convert(value, self.gives)

    def inverse_sql(self, value: Sql) -> Sql:
        if self.gives == "text":
            return from_text(value, self.given, typename(self.given))
        if (self.given, self.gives) == ("integer", "bigint"):
            return narrowed(value, self.given)
        return sql.SQL("{}::{}").format(value, typename(self.given))

    def inverse_python(self, value: Any) -> Any:
        return _convert(value, self.given)

    def refusals(self, value: Sql) -> list[Refusal]:
        condition: Sql | None = None
        if self.rule.pattern is not None:
            condition = sql.SQL("{} !~ {}").format(value, sql.Literal(self.rule.pattern))
        if self.rule.limit is not None:
            low, high = INTEGER_RANGE[self.rule.limit]
            number = value if self.given != "text" else sql.SQL("{}::numeric").format(value)
            outside = sql.SQL("{} NOT BETWEEN {} AND {}").format(
                number, literal(low, "bigint"), literal(high, "bigint")
            )
            # CASE, not OR: the order in which OR evaluates its sides is not defined.
            condition = (
                outside
                if condition is None
                else sql.SQL("CASE WHEN {} THEN true ELSE {} END").format(condition, outside)
            )
        if condition is None:
            return []
        detail = sql.SQL("format('%L is not a {}', {})").format(typename(self.gives), value)
        return [Refusal("bad_value", condition, detail)]

    def refuse(self, value: Any) -> str | None:
        if self.rule.pattern is not None and not re.fullmatch(self.rule.pattern.strip("^$"), value):
            return "bad_value"
        if self.rule.limit is not None:
            low, high = INTEGER_RANGE[self.rule.limit]
            if not low <= int(value) <= high:
                return "bad_value"
        return None

    def doc(self) -> str:
        return f"as {self.gives}"


def _convert(value: Any, to: str) -> Any:
    match to:
        case "uuid":
            return UUID(value)
        case "text":
            return str(value)
        case _:
            return int(value)
