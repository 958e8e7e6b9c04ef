"""The control connection of a run: holds the lock that keeps a second run away, and comes back after a lost server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

import psycopg

from spine_migrate.db.advisory import ENDED, give_back, try_lock
from spine_migrate.db.cancelling import cancelling
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.db.faults import is_lost, let_in, retrying
from spine_migrate.errors import Interrupted, Refused

Result = TypeVar("Result")

# Sorts and hashes of a batch stay in memory (100,000 rows of 1 kB); compiling a plan costs more than it saves. "Done"
# is told once it is on disk, and with it everything that was committed before.
SETTINGS = {"synchronous_commit": "on", "work_mem": "128MB", "jit": "off", "statement_timeout": "0"}
# A checkpoint is in its batch's transaction: a commit lost with the server loses both (PostgreSQL manual, 28.4).
WORKER_SETTINGS = {**SETTINGS, **PINNED, "synchronous_commit": "off"}


class Control:
    """A context manager. Batches do not rely on its lock (each locks its own checkpoint), so that losing it for a
    moment endangers no row; it is there so that two runs do not get in each other's way. ``told`` is as in
    ``faults.retrying``.
    """

    def __init__(
        self,
        url: str | None,
        *,
        stop: threading.Event,
        retry_seconds: float,
        told: Callable[[BaseException, int, float], None] | None = None,
    ) -> None:
        self.url = url
        self._told = told
        self._stop = stop
        self._retry_seconds = retry_seconds
        self._lock: str | None = None
        self._mending = threading.Lock()
        self.connection = let_in(lambda: connect(url, settings=SETTINGS), seconds=retry_seconds, stop=stop, told=told)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        give_back(self.connection)
        self.connection.close()

    def hold(self, name: str, *, wait: bool) -> None:
        """Take the lock of a migration until the session ends.

        Raises Refused where another session has it, Interrupted where the run is to stop while it waits.
        """
        self._take(name, patience=None if wait else ENDED)
        self._lock = name

    def open_worker(self) -> Connection:
        """A connection for a worker. Asked for when one was lost, which may have cost this one's lock as well."""
        with self._mending:
            try:
                self.connection.execute("SELECT")
            except psycopg.OperationalError as error:
                if not is_lost(error):
                    raise
                self.connection.close()
            self._alive()
        return connect(self.url, settings=WORKER_SETTINGS)

    def _take(self, name: str, *, patience: float | None) -> None:
        """``patience`` in seconds; None waits as long as it takes."""
        if not try_lock(self.connection, ("backfill", "try_lock"), name, seconds=patience, stop=self._stop):
            what = name.partition("|")[0]
            raise Refused("already-running", f"Another run is at work on {what}; wait for it, or give --wait.")

    def retried(self, work: Callable[[Connection], Result], *, but: Collection[str] = ()) -> Result:
        """Run ``work``, again on a new connection where the old one is lost; it must bear being run twice. ``but`` is
        as in ``faults.retrying``.
        """

        def attempt() -> Result:
            try:
                return work(self._alive())
            except psycopg.Error as error:
                if is_lost(error):
                    self.connection.close()
                raise

        return retrying(seconds=self._retry_seconds, stop=self._stop, told=self._told, but=but)(attempt)

    def _alive(self) -> Connection:
        if self.connection.closed:
            resolved = PINNED if self._lock is not None else {}
            self.connection = connect(self.url, settings={**SETTINGS, **resolved})
            if self._lock is not None:
                # The server may not have noticed yet that the old session is gone.
                try:
                    self._take(self._lock, patience=self._retry_seconds)
                except psycopg.Error:
                    self.connection.close()
                    raise
        return self.connection


@contextmanager
def cancelled_by(cancel: threading.Event, controls: Iterable[Control]) -> Iterator[None]:
    """While the block runs, ``cancel`` cancels the statement in flight on any of them, and each that follows; that
    raises Interrupted.
    """
    watched = list(controls)
    with broken_off_by(cancel, lambda: [control.connection for control in watched]):
        yield


@contextmanager
def broken_off_by(event: threading.Event, connections: Callable[[], Iterable[Connection]]) -> Iterator[None]:
    """The same for connections, which are asked for once ``event`` is set."""
    try:
        with cancelling(event, connections):
            yield
    # The second where it was the end of a transaction that was cancelled.
    except (psycopg.errors.QueryCanceled, psycopg.errors.InFailedSqlTransaction) as error:
        if not event.is_set():
            raise
        raise Interrupted("Cancelled; what was committed stays, run the same command to go on.") from error
