"""What goes on around the migrations: the application's writes, sessions that wait, changes not applied; reads only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import psycopg
from psycopg.rows import class_row, dict_row

from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import explained
from spine_migrate.db.queries import query

#: Changes are not counted beyond this; so many are a long way behind.
MOST = 1_000_000


@dataclass(frozen=True)
class Lag:
    """``direction``: forward or reverse. ``rows`` is at most ``MOST``; ``seconds`` is the age of the oldest change."""

    direction: str
    rows: int
    seconds: float


@dataclass(frozen=True)
class Activity:
    """Of one migration. ``source_writes`` counts rows since the table's statistics began, so only differences of two
    looks mean something. ``lock_waits`` are sessions that wait for a lock and have or want one on the source or the
    target, ``longest_wait`` in seconds. ``held_by`` is the signal that holds the run back.
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
    lags: list[Lag] = field(default_factory=list)


def look(connection: Connection) -> dict[int, Activity]:
    """By migration, those undone left out. Raises Refused where the ledger is not readable or is an older one."""
    try:
        with connection.cursor(row_factory=class_row(Activity)) as cursor:
            found = {one.migration_id: one for one in cursor.execute(query("activity", "activity")).fetchall()}
        with connection.cursor(row_factory=dict_row) as rows:
            lags = rows.execute(query("activity", "lag"), {"most": MOST}).fetchall()
    except psycopg.Error as error:
        raise explained(error) from error
    for lag in lags:
        if (of := found.get(lag.pop("migration_id"))) is not None:
            of.lags.append(Lag(**lag))
    return found
