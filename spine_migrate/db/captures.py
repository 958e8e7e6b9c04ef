"""What is captured, as the ledger has it, and the locks between batches and the applier of changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query

FORWARD, REVERSE = "forward", "reverse"
# A row that was put off as often has been tried in vain.
MOST_ATTEMPTS = 20
#: Entries of a log are not counted beyond this; so many are a long way behind.
MOST_COUNTED = 100_000


@dataclass(frozen=True)
class Captured:
    """One capture. ``applied`` counts entries of the log; ``why`` says why the style is ``row``; ``caught_up``: what
    was moved before it began, and has changed since, is left to the applier as well.
    """

    capture_id: int
    migration_id: int
    direction: str
    relation: str
    style: str
    why: str | None
    installed_at: datetime
    caught_up: bool
    applied: int
    applied_at: datetime | None


@dataclass(frozen=True)
class Lag:
    """What is not applied: ``entries`` of the log (counted up to 100,000), the age of the oldest in ``seconds``; rows
    that are ``deferred``, of which those ``stuck`` have been tried in vain for long, and those ``untried`` not at all;
    keys that were ``gone`` and are looked at once more.
    """

    entries: int = 0
    seconds: float = 0.0
    deferred: int = 0
    stuck: int = 0
    untried: int = 0
    gone: int = 0

    @property
    def nothing(self) -> bool:
        return not (self.entries or self.deferred or self.gone)

    @property
    def idle(self) -> bool:
        """Nothing can be done about what is left, if anything is."""
        return not (self.entries or self.gone) and self.deferred == self.stuck


def captures(connection: Connection, migrations: Sequence[int]) -> list[Captured]:
    """Those of some migrations; none where the ledger is older than change capture."""
    ((installed,),) = connection.execute(query("capture", "installed")).fetchall()
    if not installed:
        return []
    with connection.cursor(row_factory=class_row(Captured)) as cursor:
        return cursor.execute(query("capture", "captures"), {"migrations": list(migrations)}).fetchall()


def captured(connection: Connection, migration_id: int, direction: str) -> Captured | None:
    return next((one for one in captures(connection, [migration_id]) if one.direction == direction), None)


def lag(connection: Connection, capture_id: int) -> Lag:
    """Nothing where the capture is over."""
    with connection.cursor(row_factory=class_row(Lag)) as cursor:
        found = cursor.execute(
            query("capture", "lag"), {"capture_id": capture_id, "attempts": MOST_ATTEMPTS}
        ).fetchone()
    return found or Lag()


def waiting(connection: Connection) -> dict[int, int]:
    """By migration, how many changes are not applied; empty where the ledger is older than change capture."""
    ((installed,),) = connection.execute(query("capture", "installed")).fetchall()
    return dict(connection.execute(query("status", "waiting")).fetchall()) if installed else {}


def unless_rewritten(connection: Connection, *tables: Name) -> None:
    """Last in a transaction at REPEATABLE READ that has read the tables. An ALTER TABLE that rewrites one leaves
    nothing in it that a snapshot from before could see (PostgreSQL manual, 13.6), so who has waited for it with a
    snapshot took the table for an empty one. Raises SerializationFailure: it is done again.
    """
    values = {"schemas": [one.schema for one in tables], "tables": [one.table for one in tables]}
    if connection.execute(query("capture", "rewritten"), values).fetchone() is not None:
        raise psycopg.errors.SerializationFailure("A table was rewritten meanwhile.")


@contextmanager
def batch_in_flight(connection: Connection, name: str) -> Iterator[None]:
    """Around a transaction that reads rows of a migration and writes them to its target later; ``name`` is that of the
    migration's lock. The lock is the session's, as it must be had before the snapshot is taken.
    """
    connection.execute(query("capture", "share"), {"name": name})
    try:
        yield
    finally:
        # A session that is lost has no locks any more.
        with suppress(psycopg.OperationalError):
            connection.execute(query("capture", "unshare"), {"name": name})


def barrier(connection: Connection, name: str) -> None:
    """Come back when every batch that was in flight is over. Batches that begin meanwhile wait for a moment."""
    connection.execute(query("capture", "exclude"), {"name": name})
    connection.execute(query("capture", "include"), {"name": name})


@contextmanager
def alone(connection: Connection, name: str) -> Iterator[bool]:
    """Whether no batch is in flight; none begins before the block ends then."""
    ((had,),) = connection.execute(query("capture", "try_exclude"), {"name": name}).fetchall()
    try:
        yield bool(had)
    finally:
        if had:
            with suppress(psycopg.OperationalError):
                connection.execute(query("capture", "include"), {"name": name})
