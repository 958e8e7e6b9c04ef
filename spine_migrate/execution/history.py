"""What may follow what in the history of a run: the state machine of ``runs.SOURCES``, read from events.

A history may begin late, since old events are purged, and may leave steps out; it may not go on after its end.
"""

from __future__ import annotations

from enum import StrEnum

from spine_migrate.execution.events import EventType
from spine_migrate.execution.runs import FINAL, SOURCES, RunStatus

#: The status of a run after an event of this type; the other types are notes, which leave it as it is.
AFTER: dict[EventType, RunStatus] = {
    EventType.CREATED: RunStatus.PENDING,
    EventType.QUEUED: RunStatus.QUEUED,
    EventType.STARTED: RunStatus.RUNNING,
    EventType.RETRY_SCHEDULED: RunStatus.PENDING,
    EventType.POSTPONED: RunStatus.PENDING,
    EventType.REPROCESSED: RunStatus.PENDING,
    EventType.COMPLETED: RunStatus.COMPLETED,
    EventType.FAILED: RunStatus.FAILED,
    EventType.CANCELLED: RunStatus.CANCELLED,
    EventType.DEAD_LETTERED: RunStatus.DEAD_LETTERED,
}
#: Types by which a run comes to an end.
ENDS = frozenset(event for event, status in AFTER.items() if status in FINAL)
#: Types after which another attempt counts.
AGAIN = frozenset({EventType.RETRY_SCHEDULED, EventType.REPROCESSED})
#: Notes that others make of a run, at any time.
_OF_OTHERS = frozenset({EventType.TRANSITION_REFUSED, EventType.WEBHOOK_SENT, EventType.ALERT_TRIGGERED})


class Step(StrEnum):
    """``gap``: possible only with steps between that are not recorded; ``early``: creation, when there was something
    already; ``late``: after the end.
    """

    LEGAL = "legal"
    GAP = "gap"
    EARLY = "early"
    LATE = "late"


def step(before: EventType | None, event: EventType) -> Step:
    """What an event is after ``before``, the last one that changed the status; None where there was none so far.

    After an end come notes of others, that a failed run was retried, and a dead letter's reprocessing.
    """
    if event is EventType.CREATED:
        return Step.LEGAL if before is None else Step.EARLY
    if event in _OF_OTHERS or before is None:
        return Step.LEGAL
    was = AFTER[before]
    if was in FINAL:
        return Step.LEGAL if _after_the_end(was, event) else Step.LATE
    # From a status that is not final every other one can be reached.
    return Step.LEGAL if event not in AFTER or was in _from(event) else Step.GAP


def _after_the_end(was: RunStatus, event: EventType) -> bool:
    if event is EventType.RETRIED:
        return was is not RunStatus.COMPLETED
    return event is EventType.REPROCESSED and was in _from(event)


def _from(event: EventType) -> frozenset[RunStatus]:
    """Back to pending come runs from their worker, but by reprocessing from their end."""
    sources = SOURCES[AFTER[event]]
    return sources & FINAL if event is EventType.REPROCESSED else sources - FINAL
