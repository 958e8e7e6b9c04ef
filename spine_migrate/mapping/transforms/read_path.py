"""Read path: the value at a path inside a JSON column."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from psycopg import sql

from spine_migrate.mapping.json_null import JSON_NULL
from spine_migrate.mapping.transforms.base import Refusal, Sql, Transform

# How the server tells that a key names an element of an array (src/backend/utils/adt/jsonfuncs.c, strtoint).
_INDEX = re.compile(r"[ \t\n\v\f\r]*[+-]?[0-9]+")


class ReadPath(Transform):
    """Gives ``jsonb``, or the ``text`` of a JSON string; any other value is refused where text is asked for.

    A path that leads nowhere, or to a JSON null, is NULL. What else the document holds must be carried by another
    field, so there is no way back from the part to the whole.
    """

    given = "jsonb"
    lossless = False
    invertible = False
    total: ClassVar[bool] = False

    def __init__(self, path: tuple[str, ...], gives: str) -> None:
        self.path = path
        self.gives = gives

    def _at(self, value: Sql) -> Sql:
        return sql.SQL("({} #> {}::text[])").format(value, sql.Literal(list(self.path)))

    def sql(self, value: Sql) -> Sql:
        if self.gives == "text":
            return sql.SQL("({} #>> {}::text[])").format(value, sql.Literal(list(self.path)))
        return sql.SQL("NULLIF({}, 'null'::jsonb)").format(self._at(value))

    def python(self, value: Any) -> Any:
        for key in self.path:
            value = _inside(value, key)
        return None if value is JSON_NULL else value

    def inverse_sql(self, value: Sql) -> Sql:  # noqa: ARG002 - a part does not bring the whole back
        return sql.SQL("NULL")

    def inverse_python(self, value: Any) -> Any:  # noqa: ARG002 - as above
        return None

    def refusals(self, value: Sql) -> list[Refusal]:
        if self.gives != "text":
            return []
        at = self._at(value)
        return [
            Refusal(
                "bad_value",
                sql.SQL("jsonb_typeof({}) NOT IN ('string', 'null')").format(at),
                sql.SQL("format({}, jsonb_typeof({}))").format(
                    sql.Literal(f"the value at {'.'.join(self.path).replace('%', '%%')} is a JSON %s, not a string"), at
                ),
            )
        ]

    def refuse(self, value: Any) -> str | None:
        found = self.python(value)
        return "bad_value" if self.gives == "text" and found is not None and not isinstance(found, str) else None

    def doc(self) -> str:
        return f"read at `{'.'.join(self.path)}`"


def _inside(value: Any, key: str) -> Any:
    if isinstance(value, dict):
        return value.get(key)
    if isinstance(value, list) and _INDEX.fullmatch(key):
        index = int(key)
        return value[index] if -len(value) <= index < len(value) else None
    return None
