"""Where every migration stands, put together from the ledger and from the triggers of change capture."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spine_migrate.backfill.status import Status
    from spine_migrate.db.connect import Connection


def look(connection: Connection, *, undone: bool = False) -> list[Status]:
    """All migrations, oldest first. Raises Refused where the ledger is not installed or not readable, ServerFault."""
    import psycopg

    from spine_migrate.backfill import status
    from spine_migrate.db.faults import explained
    from spine_migrate.sync.state import broken

    found = status.look(connection, undone=undone)
    try:
        told = broken(connection, [one.migration_id for one in found])
    except psycopg.Error as error:
        raise explained(error) from error
    return [replace(one, capture_broken=told.get(one.migration_id)) for one in found]
