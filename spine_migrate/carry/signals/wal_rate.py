"""How fast the server writes WAL."""

from __future__ import annotations

from collections import deque

from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query

# Seconds over which the rate is an average: some batches long, so that a single one does not stop its successor.
WINDOW = 10.0


class WalRate:
    """The limit is in bytes per second, written by everybody on the server: its disks, archive and replicas do not ask
    by whom. No reading before the second look.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float]] = deque()

    def look(self, connection: Connection, limit: int) -> str | None:
        ((position, at),) = connection.execute(query("throttle", "wal_position")).fetchall()
        rate = self.rate(position, at)
        if rate is None or rate <= limit:
            return None
        return f"the server writes {round(rate):,} bytes of WAL a second, the limit is {limit:,}"

    def rate(self, position: int, at: float) -> float | None:
        """Bytes per second up to a new reading: ``position`` in bytes, ``at`` in seconds."""
        # Another server has taken the place of this one, or its clock was set back.
        if self._seen and (position < self._seen[-1][0] or at <= self._seen[-1][1]):
            self._seen.clear()
        self._seen.append((position, at))
        while len(self._seen) > 2 and at - self._seen[1][1] >= WINDOW:  # noqa: PLR2004 - a rate takes two
            self._seen.popleft()
        first, began = self._seen[0]
        return (position - first) / (at - began) if len(self._seen) > 1 else None
