"""An application that goes on writing by the names it knows while the tables behind them change.

Each writer has rows of its own, and keeps a record of what it has committed. What it may see is what its own SQL earns:
a serialization failure, as any application at that level has, and tries again. Anything else is an error of ours.
"""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

import psycopg
from psycopg import IsolationLevel

LEVELS = (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ)
PACE = 0.03
STATUSES = ("pending", "running", "completed", "failed")


@dataclass
class Writer:
    """``rows``: key to status and error, as committed. ``longest`` in seconds, of one transaction."""

    url: str
    number: int
    seed: int
    stop: threading.Event
    rows: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    commits: int = 0
    again: int = 0
    longest: float = 0.0
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.thread = threading.Thread(target=self._run, name=f"writer {self.number}")

    def _run(self) -> None:
        try:
            with psycopg.connect(self.url, autocommit=True) as connection:
                # At a pace that the applier can keep up with on a small machine.
                while not self.stop.wait(PACE):
                    self._one(connection)
        except BaseException as error:  # noqa: BLE001 - told by the test, in its own thread
            self.failure = error

    def _one(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        rows, events = dict(self.rows), dict(self.events)
        began = time.monotonic()
        connection.isolation_level = self.random.choice(LEVELS)
        try:
            with connection.transaction():
                for _ in range(self.random.choice((1, 1, 3))):
                    self._write(connection, rows, events)
        except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
            self.again += 1
        else:
            self.rows, self.events = rows, events
            self.commits += 1
        self.longest = max(self.longest, time.monotonic() - began)

    def _write(
        self,
        connection: psycopg.Connection[tuple[object, ...]],
        rows: dict[str, tuple[str, str | None]],
        events: dict[str, int],
    ) -> None:
        key = self.random.choice(list(rows)) if rows and self.random.random() < 0.7 else None
        if key is None:
            key = f"00000000-0000-4000-8{self.number:03}-{self.random.randrange(10**12):012}"
            self._insert(connection, key, rows)
            return
        match self.random.choice(("update", "update", "event", "delete", "again")):
            case "update":
                row = self.random.choice(STATUSES), f"error {self.random.randrange(1000)}"
                found = connection.execute(
                    "UPDATE executions SET status = %s, error = %s WHERE execution_id = %s", (*row, key)
                )
                self._saw(found.rowcount)
                rows[key] = row
            case "event":
                connection.execute(
                    "INSERT INTO execution_events (execution_id, event_type) VALUES (%s, 'progress')", (key,)
                )
                events[key] = events.get(key, 0) + 1
            case "delete":
                self._delete(connection, key, rows, events)
            case _:
                self._delete(connection, key, rows, events)
                self._insert(connection, key, rows)

    def _insert(
        self,
        connection: psycopg.Connection[tuple[object, ...]],
        key: str,
        rows: dict[str, tuple[str, str | None]],
    ) -> None:
        row = self.random.choice(STATUSES), None
        connection.execute(
            "INSERT INTO executions (execution_id, pipeline_name, status) VALUES (%s, 'storm', %s)", (key, row[0])
        )
        rows[key] = row

    def _delete(
        self,
        connection: psycopg.Connection[tuple[object, ...]],
        key: str,
        rows: dict[str, tuple[str, str | None]],
        events: dict[str, int],
    ) -> None:
        connection.execute("DELETE FROM execution_events WHERE execution_id = %s", (key,))
        self._saw(connection.execute("DELETE FROM executions WHERE execution_id = %s", (key,)).rowcount)
        del rows[key]
        events.pop(key, None)

    def _saw(self, rowcount: int) -> None:
        assert rowcount == 1, f"writer {self.number} does not see a row that it has committed"
