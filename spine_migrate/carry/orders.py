"""Orders to a run from another terminal, in the ledger's table ``control``: pause, go on, other settings.

The run tells there what holds it back. A row outlives the run and any kill.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from spine_migrate.carry.settings import Change
from spine_migrate.db import ledger
from spine_migrate.db.connect import Connection
from spine_migrate.db.ledger import Migration
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused


@dataclass(frozen=True)
class Hold:
    """Why a run waits: ``by`` is ``pause``, ``pause-file`` or the name of the limit, ``detail`` says it in words."""

    by: str
    detail: str


@dataclass(frozen=True)
class Orders:
    """What a run is told. ``settings`` is as it stands in the ledger; ``migration_id`` is the one that is paused."""

    settings: dict[str, Any] = field(default_factory=dict)
    migration_id: int | None = None
    paused_at: datetime | None = None
    paused_by: str | None = None


@dataclass(frozen=True)
class Told:
    """A row of ``control``. What it says of a hold is true only while somebody is at work."""

    migration_id: int
    paused_at: datetime | None
    paused_by: str | None
    settings: dict[str, Any]
    held_by: str | None
    held_detail: str | None
    held_since: datetime | None


def installed(connection: Connection) -> bool:
    """False on a ledger of an older version, whose runs take no orders."""
    return bool(connection.execute(query("orders", "installed")).fetchall()[0][0])


def begin(connection: Connection, migration_id: int) -> None:
    connection.execute(query("orders", "begin"), {"migration_id": migration_id})


def read(connection: Connection, migration_id: int, parent: int | None) -> Orders:
    """``parent`` is the migration whose rows this one's need: whoever pauses that one means its events too."""
    with connection.cursor(row_factory=class_row(Orders)) as cursor:
        values = {"migration_id": migration_id, "parent": parent}
        return cursor.execute(query("orders", "read"), values).fetchall()[0]


def record(connection: Connection, migration_id: int, hold: Hold | None) -> None:
    values = {"by": None, "detail": None} if hold is None else {"by": hold.by, "detail": hold.detail}
    connection.execute(query("orders", "record"), {"migration_id": migration_id, **values})


def everything(connection: Connection) -> dict[int, Told]:
    """By migration; empty on a ledger that takes no orders."""
    if not installed(connection):
        return {}
    with connection.cursor(row_factory=class_row(Told)) as cursor:
        return {one.migration_id: one for one in cursor.execute(query("orders", "all")).fetchall()}


def pause(connection: Connection, migrations: Sequence[Migration]) -> list[int]:
    """Those that were not paused before. Raises Refused where the ledger takes no orders."""
    return _switch(connection, migrations, "pause", "paused")


def resume(connection: Connection, migrations: Sequence[Migration]) -> list[int]:
    """Those that were paused. Raises Refused where the ledger takes no orders."""
    return _switch(connection, migrations, "resume", "resumed")


def change(connection: Connection, migrations: Sequence[Migration], asked: Change) -> None:
    """Raises Refused where the ledger takes no orders."""
    _require(connection)
    values = {"given": Jsonb(asked.given), "removed": asked.removed, "migrations": _numbers(migrations)}
    with connection.transaction():
        connection.execute(query("orders", "change"), values)
        for one in migrations:
            ledger.audit(
                connection, "settings changed", migration_id=one.migration_id, given=asked.given, removed=asked.removed
            )


def _switch(connection: Connection, migrations: Sequence[Migration], order: str, action: str) -> list[int]:
    _require(connection)
    with connection.transaction():
        rows = connection.execute(query("orders", order), {"migrations": _numbers(migrations)}).fetchall()
        changed = sorted(number for (number,) in rows)
        for number in changed:
            ledger.audit(connection, action, migration_id=number)
    return changed


def _numbers(migrations: Sequence[Migration]) -> list[int]:
    # In one order by everybody, so that two who write several rows do not wait for each other.
    return sorted(one.migration_id for one in migrations)


def _require(connection: Connection) -> None:
    if not installed(connection):
        raise Refused(
            "ledger-outdated", "The ledger is of an older version and takes no orders; run spine-migrate db upgrade."
        )
