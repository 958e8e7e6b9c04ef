"""The one read-only snapshot that a whole comparison is read in, and how further sessions get it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import PINNED, Connection, another
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused
from spine_migrate.parity.model import Snapshot

# A hash join of two wide tables lives on memory, and what it computes is too short-lived to be worth compiling.
# No operator of the application's schemas may have a say in what is equal, whatever the role's search_path names.
SETTINGS = {"work_mem": "256MB", "jit": "off", **PINNED}

# A digest is a hash of 65,536 groups, which is no more than some megabytes; a sort of the rows would be all of them.
_READING = {**SETTINGS, "enable_sort": "off"}


@dataclass(frozen=True)
class Shared:
    """A session whose snapshot others can have, and the name by which they get it (PostgreSQL manual, 9.28.5)."""

    connection: Connection
    name: str

    def open(self) -> Connection:
        """A session of its own in that snapshot, read only."""
        connection = another(self.connection, settings=_READING)
        try:
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            # SET takes no parameters; the name came from the server.
            execute(connection, sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(self.name)))
        except BaseException:
            connection.close()
            raise
        return connection


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


def export(connection: Connection) -> Shared:
    """The snapshot of a session, for further sessions; to be called in ``snapshot``, outside of any savepoint."""
    ((name,),) = execute(connection, sql.SQL("SELECT pg_export_snapshot()")).fetchall()
    return Shared(connection, name)


def hold(connection: Connection, table: Name, oid: int) -> None:
    """Nobody rewrites a table, or puts away partitions of it, while it is being read: taken with the first look at it,
    held until the transaction ends.

    Raises Refused (``rewritten``) where it was done between the snapshot and now: a table that was truncated, or
    changed by most forms of ALTER TABLE, is empty for an older snapshot (PostgreSQL manual, 13.6).
    """
    execute(connection, sql.SQL("SELECT FROM {} LIMIT 0").format(table.identifier))
    rewritten = connection.execute(query("parity", "rewritten"), {"oid": oid}).fetchall()
    if rewritten:
        raise Refused(
            "rewritten",
            f"{', '.join(name for (name,) in rewritten)} was truncated or rewritten after this snapshot was taken, for "
            f"which it may be empty now; run the same command again.",
        )


def same(one: Connection, other: Connection) -> bool:
    """Whether two sessions are on the same database of the same server, so that they can share a snapshot."""
    first, second = (session.execute(query("parity", "place")).fetchall() for session in (one, other))
    return first == second
