"""Default: NULL becomes a constant."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from psycopg import sql

from spine_migrate.mapping.transforms.base import Sql, Transform
from spine_migrate.mapping.types import literal


class Default(Transform):
    """Not lossless: the constant does not say whether it was there before."""

    lossless = False
    strict: ClassVar[bool] = False

    def __init__(self, given: str, value: Any) -> None:
        self.given = self.gives = given
        self.value = value

    def sql(self, value: Sql) -> Sql:
        return sql.SQL("COALESCE({}, {})").format(value, literal(self.value, self.given))

    def python(self, value: Any) -> Any:
        return self.value if value is None else value

    def inverse_sql(self, value: Sql) -> Sql:
        return value

    def inverse_python(self, value: Any) -> Any:
        return value

    def loses(self, value: Sql) -> Sql:
        return sql.SQL("{} IS NULL").format(value)

    def doc(self) -> str:
        return f"NULL → `{json.dumps(self.value, ensure_ascii=False)}`"
