"""How far standbys, receivers and replication slots are behind."""

from __future__ import annotations

from spine_migrate.carry.signals.signal import unreadable
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query


class ReplicaLag:
    """The limit is in bytes of WAL that a replica has not replayed, or a slot has not let go of (PostgreSQL manual,
    27.2.4, and pg_replication_slots in chapter 53). A slot that nobody reads counts: what a migration writes is kept on
    disk for it.
    """

    def look(self, connection: Connection, limit: int) -> str | None:
        ((readable, name, behind),) = connection.execute(query("throttle", "replica_lag")).fetchall()
        if not readable:
            raise unreadable("the replication state")
        if behind is None or behind <= limit:
            return None
        return f"{name} is {behind:,} bytes behind, the limit is {limit:,}"
