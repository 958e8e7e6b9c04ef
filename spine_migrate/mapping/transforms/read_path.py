"""Read path: the value at a path inside a JSON column."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from spine_migrate.mapping.transforms.base import Sql, Transform


class ReadPath(Transform):
    """Gives ``jsonb``, or ``text`` as ``#>>`` gives it for a JSON string. What else the document holds must be carried by
    another field, so there is no way back from the part to the whole. A JSON null, or a path that leads nowhere, is NULL;
    a value that is not a string is refused where text is asked for, since its text form is not the value."""

    given = "jsonb"
    lossless = False
    invertible = False

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
            if not isinstance(value, dict) or key not in value:
                return None
            value = value[key]
        return value

    def inverse_sql(self, value: Sql) -> Sql:
        return sql.SQL("NULL")

    def inverse_python(self, value: Any) -> Any:
        return None

    def doc(self) -> str:
        return f"read at `{'.'.join(self.path)}`"
