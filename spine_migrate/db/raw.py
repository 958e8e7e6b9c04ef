"""Running composed SQL with server-side parameters ``$1``, ``$2``, …

psycopg's own placeholders give ``%`` a meaning, also inside identifiers and literals that come from a mapping or a
catalog; a raw cursor does not. Statements are planned each time, with the parameters known, since a batch's range and
the list of rows it leaves out decide the plan; but for those of ``execute_often``.
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


def execute_often(connection: Connection, query: sql.Composed | sql.SQL, *parameters: Any) -> psycopg.RawCursor[Any]:
    """The same for a statement that comes again and again and looks up whatever keys it is given by an index: once it
    has come a few times it is prepared, and the server parses and plans it no more.
    """
    cursor = psycopg.RawCursor(connection)
    cursor.execute(query, parameters)
    return cursor


def rows(connection: Connection, query: sql.Composed | sql.SQL, *parameters: Any) -> list[dict[str, Any]]:
    """All rows of one query as dictionaries."""
    cursor: psycopg.RawCursor[dict[str, Any]] = psycopg.RawCursor(connection, row_factory=dict_row)
    cursor.execute(query, parameters, prepare=False)
    return cursor.fetchall()
