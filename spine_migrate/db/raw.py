"""Running composed SQL with server-side parameters ``$1``, ``$2``, …

psycopg's own placeholders give ``%`` a meaning, also inside identifiers and literals that come from a mapping or a
catalog; a raw cursor does not. Statements are planned each time, with the parameters known, since a batch's range and
the list of rows it leaves out decide the plan.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from spine_migrate.db.connect import Connection


def execute(connection: Connection, query: sql.Composed | sql.SQL, *parameters: Any) -> psycopg.RawCursor[Any]:
    """Run one statement; rows come back as tuples."""
    cursor = psycopg.RawCursor(connection)
    cursor.execute(query, parameters, prepare=False)
    return cursor


def rows(connection: Connection, query: sql.Composed | sql.SQL, *parameters: Any) -> list[dict[str, Any]]:
    """All rows of one query as dictionaries."""
    cursor: psycopg.RawCursor[dict[str, Any]] = psycopg.RawCursor(connection, row_factory=dict_row)
    cursor.execute(query, parameters, prepare=False)
    return cursor.fetchall()
