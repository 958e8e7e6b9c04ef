"""What is captured and how far behind the target is, from the ledger alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from spine_migrate.carry import orders
from spine_migrate.carry.orders import Told
from spine_migrate.db import captures, ledger
from spine_migrate.db.captures import Captured, Lag
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.sync import capture

NAMED = 10


@dataclass(frozen=True)
class PutOff:
    """A row that waits. ``detail`` is what the server said, or what it waits for."""

    row_key: str
    attempts: int
    detail: str | None


@dataclass(frozen=True)
class State:
    """One capture. ``session`` is the server's process that serves the applier, None where none is at work. ``put_off``
    names some of the rows that wait. ``told``: who has paused it, and what holds the applier back. ``broken``: why not
    every write is captured, None where each is.
    """

    mapping: str
    captured: Captured
    lag: Lag
    session: int | None
    put_off: list[PutOff]
    told: Told | None
    broken: str | None

    @property
    def well(self) -> bool:
        """Whether nobody has to see to it."""
        return not self.lag.stuck and self.broken is None


def states(connection: Connection, mappings: Sequence[str] = ()) -> list[State]:
    """All captures, or those of some mappings. Raises Refused where the ledger is not installed."""
    ledger.require(connection)
    migrations = {
        one.migration_id: one for one in ledger.migrations(connection) if not mappings or one.mapping in mappings
    }
    told = orders.everything(connection)
    found = []
    for captured in captures.captures(connection, list(migrations)):
        migration = migrations[captured.migration_id]
        lock = f"{migration.mapping}|{migration.source_table}|{migration.target_table}"
        session = connection.execute(query("capture", "applied_by"), {"name": lock}).fetchone()
        with connection.cursor(row_factory=class_row(PutOff)) as cursor:
            values = {"capture_id": captured.capture_id, "limit": NAMED}
            put_off = cursor.execute(query("capture", "put_off_rows"), values).fetchall()
        found.append(
            State(
                migration.mapping,
                captured,
                captures.lag(connection, captured.capture_id),
                None if session is None else int(session[0]),
                put_off,
                told.get(captured.migration_id),
                capture.broken(connection, captured),
            )
        )
    return found


def broken(connection: Connection, migrations: Sequence[int]) -> dict[int, str]:
    """By migration, why not every write is captured that should be."""
    found = ((one.migration_id, capture.broken(connection, one)) for one in captures.captures(connection, migrations))
    return {number: sentence for number, sentence in found if sentence is not None}
