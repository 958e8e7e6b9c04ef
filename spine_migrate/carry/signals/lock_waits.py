"""Who waits for a lock on the tables of a migration."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query

# A wait shorter than that is everyday life of a busy table.
_SECONDS = 0.1


class LockWaits:
    """The limit is in sessions, whoever they wait for; ``ours`` are the server processes of the run itself, by id, and
    may grow. Locks are shown to every role.
    """

    def __init__(self, oids: Sequence[int], ours: Collection[int]) -> None:
        self._oids = list(oids)
        self._ours = ours

    def look(self, connection: Connection, limit: int) -> str | None:
        values = {"oids": self._oids, "ours": list(self._ours), "seconds": _SECONDS}
        ((waiting,),) = connection.execute(query("throttle", "lock_waits"), values).fetchall()
        if waiting <= limit:
            return None
        return f"sessions that wait for locks on the tables: {waiting:,}, the limit is {limit:,}"
