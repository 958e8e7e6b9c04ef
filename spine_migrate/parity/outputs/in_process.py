"""The backends that execute in this process, on a ledger in memory, and the old body."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from spine_migrate.execution.calling import call
from spine_migrate.execution.context import TaskContext
from spine_migrate.execution.core import SyncDispatcher
from spine_migrate.execution.executors.local import LocalExecutor
from spine_migrate.execution.executors.memory import MemoryExecutor
from spine_migrate.execution.executors.simple import SimpleExecutor
from spine_migrate.execution.jsonable import plain
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.registry import HandlerRegistry
from spine_migrate.execution.runs import RunRecord, RunStatus
from spine_migrate.execution.spec import WorkSpec
from spine_migrate.execution.storable import describe
from spine_migrate.parity.outputs.observation import Observation, outcome

LEGACY = "legacy"

_EXECUTORS: Mapping[str, Callable[[MemoryLedger, HandlerRegistry], Any]] = {
    "simple": SimpleExecutor,
    "memory": MemoryExecutor,
    "local": LocalExecutor,
}
IN_PROCESS = tuple(_EXECUTORS)


def dispatcher(name: str, registry: HandlerRegistry) -> SyncDispatcher:
    """One of ``IN_PROCESS``."""
    executor = _EXECUTORS[name](MemoryLedger(), registry)
    return SyncDispatcher(executor, registry=registry, publish=False)


@dataclass(frozen=True)
class OldBody:
    """A function that is called as it always was, with ``arguments`` by name; no run, no dispatcher, no ledger.

    Its result is taken as the shims take it: dates, times, decimals and uuids as text. An error that says that trying
    again cannot help is told apart as it is for a handler.
    """

    place: str
    body: Callable[..., Any]
    arguments: dict[str, Any]
    timeout: float

    @property
    def name(self) -> str:
        return LEGACY

    def observe(self) -> Observation:
        ended: list[Observation] = []
        thread = threading.Thread(target=lambda: ended.append(self._called()), name="spine-compare", daemon=True)
        thread.start()
        thread.join(self.timeout)
        if ended:
            return ended[0]
        sentence = f"The old body {self.place} did not end within {self.timeout:g} seconds; it ends with this process."
        return Observation("timed out", {}, gave_up=sentence)

    def _called(self) -> Observation:
        began = time.monotonic()
        # As a handler is called, to its end where it is a coroutine function.
        context = TaskContext(RunRecord(WorkSpec("task", LEGACY, self.arguments)), 0, lambda _: None)
        try:
            result = plain(call(lambda params: self.body(**params), context))
        except BaseException as error:  # noqa: BLE001 whatever a body raises is its outcome
            text, kind = describe(error)
            documents = outcome(RunStatus.FAILED, None, kind, text)
        else:
            documents = outcome(RunStatus.COMPLETED, result, None, None)
        return Observation(documents["status"], documents, seconds=time.monotonic() - began, waited=0.0)
