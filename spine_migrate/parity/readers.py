"""Sessions that read portions of both sides at the same time, each side in one snapshot."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import psycopg

from spine_migrate.db.cancelling import cancelling
from spine_migrate.db.connect import Connection
from spine_migrate.parity.snapshot import Shared

Result = TypeVar("Result")
Work = TypeVar("Work")


@dataclass
class Readers:
    """``workers`` threads, each with a session per side, opened when it is needed."""

    source: Shared
    target: Shared
    """The same object where both tables are on one server."""
    workers: int
    _here: threading.local = field(default_factory=threading.local)
    _open: list[Connection] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self) -> Iterator[ThreadPoolExecutor]:
        """Whatever ends the block, no statement of its threads goes on after it."""
        try:
            with (
                cancelling(self._stopped, lambda: list(self._open)),
                ThreadPoolExecutor(self.workers, thread_name_prefix="parity") as pool,
            ):
                try:
                    yield pool
                except BaseException:
                    self._stopped.set()
                    raise
                finally:
                    pool.shutdown(wait=True, cancel_futures=True)
        finally:
            for connection in self._open:
                connection.close()

    def connection(self, *, source: bool) -> Connection:
        """The calling thread's session on a side."""
        shared = self.source if source else self.target
        mine: dict[int, Connection] = self._here.__dict__.setdefault("connections", {})
        if id(shared) not in mine:
            mine[id(shared)] = self.open(source=source)
        if self._stopped.is_set():
            raise psycopg.errors.QueryCanceled("the comparison was stopped")
        return mine[id(shared)]

    def open(self, *, source: bool) -> Connection:
        """A session that is closed with the others."""
        connection = (self.source if source else self.target).open()
        self._open.append(connection)
        return connection

    def each(
        self, pool: ThreadPoolExecutor, work: Sequence[Work], task: Callable[[Work], Result]
    ) -> Iterator[tuple[Work, Result]]:
        """Results as they come, with no more than a few of them waiting to be taken."""
        waiting: dict[Future[Result], Work] = {}
        left = iter(work)
        while True:
            while len(waiting) < 2 * self.workers and (one := next(left, None)) is not None:
                waiting[pool.submit(task, one)] = one
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield waiting.pop(future), future.result()
