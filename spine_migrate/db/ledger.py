"""The ledger: which migrations there are, how far each has come, what was done by whom.

All of it is in the schema ``spine_migrate`` of the target database: a checkpoint commits with the rows it covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from spine_migrate import __version__
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused


@dataclass(frozen=True)
class Migration:
    """One mapping started between two tables. ``step``: backfill, done, undoing, undone."""

    migration_id: int
    mapping: str
    mapping_digest: str
    source_table: str
    target_table: str
    step: str
    options: dict[str, Any]
    tool_version: str
    started_by: str
    started_at: datetime
    finished_at: datetime | None
    rows_estimated: int | None


@dataclass(frozen=True)
class Checkpoint:
    """How far one segment has come.

    A segment is the blocks ``low_block`` to ``high_block`` (exclusive; None: to the end) of one table or partition;
    ``position`` is the tid up to and including which its rows are done.
    """

    migration_id: int
    segment: int
    leaf_schema: str
    leaf_table: str
    filenode: int
    low_block: int
    high_block: int | None
    position: str
    rows_moved: int
    rows_adopted: int
    rows_quarantined: int
    batches: int
    batch_size: int | None
    done: bool
    updated_at: datetime


def require(connection: Connection) -> None:
    """Raises Refused where the ledger is not installed."""
    row = connection.execute(query("ledger", "installed")).fetchone()
    if row is None or not row[0]:
        raise Refused(
            "ledger-missing", "The schema spine_migrate is not installed; run spine-migrate db upgrade first."
        )


def live(connection: Connection, mapping: str, source_table: str, target_table: str) -> Migration | None:
    """The migration of a mapping between two tables that is not undone."""
    with connection.cursor(row_factory=class_row(Migration)) as cursor:
        names = {"mapping": mapping, "source_table": source_table, "target_table": target_table}
        return cursor.execute(query("ledger", "live"), names).fetchone()


def migrations(connection: Connection, *, undone: bool = False) -> list[Migration]:
    """All migrations, oldest first; those undone only on request."""
    with connection.cursor(row_factory=class_row(Migration)) as cursor:
        return cursor.execute(query("ledger", "migrations"), {"undone": undone}).fetchall()


def start(
    connection: Connection,
    *,
    mapping: str,
    digest: str,
    source_table: str,
    target_table: str,
    options: dict[str, Any],
    rows_estimated: int,
) -> int:
    """Record a new migration in the caller's transaction; gives its id."""
    values = {
        "mapping": mapping,
        "digest": digest,
        "source_table": source_table,
        "target_table": target_table,
        "options": Jsonb(options),
        "tool_version": __version__,
        "rows_estimated": rows_estimated,
    }
    (row,) = connection.execute(query("ledger", "start"), values).fetchall()
    return int(row[0])


def set_step(connection: Connection, migration_id: int, step: str) -> None:
    connection.execute(query("ledger", "set_step"), {"migration_id": migration_id, "step": step})


def checkpoints(connection: Connection, migration_id: int) -> list[Checkpoint]:
    with connection.cursor(row_factory=class_row(Checkpoint)) as cursor:
        return cursor.execute(query("ledger", "checkpoints"), {"migration_id": migration_id}).fetchall()


def checkpoint(connection: Connection, migration_id: int, segment: int, *, lock: bool = False) -> Checkpoint:
    """One segment's checkpoint; ``lock`` keeps every other runner from moving it until the transaction ends."""
    with connection.cursor(row_factory=class_row(Checkpoint)) as cursor:
        names = {"migration_id": migration_id, "segment": segment}
        found = cursor.execute(query("ledger", "checkpoint_locked" if lock else "checkpoint"), names).fetchone()
    if found is None:
        raise Refused(
            "checkpoint-missing", f"Migration {migration_id} has no segment {segment}; it was undone meanwhile."
        )
    return found


def audit(connection: Connection, action: str, *, migration_id: int | None = None, **detail: object) -> None:
    """Record who did what. ``detail`` holds counts and names, never row values."""
    values = {
        "tool_version": __version__,
        "migration_id": migration_id,
        "action": action,
        "detail": Jsonb(detail),
    }
    connection.execute(query("ledger", "audit"), values)
