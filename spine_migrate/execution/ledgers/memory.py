"""The ledger of a single process: for tests, and for tools that need no history."""

from __future__ import annotations

import copy
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from spine_migrate.execution import invariants
from spine_migrate.execution.errors import ExecutionNotFoundError, TransitionError
from spine_migrate.execution.events import EventType, RunEvent
from spine_migrate.execution.forking import start_in_children
from spine_migrate.execution.ledgers.filtering import fits
from spine_migrate.execution.ledgers.memory_tables import WAITING, Handoff, Tables
from spine_migrate.execution.ledgers.protocol import AT_ONCE, EVERYTHING, Claim, Delivery, Ending, RunFilter
from spine_migrate.execution.ledgers.refusals import (
    CLAIM_LOST,
    EXPIRED,
    LEASE_EXPIRED,
    NO_DEAD_LETTERS,
    NO_STEP,
    NOT_DUE,
    ONLY_DEAD_LETTERS,
    OTHER_ATTEMPT,
    TO_BE_CANCELLED,
    storable_error,
)
from spine_migrate.execution.runs import SOURCES, RunRecord, RunStatus, RunSummary, run_uuid
from spine_migrate.execution.storable import as_json, as_text


class MemoryLedger:
    """``clock`` gives the time, with a zone. Joins no transaction: ``connection`` is refused."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._tables = Tables()
        self._fences = itertools.count(1)
        start_in_children(self)

    def start_anew(self) -> None:
        """In the child of a fork."""
        self._lock = threading.RLock()

    def create(
        self, run: RunRecord, delivery: Delivery = AT_ONCE, *, lane_bound: int | None = None, connection: Any = None
    ) -> RunRecord:
        _alone(connection)
        run = delivery.of(run)
        spec = run.spec
        with self._lock:
            if spec.idempotency_key is not None and spec.idempotency_key in self._tables.keys:
                return self._tables.copy(self._tables.keys[spec.idempotency_key])
            self._tables.require_room(Counter([spec.lane]), lane_bound)
            now = run.created_at = self._clock()
            due = max(delivery.due_at or now, now)
            self._tables.insert(
                run,
                Handoff(
                    due_at=due,
                    next_at=due + timedelta(seconds=delivery.publish_in_seconds),
                    expires_at=delivery.expires_at,
                    retries_left=spec.max_retries,
                ),
            )
            self._tables.note(run.run_id, EventType.CREATED, {}, now)
            return copy.deepcopy(run)

    def create_many(
        self,
        runs: Sequence[RunRecord],
        delivery: Delivery = AT_ONCE,
        *,
        lane_bound: int | None = None,
        connection: Any = None,
    ) -> list[RunRecord]:
        _alone(connection)
        checked = [delivery.of(run) for run in runs]
        with self._lock:
            lanes = {run.spec.idempotency_key or run.run_id: run.spec.lane for run in reversed(checked)}
            self._tables.require_room(
                Counter(lane for key, lane in lanes.items() if key not in self._tables.keys), lane_bound
            )
            made: list[RunRecord] = []
            before = set(self._tables.runs)
            try:
                for run in checked:
                    made.append(self.create(run, delivery))  # noqa: PERF401 - what was made is taken back
            except BaseException:
                for run_id in set(self._tables.runs) - before:
                    self._tables.delete(run_id)
                raise
            return made

    def get(self, run_id: str, *, connection: Any = None) -> RunRecord | None:
        _alone(connection)
        key = run_uuid(run_id)
        with self._lock:
            return self._tables.copy(key) if key in self._tables.runs else None

    def of_key(self, idempotency_key: str, *, connection: Any = None) -> RunRecord | None:
        _alone(connection)
        with self._lock:
            run_id = self._tables.keys.get(idempotency_key)
            return None if run_id is None else self._tables.copy(run_id)

    def get_many(self, run_ids: Sequence[str]) -> list[RunRecord]:
        with self._lock:
            return [self._tables.copy(key) for key in map(run_uuid, run_ids) if key in self._tables.runs]

    def list_runs(self, filters: RunFilter = EVERYTHING, *, limit: int = 100, offset: int = 0) -> list[RunSummary]:
        invariants.page(limit, offset)
        if filters.matches_nothing:
            return []
        with self._lock:
            found = [self._tables.copy(key) for key, run in self._tables.runs.items() if fits(run, filters)]
        found.sort(key=lambda run: (run.created_at, run.run_id), reverse=True)
        return [run.summary() for run in found[offset : offset + limit]]

    def events(self, run_id: str) -> list[RunEvent]:
        with self._lock:
            return copy.deepcopy(self._tables.events[self._tables.run(run_id).run_id])

    def record(self, event: RunEvent, *, connection: Any = None) -> None:
        _alone(connection)
        invariants.check_event(event)
        with self._lock:
            run = self._tables.run(event.run_id)
            stored = replace(
                event,
                run_id=run.run_id,
                event_id=str(run_uuid(event.event_id)),
                data=as_json(event.data),
                timestamp=self._clock(),
            )
            self._tables.add(stored)

    def mark_queued(
        self,
        run_id: str,
        external_ref: str,
        executor_name: str,
        *,
        claim_within_seconds: float,
        attempt: int | None = None,
    ) -> bool:
        invariants.check_published(external_ref, executor_name)
        with self._lock:
            run = self._tables.run(run_id)
            run_id = run.run_id
            handoff = self._tables.handoffs[run_id]
            waits = run.status in WAITING and attempt in (None, run.attempt)
            if waits and attempt is not None and handoff.due_at > self._clock():
                # A worker has given it back, and has taken its message with it.
                return False
            if not waits:
                if run.external_ref is None:
                    run.external_ref, run.executor_name = external_ref, executor_name
                return False
            handoff.next_at = self._clock() + timedelta(seconds=claim_within_seconds)
            run.external_ref, run.executor_name = external_ref, executor_name
            if run.status is RunStatus.PENDING:
                run.status = RunStatus.QUEUED
                self._tables.note(run_id, EventType.QUEUED, {"executor": executor_name}, self._clock())
            return True

    def mark_many_queued(
        self, published: Sequence[tuple[RunRecord, str]], executor_name: str, *, claim_within_seconds: float
    ) -> int:
        for _, external_ref in published:
            invariants.check_published(external_ref, executor_name)
        with self._lock:
            return sum(
                self.mark_queued(
                    run.run_id,
                    external_ref,
                    executor_name,
                    claim_within_seconds=claim_within_seconds,
                    attempt=run.attempt,
                )
                for run, external_ref in published
                if run_uuid(run.run_id) in self._tables.runs
            )

    def claim(self, run_id: str, worker: str, *, lease_seconds: float | None, attempt: int | None = None) -> Claim:
        with self._lock:
            run = self._allowed(run_id, RunStatus.RUNNING)
            run_id = run.run_id
            handoff, now = self._tables.handoffs[run_id], self._clock()
            if handoff.expires_at is not None and handoff.expires_at <= now:
                self._end(run_id, RunStatus.CANCELLED, EventType.CANCELLED, {"reason": "expired"})
                raise self._refuse(run_id, RunStatus.RUNNING, EXPIRED)
            if handoff.due_at > now:
                raise self._refuse(run_id, RunStatus.RUNNING, NOT_DUE)
            if attempt not in (None, run.attempt):
                raise self._refuse(run_id, RunStatus.RUNNING, OTHER_ATTEMPT)
            run.status, run.started_at, run.completed_at = RunStatus.RUNNING, now, None
            handoff.fence, handoff.leased = next(self._fences), lease_seconds is not None
            handoff.next_at = now + timedelta(seconds=lease_seconds or 0)
            handoff.publications = 0
            self._tables.note(run_id, EventType.STARTED, {"worker": as_text(worker), "attempt": run.attempt}, now)
            return Claim(copy.deepcopy(run), handoff.fence, handoff.retries_left)

    def renew(self, run_id: str, fence: int, *, lease_seconds: float) -> bool:
        with self._lock:
            run = self._tables.run(run_id)
            handoff = self._tables.handoffs[run.run_id]
            if run.status is not RunStatus.RUNNING or handoff.fence != fence:
                raise self._refuse(run.run_id, RunStatus.RUNNING, CLAIM_LOST)
            handoff.next_at = self._clock() + timedelta(seconds=lease_seconds)
            return handoff.cancel_requested

    def complete(self, run_id: str, result: Any, *, fence: int | None = None, attempt: int | None = None) -> RunRecord:
        invariants.json_value("result", result)
        with self._lock:
            run = self._allowed(run_id, RunStatus.COMPLETED, fence, attempt)
            run.result, run.error, run.error_type = as_json(result), None, None
            return self._end(run.run_id, RunStatus.COMPLETED, EventType.COMPLETED, {})

    def fail(
        self,
        run_id: str,
        error: str,
        error_type: str | None,
        *,
        dead: bool = False,
        fence: int | None = None,
        attempt: int | None = None,
    ) -> RunRecord:
        status = RunStatus.DEAD_LETTERED if dead else RunStatus.FAILED
        with self._lock:
            run = self._allowed(run_id, status, fence, attempt)
            run.error, run.error_type = storable_error(error, error_type)
            event = EventType.DEAD_LETTERED if dead else EventType.FAILED
            return self._end(run.run_id, status, event, {"error": run.error, "error_type": run.error_type})

    def try_again(
        self,
        run_id: str,
        error: str,
        error_type: str | None,
        *,
        in_seconds: float,
        publish_in_seconds: float = 0.0,
        fence: int | None = None,
        message: dict[str, Any] | None = None,
    ) -> RunRecord:
        replacing = invariants.message(message)
        with self._lock:
            run = self._allowed(run_id, RunStatus.PENDING, fence)
            if run.status is RunStatus.DEAD_LETTERED:
                raise self._refuse(run.run_id, RunStatus.PENDING, NO_DEAD_LETTERS)
            self._not_to_be_cancelled(run)
            run.error, run.error_type = storable_error(error, error_type)
            run.message = run.message if replacing is None else replacing
            return self._try_again(run, in_seconds, publish_in_seconds)

    def postpone(self, run_id: str, why: str, *, in_seconds: float, fence: int) -> RunRecord:
        with self._lock:
            run = self._allowed(run_id, RunStatus.PENDING, fence)
            self._not_to_be_cancelled(run)
            self._wait(run, in_seconds)
            data = {"why": as_text(why), "attempt": run.attempt, "in_seconds": in_seconds}
            self._tables.note(run.run_id, EventType.POSTPONED, data, self._clock())
            return copy.deepcopy(run)

    def cancel(self, run_id: str, reason: str, *, fence: int | None = None) -> RunRecord:
        with self._lock:
            run = self._allowed(run_id, RunStatus.CANCELLED, fence)
            handoff = self._tables.handoffs[run.run_id]
            if run.status is RunStatus.RUNNING and handoff.leased and fence is None:
                handoff.cancel_requested = True
                return copy.deepcopy(run)
            return self._end(run.run_id, RunStatus.CANCELLED, EventType.CANCELLED, {"reason": as_text(reason)})

    def reprocess(self, run_id: str) -> RunRecord:
        with self._lock:
            run = self._tables.run(run_id)
            if run.status is not RunStatus.DEAD_LETTERED:
                raise self._refuse(run.run_id, RunStatus.PENDING, ONLY_DEAD_LETTERS)
            self._tables.require_idle(run)
            handoff, now = self._tables.handoffs[run.run_id], self._clock()
            handoff.due_at = handoff.next_at = now
            handoff.expires_at, handoff.retries_left, handoff.publications = None, run.spec.max_retries, 0
            run.status, run.attempt, run.completed_at = RunStatus.PENDING, run.attempt + 1, None
            self._tables.note(run.run_id, EventType.REPROCESSED, {"attempt": run.attempt}, now)
            return copy.deepcopy(run)

    def publishable(self, limit: int, *, again_in_seconds: float) -> Sequence[RunRecord]:
        return self._take(RunStatus.PENDING, limit, again_in_seconds)

    def unclaimed(self, limit: int, *, again_in_seconds: float) -> Sequence[RunRecord]:
        return self._take(RunStatus.QUEUED, limit, again_in_seconds)

    def reap(self, limit: int, *, backoff_seconds: float) -> Sequence[RunRecord]:
        with self._lock:
            return [
                self._reap(run, backoff_seconds) for run in self._tables.ripe(RunStatus.RUNNING, limit, self._clock())
            ]

    def end_unclaimed(self, run: RunRecord, ending: Ending, *, worker: str, why: str) -> bool:
        invariants.json_value("result", ending.result)
        with self._lock:
            try:
                claim = self.claim(run.run_id, worker, lease_seconds=None, attempt=run.attempt)
            except (ExecutionNotFoundError, TransitionError):
                return False
            self._tables.note(claim.run.run_id, EventType.ALERT_TRIGGERED, {"executing": as_text(why)}, self._clock())
            if ending.status is RunStatus.COMPLETED:
                self.complete(run.run_id, ending.result, fence=claim.fence)
            elif ending.status is RunStatus.CANCELLED:
                self.cancel(run.run_id, ending.error or "", fence=claim.fence)
            else:
                dead = ending.status is RunStatus.DEAD_LETTERED
                self.fail(run.run_id, ending.error or "", ending.error_type, dead=dead, fence=claim.fence)
        return True

    def _reap(self, run: RunRecord, backoff_seconds: float) -> RunRecord:
        handoff = self._tables.handoffs[run.run_id]
        if handoff.cancel_requested:
            return self._end(run.run_id, RunStatus.CANCELLED, EventType.CANCELLED, {"reason": "lease expired"})
        run.error, run.error_type = LEASE_EXPIRED
        if handoff.retries_left > 0:
            return self._try_again(run, backoff_seconds)
        data = {"error": run.error, "error_type": run.error_type}
        return self._end(run.run_id, RunStatus.DEAD_LETTERED, EventType.DEAD_LETTERED, data)

    def _try_again(self, run: RunRecord, in_seconds: float, publish_in_seconds: float = 0.0) -> RunRecord:
        handoff = self._tables.handoffs[run.run_id]
        handoff.retries_left = max(0, handoff.retries_left - 1)
        run.attempt += 1
        self._wait(run, in_seconds)
        handoff.next_at += timedelta(seconds=publish_in_seconds)
        data = {"error": run.error, "error_type": run.error_type, "attempt": run.attempt, "in_seconds": in_seconds}
        self._tables.note(run.run_id, EventType.RETRY_SCHEDULED, data, self._clock())
        return copy.deepcopy(run)

    def _wait(self, run: RunRecord, in_seconds: float) -> None:
        handoff = self._tables.handoffs[run.run_id]
        handoff.due_at = handoff.next_at = self._clock() + timedelta(seconds=in_seconds)
        handoff.fence, handoff.leased, handoff.cancel_requested = None, False, False
        run.status = RunStatus.PENDING

    def _end(self, run_id: str, status: RunStatus, event: EventType, data: dict[str, Any]) -> RunRecord:
        run = self._tables.runs[run_id]
        run.status, run.completed_at = status, self._clock()
        handoff = self._tables.handoffs[run_id]
        handoff.fence, handoff.leased, handoff.cancel_requested = None, False, False
        self._tables.note(run_id, event, data, run.completed_at)
        return copy.deepcopy(run)

    def _take(self, status: RunStatus, limit: int, again_in_seconds: float) -> list[RunRecord]:
        with self._lock:
            taken, now = self._tables.ripe(status, limit, self._clock()), self._clock()
            for run in taken:
                handoff = self._tables.handoffs[run.run_id]
                seconds = again_in_seconds * 2 ** min(handoff.publications, 6)
                handoff.next_at = now + timedelta(seconds=seconds)
                handoff.publications += 1
            taken.sort(key=lambda run: (self._tables.handoffs[run.run_id].due_at, run.run_id))
            return copy.deepcopy(taken)

    def _not_to_be_cancelled(self, run: RunRecord) -> None:
        if self._tables.handoffs[run.run_id].cancel_requested:
            raise self._refuse(run.run_id, RunStatus.PENDING, TO_BE_CANCELLED)

    def _allowed(
        self, run_id: str, wanted: RunStatus, fence: int | None = None, attempt: int | None = None
    ) -> RunRecord:
        run = self._tables.run(run_id)
        if fence is not None and self._tables.handoffs[run.run_id].fence != fence:
            raise self._refuse(run.run_id, wanted, CLAIM_LOST)
        if attempt not in (None, run.attempt):
            raise self._refuse(run.run_id, wanted, OTHER_ATTEMPT)
        if run.status not in SOURCES[wanted]:
            raise self._refuse(run.run_id, wanted, NO_STEP)
        return run

    def _refuse(self, run_id: str, wanted: RunStatus, why: str) -> TransitionError:
        status = self._tables.runs[run_id].status
        data = {"status": str(status), "wanted": str(wanted), "why": why}
        self._tables.note(run_id, EventType.TRANSITION_REFUSED, data, self._clock())
        return TransitionError(run_id, status, wanted, why)


def _alone(connection: Any) -> None:
    if connection is not None:
        raise TypeError("MemoryLedger has no transactions to join; leave the connection out.")
