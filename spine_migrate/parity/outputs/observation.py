"""What came of one execution: its result, and what the ledger has beside it, as JSON documents that can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spine_migrate.execution.core import SyncDispatcher
from spine_migrate.execution.events import EventType, RunEvent
from spine_migrate.execution.runs import RunRecord, RunStatus
from spine_migrate.parity.outputs.json_path import RESULT

#: How a run came to a worker, and that somebody was slow or late, is the backend's own affair.
OWN_EVENTS = frozenset({
    EventType.QUEUED, EventType.HEARTBEAT, EventType.POSTPONED, EventType.ALERT_TRIGGERED, EventType.TRANSITION_REFUSED,
})  # fmt: skip
#: Who writes events whose data is not the handler's: names of workers, times, texts that stand in the run as well.
_OWN_SOURCES = frozenset({"ledger", "dispatcher"})
_MOST_CHILDREN = 1000

#: What both an old body and a run have.
OUTCOME = (RESULT, "status", "error_type", "error")
HISTORY = ("attempts", "events", "children")


@dataclass(frozen=True)
class Observation:
    """``documents`` are JSON by the name of their root: those of ``OUTCOME``, and of ``HISTORY`` where there is a run.

    ``status`` is the run's. ``seconds`` are from submitting to the end and ``waited`` those before the first worker
    began, by the ledger's clock. Where it did not end in time, ``gave_up`` is a sentence and there are no documents.
    """

    status: str
    documents: dict[str, Any]
    run_id: str | None = None
    seconds: float | None = None
    waited: float | None = None
    gave_up: str | None = None

    @property
    def completed(self) -> bool:
        return self.status == RunStatus.COMPLETED


def outcome(status: RunStatus, result: Any, error_type: str | None, error: str | None) -> dict[str, Any]:
    """A dead letter is a failure: which of both it is says how often it was tried."""
    kind = RunStatus.FAILED if status is RunStatus.DEAD_LETTERED else status
    return {RESULT: result, "status": str(kind), "error_type": error_type, "error": error}


def of_run(dispatcher: SyncDispatcher, run: RunRecord) -> Observation:
    """Of a run that has ended. Raises BackendError."""
    events = dispatcher.get_events(run.run_id)
    children = dispatcher.get_children(run.run_id, limit=_MOST_CHILDREN)
    documents = {
        **outcome(run.status, run.result, run.error_type, run.error),
        "attempts": run.attempt,
        "events": [_event(event) for event in events if event.event_type not in OWN_EVENTS],
        # Children that begin at the same moment have no order.
        "children": sorted(f"{child.kind} {child.name}" for child in children),
    }
    first = next((event.timestamp for event in events if event.event_type == EventType.STARTED), run.started_at)
    return Observation(
        str(run.status),
        documents,
        run.run_id,
        seconds=None if run.completed_at is None else (run.completed_at - run.created_at).total_seconds(),
        waited=None if first is None else (first - run.created_at).total_seconds(),
    )


def _event(event: RunEvent) -> dict[str, Any]:
    told = {"type": str(event.event_type)}
    return told if event.source in _OWN_SOURCES else {**told, "data": event.data}
