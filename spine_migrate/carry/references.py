"""Who points to a target table: foreign keys, and what it costs to delete where no index serves one.

The server looks for referencing rows once per deleted row (PostgreSQL manual, 5.5.5); without an index each look is a
scan, which makes a million deletions impossible. The target's own links have no index in the seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused

# A table of this size is scanned faster than an index would pay.
SMALL_BYTES = 1 << 20
_PREFIX = "spine_undo_"
# NAMEDATALEN less the closing NUL: the server cuts longer names off.
_LONGEST_NAME = 63


@dataclass(frozen=True)
class Reference:
    """A foreign key. ``own``: of the target itself; ``acts``: it deletes or changes rows that point to a deleted one
    instead of refusing; ``owned``: the role may build indexes; ``bytes`` of its table.
    """

    schema: str
    table_name: str
    name: str
    columns: list[str]
    referenced: list[str]
    own: bool
    acts: bool
    indexed: bool
    owned: bool
    partitioned: bool
    bytes: int

    @property
    def table(self) -> Name:
        return Name(self.schema, self.table_name)

    @property
    def index(self) -> Name:
        """Of ours, for as long as it takes to remove the rows."""
        name = _PREFIX + self.columns[0]
        if len(name.encode()) > _LONGEST_NAME:
            name = _PREFIX + hashlib.sha256(self.columns[0].encode()).hexdigest()[:32]
        return Name(self.schema, name)

    def build(self) -> sql.Composed:
        """Without blocking writers, and only over rows that point anywhere."""
        return sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} ({}) WHERE {} IS NOT NULL").format(
            sql.Identifier(self.index.table),
            self.table.identifier,
            sql.Identifier(self.columns[0]),
            sql.Identifier(self.columns[0]),
        )


def references(connection: Connection, oid: int) -> list[Reference]:
    """All foreign keys that point to a table or to a partition of it."""
    with connection.cursor(row_factory=class_row(Reference)) as cursor:
        return cursor.execute(query("undo", "references"), {"oid": oid}).fetchall()


def needed(found: Sequence[Reference], *, growing: bool = False) -> list[Reference]:
    """The references that an index must be built for; of a target that is ``growing``, though it is small, as well
    where it is ours to build.

    Raises Refused (``index-missing``) where one is missing that is not ours to build.
    """
    missing = [
        one
        for one in found
        if not one.indexed and (one.bytes > SMALL_BYTES or (growing and one.own and one.owned and not one.partitioned))
    ]
    for one in missing:
        if not one.own or not one.owned or one.partitioned:
            statement = one.build().as_string(None)
            if one.partitioned:
                statement = statement.replace(" CONCURRENTLY", "", 1)
            raise Refused(
                "index-missing",
                f"Each row that is removed makes the server look through {one.table} for rows that point to it "
                f"({one.name}), and no index serves that; have its owner run: {statement}",
            )
    return list({one.index: one for one in missing}.values())


def build(connection: Connection, found: Sequence[Reference]) -> None:
    """Build what ``needed`` gave, or what a killed command has left half built."""
    for one in found:
        names = {"schema": one.index.schema, "name": one.index.table}
        state = connection.execute(query("undo", "index_state"), names).fetchone()
        if state is not None:
            execute(connection, sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(one.index.identifier))
        # It waits for transactions that are older, without holding up anybody; a lock_timeout would break it off and
        # leave an index that is not valid.
        # RESET would take it back to the server's default, not to what the session was opened with.
        ((patience,),) = connection.execute("SELECT current_setting('lock_timeout')").fetchall()
        connection.execute("SET lock_timeout = 0")
        execute(connection, one.build())
        connection.execute("SELECT set_config('lock_timeout', %s, false)", [patience])


def drop(connection: Connection, oid: int, migration_id: int | None = None) -> None:
    """Remove the indexes that an undo has built on a target, this one or one that was killed.

    Those of another migration's undo that is at work stay, and those that are not the role's.
    """
    values = {"oid": oid, "migration_id": migration_id}
    for schema, name in connection.execute(query("undo", "leftovers"), values).fetchall():
        execute(connection, sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Name(schema, name).identifier))


def clear(connection: Connection, oid: int) -> None:
    """``drop`` where it is not what the command is for: each write pays for such an index, yet none fails by it."""
    try:
        drop(connection, oid)
    except psycopg.errors.LockNotAvailable:
        # A transaction that has read the table is still open. ``status`` goes on naming the index.
        return
