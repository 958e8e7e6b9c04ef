"""An executor that carries nothing, and what tests of the dispatcher ask."""

from __future__ import annotations

from typing import Any

from spine_migrate.execution import (
    BackendError,
    RunRecord,
    RunStatus,
    SyncDispatcher,
)


class Carrier:
    """Carries nothing; ``fault`` is raised instead of taking a run, or a cancellation."""

    name = "carrier"

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.cancelled: list[str] = []
        self.fault: BackendError | None = None

    def submit(self, run: RunRecord) -> str:
        if self.fault is not None:
            raise self.fault
        self.taken.append(run.run_id)
        return f"ref-{run.run_id}"

    def cancel(self, external_ref: str) -> bool:
        if self.fault is not None:
            raise self.fault
        self.cancelled.append(external_ref)
        return True

    def get_status(self, external_ref: str) -> RunStatus | None:
        return RunStatus.QUEUED if external_ref.removeprefix("ref-") in self.taken else None


def found(dispatcher: SyncDispatcher, run_id: str) -> RunRecord:
    run = dispatcher.get_run(run_id)
    assert run is not None
    return run


def types(dispatcher: SyncDispatcher, run_id: str) -> list[str]:
    return [str(event.event_type) for event in dispatcher.get_events(run_id)]


def ended(dispatcher: SyncDispatcher, end: str, **fields: Any) -> str:
    run_id = dispatcher.submit("x", {"n": 1}, **fields)
    ledger = dispatcher.ledger
    ledger.claim(run_id, "worker", lease_seconds=None)
    {
        "completed": lambda: ledger.complete(run_id, 1),
        "failed": lambda: ledger.fail(run_id, "no", "ValueError"),
        "dead_lettered": lambda: ledger.fail(run_id, "no", "ValueError", dead=True),
        "cancelled": lambda: ledger.cancel(run_id, "not wanted"),
    }[end]()
    return run_id
