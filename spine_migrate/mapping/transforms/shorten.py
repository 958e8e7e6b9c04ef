"""Shorten: text cut to the target's length in characters."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from spine_migrate.mapping.transforms.base import Sql, Transform


class Shorten(Transform):
    given = gives = "text"
    lossless = False

    def __init__(self, length: int) -> None:
        self.length = length

    def sql(self, value: Sql) -> Sql:
        return sql.SQL("left({}, {})").format(value, sql.Literal(self.length))

    def python(self, value: Any) -> Any:
        return value[: self.length]

    def inverse_sql(self, value: Sql) -> Sql:
        return value

    def inverse_python(self, value: Any) -> Any:
        return value

    def loses(self, value: Sql) -> Sql:
        # Characters are counted, bytes are known: most values need no counting.
        return sql.SQL("(octet_length({0}) > {1} AND length({0}) > {1})").format(value, sql.Literal(self.length))

    def doc(self) -> str:
        return f"shortened to {self.length} characters"
