"""Who points to a target table: foreign keys, and what it costs to delete where no index serves one.

The server looks for referencing rows once per deleted row (PostgreSQL manual, 5.5.5); without an index each look is a
scan, which makes a million deletions impossible. The target's own links have no index in the seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Interrupted, Refused

# A table of this size is scanned faster than an index would pay.
SMALL_BYTES = 1 << 20
# Seconds between two looks at whether another has done with a target's indexes.
GLANCE = 0.1
# So many sessions are named in a sentence.
_NAMED = 3
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


@contextmanager
def alone(connection: Connection, oid: int) -> Iterator[None]:
    """As the only one that builds such indexes on a target, or drops them. Migrations into one target begin at once,
    and would take each other's for what a killed command has left. The lock is the session's, and may be had twice.
    """
    while not _try_alone(connection, oid):
        # To wait in one statement would be to have a snapshot that whoever builds waits for.
        connection.execute("SELECT pg_sleep(%s)", [GLANCE])
    try:
        yield
    finally:
        _leave(connection, oid)


def _try_alone(connection: Connection, oid: int) -> bool:
    ((had,),) = connection.execute(query("undo", "try_indexes"), {"oid": oid}).fetchall()
    return bool(had)


def _leave(connection: Connection, oid: int) -> None:
    if not connection.closed:
        connection.execute(query("undo", "leave_indexes"), {"oid": oid})


def serve(connection: Connection, oid: int, *, growing: bool = False, longest: float | None = None) -> list[Reference]:
    """Build the indexes that are ``needed``, and give them. Raises Refused as ``needed`` does; Interrupted where a
    transaction that is older stays open for longer than ``longest`` seconds; None waits for it.
    """
    with alone(connection, oid):
        built = needed(references(connection, oid), growing=growing)
        _build(connection, built, longest)
    return built


def _build(connection: Connection, found: Sequence[Reference], longest: float | None) -> None:
    for one in found:
        names = {"schema": one.index.schema, "name": one.index.table}
        state = connection.execute(query("undo", "index_state"), names).fetchone()
        if state is not None:
            execute(connection, sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(one.index.identifier))
        # It waits for transactions that are older, without holding up anybody; the session's lock_timeout would break
        # it off at once and leave an index that is not valid.
        # RESET would take it back to the server's default, not to what the session was opened with.
        ((patience,),) = connection.execute("SELECT current_setting('lock_timeout')").fetchall()
        waits = f"{0 if longest is None else max(1, round(longest * 1000))}ms"
        connection.execute("SELECT set_config('lock_timeout', %s, false)", [waits])
        try:
            execute(connection, one.build())
        except psycopg.errors.LockNotAvailable as error:
            raise Interrupted(
                f"The index {one.index} on {one.table} could not be built: a transaction that is older did not end "
                f"within {longest:g} s ({_oldest(connection)}); end it, then run the same command again."
            ) from error
        finally:
            if not connection.closed:
                connection.execute("SELECT set_config('lock_timeout', %s, false)", [patience])


def _oldest(connection: Connection) -> str:
    found = connection.execute(query("plan", "long_transactions"), {"seconds": 0}).fetchall()
    told = [f"session {pid} of {role}, {what} for {age} s" for pid, role, age, what in found if pid is not None]
    return "; ".join(told[:_NAMED]) or "none is shown to this role"


def drop(connection: Connection, oid: int, migration_id: int | None = None) -> None:
    """Remove the indexes that an undo has built on a target, this one or one that was killed.

    All stay while somebody builds them, or while changes into the target are captured, of whatever migration: the
    applier deletes rows. Those of another migration's undo that is at work stay, and those that are not the role's.
    """
    if not _try_alone(connection, oid):
        return
    try:
        if _captured_into(connection, oid):
            return
        values = {"oid": oid, "migration_id": migration_id}
        for schema, name in connection.execute(query("undo", "leftovers"), values).fetchall():
            execute(connection, sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Name(schema, name).identifier))
    finally:
        _leave(connection, oid)


def _captured_into(connection: Connection, oid: int) -> bool:
    ((installed,),) = connection.execute(query("capture", "installed")).fetchall()
    if not installed:
        return False
    ((captured,),) = connection.execute(query("undo", "captured_into"), {"oid": oid}).fetchall()
    return bool(captured)


def clear(connection: Connection, oid: int) -> None:
    """``drop`` where it is not what the command is for: each write pays for such an index, yet none fails by it."""
    try:
        drop(connection, oid)
    except psycopg.errors.LockNotAvailable:
        # A transaction that has read the table is still open. ``status`` goes on naming the index.
        return
