"""The one read-only snapshot that a whole comparison is read in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.rows import class_row

from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.parity.model import Snapshot

# A hash join of two wide tables lives on memory, and what it computes is too short-lived to be worth compiling.
SETTINGS = {"work_mem": "256MB", "jit": "off"}


@contextmanager
def snapshot(connection: Connection) -> Iterator[Snapshot]:
    """REPEATABLE READ, READ ONLY, for the length of the block; the connection must be idle and in autocommit."""
    before = connection.isolation_level, connection.read_only
    connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
    try:
        with connection.transaction():
            for name, value in SETTINGS.items():
                connection.execute("SELECT set_config(%s, %s, true)", (name, value))
            with connection.cursor(row_factory=class_row(Snapshot)) as cursor:
                found = cursor.execute(query("parity", "snapshot")).fetchall()[0]
            yield found
    finally:
        if not connection.closed:
            connection.isolation_level, connection.read_only = before
