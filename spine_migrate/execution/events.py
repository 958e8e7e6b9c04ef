"""What happens to a run, one event after the other."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import uuid4


class EventType(StrEnum):
    """The seeds' types; ``TRANSITION_REFUSED`` for a step that came too late or is not in the state machine, and
    ``POSTPONED`` where a worker gave a run back because its entity was locked.
    """

    CREATED = "created"
    QUEUED = "queued"
    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PROGRESS = "progress"
    HEARTBEAT = "heartbeat"
    RETRY_SCHEDULED = "retry_scheduled"
    RETRIED = "retried"
    DEAD_LETTERED = "dead_lettered"
    REPROCESSED = "reprocessed"
    STEP_STARTED = "step_started"
    STEP_COMPLETED = "step_completed"
    STEP_FAILED = "step_failed"
    STEP_SKIPPED = "step_skipped"
    WEBHOOK_SENT = "webhook_sent"
    ALERT_TRIGGERED = "alert_triggered"
    TRANSITION_REFUSED = "transition_refused"
    POSTPONED = "postponed"


@dataclass
class RunEvent:
    """One row of ``run_events``; ``data`` is JSON, ``source`` who says so.

    A ledger that records it gives it a ``timestamp`` of its own: one clock tells the order of a run's events, whatever
    the machines' own say. When something happened elsewhere belongs into ``data``.
    """

    run_id: str
    event_type: str
    data: dict[str, Any] = field(default_factory=dict)
    source: str = "dispatcher"
    event_id: str = field(default_factory=lambda: str(uuid4()))
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))

    def to_dict(self) -> dict[str, Any]:
        return {
            "event_id": self.event_id,
            "run_id": self.run_id,
            "event_type": str(self.event_type),
            "timestamp": self.timestamp.isoformat(),
            "data": self.data,
            "source": self.source,
        }
