"""Whether the legacy tables have what the target says: the comparison that is true after a cutover.

The forward comparison would tell differences that are none: what others have added to a row of the target, and rows
that others made. Here each target row with a legacy form is set against its legacy row, column by column, as the
applier of the way back does. A writer logs the key of what it writes in its own transaction, so in one snapshot a row
may differ where its key is in the log, and nowhere else; and so may a row whose legacy row is in quarantine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from spine_migrate.carry.known import Known
from spine_migrate.db import captures
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.sync.appliers import reversal_of
from spine_migrate.sync.work import run

# Of those that differ, so many are named.
_NAMED = 5


@dataclass(frozen=True)
class Returned:
    """One migration. ``differing`` counts rows by kind: missing or extra in the legacy table, differing; ``named`` are
    keys of some. ``excused``: rows whose changes are on their way. ``truncated``: of everything may be.
    """

    mapping: str
    rows: int
    differing: dict[str, int]
    named: list[str]
    excused: int
    truncated: bool

    @property
    def equal(self) -> bool:
        return not self.differing and not self.truncated


def returned(connection: Connection, members: Sequence[Known]) -> list[Returned]:
    """In one snapshot. The connection is idle, its search_path pinned (``db.connect.PINNED``)."""
    before = connection.isolation_level, connection.read_only
    connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
    try:
        with connection.transaction():
            return [_one(connection, one, members) for one in members]
    finally:
        if not connection.closed:
            connection.isolation_level, connection.read_only = before


def carry_again(connection: Connection, members: Sequence[Known]) -> dict[str, int]:
    """Before a way back: what somebody has deleted from the legacy tables by their own names is the application's all
    the same, and would be gone from the target next. How many rows, by mapping.
    """
    found = {}
    for one in members:
        captured = captures.captured(connection, one.migration.migration_id, captures.REVERSE)
        if captured is not None:
            reversal = reversal_of(connection, one, members)
            found[one.mapping.name] = run(connection, reversal.carry_again(captured.capture_id)).rowcount
    return found


def _one(connection: Connection, one: Known, members: Sequence[Known]) -> Returned:
    number = one.migration.migration_id
    on_their_way = _on_their_way(connection, number)
    reversal = reversal_of(connection, one, members)
    ((rows,),) = run(connection, reversal.count()).fetchall()
    differing: dict[str, int] = {}
    named: list[str] = []
    excused = 0
    for kind, key in run(connection, reversal.apart()):
        if key in on_their_way:
            excused += 1
            continue
        differing[kind] = differing.get(kind, 0) + 1
        if len(named) < _NAMED:
            named.append(f"{kind} {key}")
    return Returned(one.mapping.name, rows, differing, named, excused, truncated=None in on_their_way)


def _on_their_way(connection: Connection, migration_id: int) -> set[str | None]:
    """Keys; None where it may be any row. All of them: since retire was allowed nothing takes them out."""
    captured = captures.captured(connection, migration_id, captures.REVERSE)
    if captured is None:
        return set()
    values = {"capture_id": captured.capture_id, "limit": None}
    return {key for (key,) in connection.execute(query("capture", "in_flight"), values)}
