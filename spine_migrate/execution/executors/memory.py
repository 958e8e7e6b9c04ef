"""An executor that runs what it was given when it is told to: for the tests of applications."""

from __future__ import annotations

import threading
from typing import Any

from spine_migrate.execution.calling import call
from spine_migrate.execution.context import TaskContext
from spine_migrate.execution.errors import ExecutionNotFoundError
from spine_migrate.execution.guards.protocol import ConcurrencyGuard
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.registry import Handler, HandlerRegistry, get_default_registry
from spine_migrate.execution.runs import RunRecord, RunStatus
from spine_migrate.execution.worker import Worker

#: Seconds until a run that was taken to be tried again would be taken once more, had it come to nothing.
_AGAIN = 3600.0


class MemoryExecutor:
    """Runs are executed in the thread that says so, in the order they were submitted. ``submitted`` is all that it was
    ever given. Without a ledger it has a ``MemoryLedger`` of its own, which a dispatcher without one uses, too.
    """

    def __init__(
        self,
        ledger: Ledger | None = None,
        registry: HandlerRegistry | None = None,
        *,
        guard: ConcurrencyGuard | None = None,
        name: str = "memory",
    ) -> None:
        self.name = name
        self.ledger: Ledger = MemoryLedger() if ledger is None else ledger
        self.submitted: list[RunRecord] = []
        self._registry = registry
        self.guard = guard
        self._waiting: list[str] = []
        self._running: dict[str, TaskContext | None] = {}
        self._lock = threading.Lock()

    def submit(self, run: RunRecord) -> str:
        with self._lock:
            self.submitted.append(run)
            if run.run_id not in self._waiting:
                self._waiting.append(run.run_id)
        return run.run_id

    def cancel(self, external_ref: str) -> bool:
        with self._lock:
            if external_ref in self._waiting:
                self._waiting.remove(external_ref)
                return True
            if (context := self._running.get(external_ref)) is not None:
                context.cancelled.set()
            return external_ref in self._running

    def get_status(self, external_ref: str) -> RunStatus | None:
        with self._lock:
            if external_ref in self._running:
                return RunStatus.RUNNING
            return RunStatus.QUEUED if external_ref in self._waiting else None

    def run_next(self) -> RunRecord | None:
        """Execute the run that has waited longest, or one of the ledger that is due and was not handed over, such as
        one that is tried again; as it is afterwards. None where there is nothing to do.
        """
        while (run_id := self._take()) is not None:
            try:
                registry = get_default_registry() if self._registry is None else self._registry
                done = Worker(self.ledger, registry, call=self._call, guard=self.guard).execute(run_id)
            except ExecutionNotFoundError:
                # Purged while it waited.
                continue
            finally:
                with self._lock:
                    self._running.pop(run_id, None)
            if done is not None:
                return done
        return None

    def run_all(self) -> list[RunRecord]:
        """``run_next`` until there is nothing to do, with what the handlers submit meanwhile."""
        done = []
        while (run := self.run_next()) is not None:
            done.append(run)
        return done

    def _take(self) -> str | None:
        with self._lock:
            if self._waiting:
                run_id = self._waiting.pop(0)
            else:
                due = self.ledger.publishable(1, again_in_seconds=_AGAIN)
                if not due:
                    return None
                run_id = due[0].run_id
            self._running[run_id] = None
            return run_id

    def _call(self, handler: Handler, context: TaskContext) -> Any:
        with self._lock:
            self._running[context.run_id] = context
        return call(handler, context)
