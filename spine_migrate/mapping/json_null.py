"""JSON's null as a whole value, which Python's None cannot be: None is SQL's NULL."""

from __future__ import annotations

from enum import Enum
from typing import Final


class JsonNull(Enum):
    """psycopg loads JSON null and SQL NULL both as None. A row that must tell them apart has ``JSON_NULL`` instead."""

    NULL = "null"

    def __repr__(self) -> str:
        return "JSON_NULL"


JSON_NULL: Final = JsonNull.NULL
