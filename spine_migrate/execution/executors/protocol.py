"""What carries a run to where it is executed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from spine_migrate.execution.guards.protocol import ConcurrencyGuard
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.runs import RunRecord, RunStatus


class Executor(Protocol):
    """``tests/integration/test_executor_contract.py`` holds every executor to it. All methods are thread-safe."""

    @property
    def name(self) -> str:
        """Stored as ``executor_name`` of the runs it is given; at most 50 characters."""
        ...

    def submit(self, run: RunRecord) -> str:
        """Hand a run over and give the reference to it, at most 255 characters. Does not wait for the run to end
        (``SimpleExecutor`` does, and is there for that).

        Handing the same run over twice is harmless: it is claimed once. Raises BackendError where that fails; the run
        is then as it was, and may have been handed over or not.
        """
        ...

    def cancel(self, external_ref: str) -> bool:
        """Keep a run from being started, or stop it where that is possible; whether it was still known."""
        ...

    def get_status(self, external_ref: str) -> RunStatus | None:
        """What the executor knows of a run, None where that is nothing. The ledger's word is the one that counts."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What an executor stored of the end of a task: ``result`` is what the body gave, or the exception that it raised;
    ``at`` is by the clock of whoever executed it. ``status`` is completed, failed or cancelled.
    """

    status: RunStatus
    result: Any
    at: datetime


@runtime_checkable
class KnowsOutcomes(Protocol):
    """An executor whose messages others may execute as well, who claim no run; see ``unclaimed``."""

    def outcome(self, run: RunRecord) -> Outcome | None:
        """None for a run that nobody else executes, and where nothing is known. Raises BackendError."""
        ...


@runtime_checkable
class ExecutesItself(Protocol):
    """An executor that also executes what it is given, in its own process: ``ledger`` is where, and ``guard`` has the
    locks; a dispatcher without a ledger uses that one, and gives it its guard where it has none.
    """

    ledger: Ledger
    guard: ConcurrencyGuard | None
