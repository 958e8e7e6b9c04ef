"""The control connection of a run: holds the lock that keeps a second run away, and comes back after a lost server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

import psycopg

from spine_migrate.db.connect import Connection, connect
from spine_migrate.db.faults import is_lost, retrying
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused

Result = TypeVar("Result")

# A checkpoint is in its batch's transaction: a commit lost with the server loses both (PostgreSQL manual, 28.4);
# sorts and hashes of a batch stay in memory; compiling a plan costs more than it saves.
WORKER_SETTINGS = {"synchronous_commit": "off", "work_mem": "64MB", "jit": "off", "statement_timeout": "0"}


class Control:
    """A context manager. Batches do not rely on its lock (each locks its own checkpoint), so that losing it for a moment
    endangers no row; it is there so that two runs do not get in each other's way.
    """

    def __init__(self, url: str | None, *, stop: threading.Event, retry_seconds: float) -> None:
        self.url = url
        self._stop = stop
        self._retry_seconds = retry_seconds
        self._lock: str | None = None
        self.connection = connect(url, settings=WORKER_SETTINGS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()

    def hold(self, name: str, *, wait: bool) -> None:
        """Take the lock of a migration until the session ends. Raises Refused where another session has it."""
        self._lock = name
        if wait:
            self.connection.execute("SET lock_timeout = 0")
            self.connection.execute(query("backfill", "lock"), {"name": name})
            self.connection.execute("RESET lock_timeout")
            return
        row = self.connection.execute(query("backfill", "try_lock"), {"name": name}).fetchone()
        if row is None or not row[0]:
            raise Refused(
                "already-running",
                f"Another run is at work on {name.partition('|')[0]}; wait for it, or give --wait.",
            )

    def retried(self, work: Callable[[Connection], Result]) -> Result:
        """Run ``work``, again on a new connection where the old one is lost; it must bear being run twice."""

        def attempt() -> Result:
            try:
                return work(self._alive())
            except psycopg.Error as error:
                if is_lost(error):
                    self.connection.close()
                raise

        return retrying(seconds=self._retry_seconds, stop=self._stop)(attempt)

    def _alive(self) -> Connection:
        if self.connection.closed:
            self.connection = connect(self.url, settings=WORKER_SETTINGS)
            if self._lock is not None:
                self.hold(self._lock, wait=False)
        return self.connection
