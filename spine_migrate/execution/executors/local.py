"""An executor that works in its own process: with threads, or with threads that have a process each for the handlers.

A run that is to be tried again, is due later, or was left behind by a process that died is the relay's to find, as with
every executor. With ``relay_every`` this executor is its own relay, which is what an executor that owns its ledger has
to be: nobody else knows of it. Two relays on one ledger do no harm.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from spine_migrate.execution.calling import call
from spine_migrate.execution.context import TaskContext
from spine_migrate.execution.errors import BackendError
from spine_migrate.execution.forking import start_in_children
from spine_migrate.execution.guards.protocol import ConcurrencyGuard
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.registry import Handler, HandlerRegistry, get_default_registry
from spine_migrate.execution.relay import Relay
from spine_migrate.execution.runs import RunRecord, RunStatus
from spine_migrate.execution.worker import Worker

if TYPE_CHECKING:
    from spine_migrate.execution.executors.child import Child

_log = logging.getLogger(__name__)

#: Seconds between the looks of an executor that owns its ledger; a look into memory costs next to nothing.
_OWN_RELAY = 0.2
#: Seconds within which the relay notices that the interpreter is to end.
_LOOK = 0.5


class LocalExecutor:
    """``workers`` runs at once, first come, first served; lanes and priorities mean nothing here.

    With ``processes`` handlers must be importable. One that is cancelled or takes too long is told so, and its process
    is killed where it has not stopped ``kill_after_seconds`` later. A thread cannot be killed: a handler that never
    looks at ``context.cancelled`` keeps its run.

    ``shutdown``, or leaving the context, ends it; what waits is executed before, also at the interpreter's end, unless
    ``cancel_futures`` is set. In a fork it starts anew: what waited is still the parent's.

    Without a ledger it has a ``MemoryLedger`` of its own, which a dispatcher without one uses, too. A ``guard`` is what
    workers lock entities with.
    """

    def __init__(
        self,
        ledger: Ledger | None = None,
        registry: HandlerRegistry | None = None,
        *,
        workers: int = 4,
        processes: bool = False,
        lease_seconds: float = 60.0,
        kill_after_seconds: float = 5.0,
        relay_every: float | None = None,
        guard: ConcurrencyGuard | None = None,
        name: str = "local",
    ) -> None:
        self.name = name
        self.ledger: Ledger = MemoryLedger() if ledger is None else ledger
        self._registry = registry
        self._workers = workers
        self._call: Callable[[Handler, TaskContext], Any] = self._in_process if processes else call
        self._lease_seconds = lease_seconds
        self.guard = guard
        self._kill_after = kill_after_seconds
        self._relay_every = _OWN_RELAY if ledger is None and relay_every is None else relay_every
        self._shut = False
        self._clear()
        with self._lock:
            self._open()
        start_in_children(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()

    def submit(self, run: RunRecord) -> str:
        with self._lock:
            known = self._futures.get(run.run_id)
            if known is not None and not known.running() and not known.done():
                return run.run_id
            try:
                future = self._open().submit(self._execute, run.run_id)
            except RuntimeError as error:
                raise BackendError(f"The executor {self.name!r} takes no more runs: {error}.") from error
            self._futures[run.run_id] = future
        future.add_done_callback(partial(self._forget, run.run_id))
        return run.run_id

    def cancel(self, external_ref: str) -> bool:
        with self._lock:
            future, context = self._futures.get(external_ref), self._contexts.get(external_ref)
        if future is None:
            return False
        if not future.cancel() and context is not None:
            context.cancelled.set()
        return True

    def get_status(self, external_ref: str) -> RunStatus | None:
        with self._lock:
            future = self._futures.get(external_ref)
        if future is None or future.done():
            return None
        return RunStatus.RUNNING if future.running() else RunStatus.QUEUED

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002
        """As ``concurrent.futures.Executor``: no more runs are taken, and with ``wait`` those that were taken are over
        afterwards. With ``cancel_futures`` those that had not started are not; they stay queued in the ledger.
        """
        with self._lock:
            self._shut = True
            pool = self._pool
        self._ended.set()
        if pool is not None:
            pool.shutdown(wait, cancel_futures=cancel_futures)
        if wait:
            self._close_idle()

    def _clear(self) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._futures: dict[str, Future[None]] = {}
        self._contexts: dict[str, TaskContext] = {}
        self._idle: list[Child] = []
        self._busy: set[Child] = set()

    def _open(self) -> ThreadPoolExecutor:
        """The pool, a new one in a fork, whose first run comes with it."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, f"spine-{self.name}")
            if self._shut:
                self._pool.shutdown()
            elif self._relay_every is not None:
                threading.Thread(target=self._relay, args=(self._relay_every,), name="spine-relay").start()
        return self._pool

    def _execute(self, run_id: str) -> None:
        registry = get_default_registry() if self._registry is None else self._registry
        Worker(self.ledger, registry, self._lease_seconds, self._cancellable, self.guard).execute(run_id)

    def _cancellable(self, handler: Handler, context: TaskContext) -> Any:
        """So that ``cancel`` need not wait for the next renewal of the lease."""
        with self._lock:
            self._contexts[context.run_id] = context
        try:
            return self._call(handler, context)
        finally:
            with self._lock:
                if self._contexts.get(context.run_id) is context:
                    del self._contexts[context.run_id]

    def _in_process(self, handler: Handler, context: TaskContext) -> Any:
        from spine_migrate.execution.executors.child import Child

        with self._lock:
            child = self._idle.pop() if self._idle else None
        if child is None:
            child = Child(self._kill_after)
        with self._lock:
            self._busy.add(child)
        try:
            return child.call(handler, context)
        finally:
            with self._lock:
                self._busy.discard(child)
                if child.usable:
                    self._idle.append(child)
            if self._shut:
                self._close_idle()

    def _close_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.close()

    def _forget(self, run_id: str, future: Future[None]) -> None:
        with self._lock:
            if self._futures.get(run_id) is future:
                del self._futures[run_id]
        if not future.cancelled() and (error := future.exception()) is not None:
            _log.error("Run %s was left unmarked: %s", run_id, error, exc_info=error)

    def _relay(self, every: float) -> None:
        """Until ``shutdown``, or the main thread's end."""
        relay, due = Relay(self.ledger, self), time.monotonic() + every
        while not self._ended.wait(min(every, _LOOK)) and threading.main_thread().is_alive():
            if time.monotonic() < due:
                continue
            try:
                relay.run_once()
            except BackendError as error:
                _log.warning("The relay of the executor %r goes on later: %s", self.name, error)
            due = time.monotonic() + every

    def start_anew(self) -> None:
        """In the child of a fork, which has neither our threads nor a right to our processes."""
        for child in (*self._idle, *self._busy):
            child.abandon()
        self._clear()
