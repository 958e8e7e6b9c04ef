"""Where every migration stands, from the ledger alone; reads only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row

from spine_migrate.carry import orders
from spine_migrate.carry.orders import Told
from spine_migrate.db import captures, ledger, retirements
from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import explained
from spine_migrate.db.queries import query
from spine_migrate.db.retirements import Retirement


@dataclass(frozen=True)
class Status:
    """One migration. ``quarantined`` counts by reason, discarded rows included. ``at_work``: a run, a retry or an undo
    holds its lock now; ``following``: an applier of changes does. ``changes_waiting`` are not applied, None where none
    are captured. Blocks are of 8 kB and of the source; all of them done is 100 percent. ``undo_indexes`` are on the
    target because an undo has built them, of this migration or of another one. ``paused_at`` and ``settings`` are
    orders from another terminal; ``held_by``, a limit's name, ``pause`` or ``pause-file``, is what a run or an applier
    waits for now. ``archive`` is where the rows of the legacy tables are that may be dropped, or were.
    ``capture_broken``: why not every write is captured that should be; another stage finds that out.
    """

    migration_id: int
    mapping: str
    source_table: str
    target_table: str
    step: str
    tool_version: str
    started_by: str
    started_at: datetime
    finished_at: datetime | None
    rows_moved: int
    rows_adopted: int
    last_batch_at: datetime | None
    blocks_done: int | None
    blocks_total: int | None
    quarantined: dict[str, int]
    discarded: int
    links_waiting: int
    links_broken: int
    undo_indexes: list[str]
    at_work: bool
    following: bool = False
    changes_waiting: int | None = None
    paused_at: datetime | None = None
    paused_by: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    held_by: str | None = None
    held_detail: str | None = None
    held_since: datetime | None = None
    retire_allowed_at: datetime | None = None
    retired_at: datetime | None = None
    archive: str | None = None
    capture_broken: str | None = None

    @property
    def percent(self) -> float:
        if self.step in ("done", "cutover", "retired", "undone") or not self.blocks_total:
            return 100.0
        return 100.0 * (self.blocks_done or 0) / self.blocks_total

    @property
    def rows_quarantined(self) -> int:
        return sum(self.quarantined.values())

    @property
    def well(self) -> bool:
        """Whether nobody has to see to it."""
        return self.rows_quarantined <= self.discarded and self.capture_broken is None

    @property
    def accounted(self) -> int:
        return self.rows_moved + self.rows_adopted + self.rows_quarantined


@dataclass(frozen=True)
class Pace:
    """What happened between two looks: rows per second, and the seconds left at that pace, None where nothing moved."""

    rate: float
    seconds_left: float | None


def look(connection: Connection, *, undone: bool = False) -> list[Status]:
    """All migrations, oldest first. Raises Refused where the ledger is not installed or not readable."""
    try:
        ledger.require(connection)
        with connection.cursor(row_factory=class_row(Status)) as cursor:
            found = cursor.execute(query("status", "migrations"), {"undone": undone}).fetchall()
        told = orders.everything(connection)
        waiting = captures.waiting(connection)
        ended = retirements.retirements(connection, [one.migration_id for one in found])
    except psycopg.Error as error:
        raise explained(error) from error
    found = [replace(one, changes_waiting=waiting.get(one.migration_id)) for one in found]
    found = [_with(one, told[one.migration_id]) if one.migration_id in told else one for one in found]
    return [_ended(one, ended[one.migration_id]) if one.migration_id in ended else one for one in found]


def _ended(status: Status, retirement: Retirement) -> Status:
    return replace(
        status,
        retire_allowed_at=retirement.allowed_at,
        retired_at=retirement.retired_at,
        archive=retirement.archive,
    )


def _with(status: Status, told: Told) -> Status:
    status = replace(status, paused_at=told.paused_at, paused_by=told.paused_by, settings=told.settings)
    # Of a run that was killed, or an undo, nobody takes it back.
    if not (status.at_work or status.following) or status.step == "undoing":
        return status
    return replace(status, held_by=told.held_by, held_detail=told.held_detail, held_since=told.held_since)


def pace(before: Status, now: Status, seconds: float) -> Pace:
    """From two looks at one migration, ``seconds`` apart."""
    blocks = ((now.blocks_done or 0) - (before.blocks_done or 0)) / seconds
    left = (now.blocks_total or 0) - (now.blocks_done or 0)
    return Pace((now.accounted - before.accounted) / seconds, left / blocks if blocks > 0 else None)


def as_json(status: Status, at: Pace | None) -> dict[str, Any]:
    """The fields of ``Status`` with percent, and of ``Pace`` where there were two looks."""
    values = {name: getattr(status, name) for name in Status.__dataclass_fields__}
    return {
        **{name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()},
        "percent": round(status.percent, 2),
        "rows_per_second": None if at is None else round(at.rate, 1),
        "seconds_left": None if at is None or at.seconds_left is None else round(at.seconds_left),
    }
