"""How busy the server is."""

from __future__ import annotations

from collections.abc import Collection

from spine_migrate.carry.signals.signal import unreadable
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query


class ActiveSessions:
    """The limit is in sessions, of all databases and roles, that are executing a statement or wait for a lock to do so;
    ``ours`` are the server processes of the run itself, by id, which do not count, and may grow.
    """

    def __init__(self, ours: Collection[int]) -> None:
        self._ours = ours

    def look(self, connection: Connection, limit: int) -> str | None:
        values = {"ours": list(self._ours)}
        ((readable, active),) = connection.execute(query("throttle", "active_sessions"), values).fetchall()
        if not readable:
            raise unreadable("the activity")
        if active <= limit:
            return None
        return f"active sessions: {active:,}, the limit is {limit:,}"
