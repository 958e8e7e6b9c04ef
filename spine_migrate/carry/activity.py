"""What goes on around the migrations: the application's writes, sessions that wait, changes not applied; reads only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import psycopg
from psycopg.rows import class_row

from spine_migrate.db import captures
from spine_migrate.db.captures import Lag
from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import explained
from spine_migrate.db.queries import query


@dataclass(frozen=True)
class Activity:
    """Of one migration. ``source_writes`` counts rows since the table's statistics began, so only differences of two
    looks mean something. ``lock_waits`` are sessions that wait for a lock and have or want one on the source or the
    target, ``longest_wait`` in seconds. ``held_by`` is the signal that holds the run back. ``lags`` are by direction.
    """

    migration_id: int
    source_writes: int
    lock_waits: int
    longest_wait: float
    paused_at: datetime | None
    paused_by: str | None
    held_by: str | None
    held_detail: str | None
    held_since: datetime | None
    lags: dict[str, Lag] = field(default_factory=dict)


def look(connection: Connection) -> dict[int, Activity]:
    """By migration, those undone left out, in one snapshot: a capture may end meanwhile.

    Raises Refused where the ledger is not readable or is an older one.
    """
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    try:
        with connection.transaction():
            with connection.cursor(row_factory=class_row(Activity)) as cursor:
                found = {one.migration_id: one for one in cursor.execute(query("activity", "activity")).fetchall()}
            for one in captures.captures(connection, list(found)):
                found[one.migration_id].lags[one.direction] = captures.lag(connection, one.capture_id)
    except psycopg.Error as error:
        raise explained(error) from error
    return found


def writes_per_second(before: Activity, now: Activity, seconds: float) -> float | None:
    """From two looks at one migration, ``seconds`` apart; None where the statistics were reset, or lost in a crash."""
    writes = now.source_writes - before.source_writes
    return writes / seconds if writes >= 0 else None
