"""What the ledger in memory keeps, with the constraints of the tables in PostgreSQL. Its caller holds the lock."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from spine_migrate.execution import invariants
from spine_migrate.execution.errors import BackpressureError, ExecutionNotFoundError
from spine_migrate.execution.events import EventType, RunEvent
from spine_migrate.execution.invariants import entity
from spine_migrate.execution.ledgers.refusals import entity_is_busy, no_such_run, run_exists
from spine_migrate.execution.runs import ACTIVE, RunRecord, RunStatus, run_uuid

WAITING = frozenset({RunStatus.PENDING, RunStatus.QUEUED})


@dataclass
class Handoff:
    """As the table ``run_handoff``: ``next_at`` is when the relay looks at the run, whatever it has to do then."""

    due_at: datetime
    next_at: datetime
    expires_at: datetime | None
    retries_left: int
    publications: int = 0
    fence: int | None = None
    leased: bool = False
    cancel_requested: bool = False


class Tables:
    def __init__(self) -> None:
        self.runs: dict[str, RunRecord] = {}
        self.handoffs: dict[str, Handoff] = {}
        self.events: dict[str, list[RunEvent]] = {}
        self.keys: dict[str, str] = {}
        self._event_ids: set[str] = set()

    def run(self, run_id: str) -> RunRecord:
        """Raises ExecutionNotFoundError."""
        key = run_uuid(run_id)
        if key is None or key not in self.runs:
            raise ExecutionNotFoundError(run_id)
        return self.runs[key]

    def copy(self, run_id: str) -> RunRecord:
        return copy.deepcopy(self.runs[run_id])

    def insert(self, run: RunRecord, handoff: Handoff) -> None:
        """Raises InvalidSpecError for an id that is there, or names a run that is not; ConcurrencyError."""
        if run.run_id in self.runs:
            raise run_exists(run.run_id)
        self.require_idle(run)
        for field, other in (("parent_run_id", run.spec.parent_run_id), ("retry_of_run_id", run.retry_of_run_id)):
            if other is not None and other not in self.runs:
                raise no_such_run(field, other)
        self.runs[run.run_id], self.handoffs[run.run_id] = run, handoff
        if run.spec.idempotency_key is not None:
            self.keys[run.spec.idempotency_key] = run.run_id

    def delete(self, run_id: str) -> None:
        """Likewise a run that was inserted a moment ago, and that nobody names."""
        run = self.runs.pop(run_id)
        del self.handoffs[run_id]
        self._event_ids -= {event.event_id for event in self.events.pop(run_id)}
        if run.spec.idempotency_key is not None:
            del self.keys[run.spec.idempotency_key]

    def note(self, run_id: str, event_type: EventType, data: dict[str, Any], at: datetime) -> None:
        """An event of the ledger's own."""
        self.add(RunEvent(run_id, event_type, data, source="ledger", timestamp=at))

    def add(self, event: RunEvent) -> None:
        """Once."""
        if event.event_id not in self._event_ids:
            self._event_ids.add(event.event_id)
            self.events.setdefault(event.run_id, []).append(event)

    def ripe(self, status: RunStatus, limit: int, now: datetime) -> list[RunRecord]:
        """Runs of one status at which the relay is to look. Raises InvalidSpecError."""
        invariants.page(limit)
        ripe = [
            (handoff.next_at, run_id)
            for run_id, handoff in self.handoffs.items()
            if self.runs[run_id].status is status
            and handoff.next_at <= now
            and (status is not RunStatus.RUNNING or handoff.leased)
        ]
        return [self.runs[run_id] for _, run_id in sorted(ripe)[:limit]]

    def require_idle(self, run: RunRecord) -> None:
        """Raises ConcurrencyError where the run's entity has an active one."""
        wanted = entity(run.spec.metadata)
        for other in self.runs.values():
            if wanted is not None and other.status in ACTIVE and entity(other.spec.metadata) == wanted:
                raise entity_is_busy(wanted, other.run_id)

    def require_room(self, new: Counter[str], lane_bound: int | None) -> None:
        """Raises BackpressureError; ``new`` counts runs by lane."""
        if lane_bound is None:
            return
        for lane, more in new.items():
            waiting = sum(other.status in WAITING and other.spec.lane == lane for other in self.runs.values())
            if waiting + more > lane_bound:
                raise BackpressureError(lane, min(waiting, lane_bound), lane_bound, more)
