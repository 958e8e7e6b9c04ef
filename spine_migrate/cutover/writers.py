"""Who still writes through the view, from what its triggers note: the evidence that retire goes by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg.rows import class_row

from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.mapping.emit.trigger_bodies import NOTE_SECONDS

# A session notes its first write of each hour, so its last one is no later than this after the note.
RESOLUTION = timedelta(seconds=NOTE_SECONDS)


@dataclass(frozen=True)
class Writer:
    """``application`` as its sessions call themselves; ``operations``: INSERT, UPDATE, DELETE. The last write was
    between ``noted_at`` and ``RESOLUTION`` after it.
    """

    role: str
    application: str
    operations: list[str]
    noted_at: datetime


def writers(connection: Connection, migration_id: int) -> list[Writer]:
    """The latest first; none where nothing was written since the first cutover."""
    with connection.cursor(row_factory=class_row(Writer)) as cursor:
        return cursor.execute(query("view", "writers"), {"migration_id": migration_id}).fetchall()
