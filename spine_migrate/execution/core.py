"""The dispatcher without a loop: the one way by which work becomes a run (INV-1)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from spine_migrate.execution import invariants
from spine_migrate.execution.entity_lock import locked
from spine_migrate.execution.errors import (
    BackendError,
    ExecutionNotFoundError,
    HandlerFailed,
    InvalidSpecError,
    PipelineNotFoundError,
    TransitionError,
)
from spine_migrate.execution.events import EventType, RunEvent
from spine_migrate.execution.executors.protocol import ExecutesItself, Executor
from spine_migrate.execution.guards.protocol import ConcurrencyGuard
from spine_migrate.execution.ledgers.protocol import AT_ONCE, Delivery, Ledger, RunFilter
from spine_migrate.execution.publishing import CLAIM_WITHIN, Publishing
from spine_migrate.execution.registry import HandlerRegistry, get_default_registry
from spine_migrate.execution.runs import FINAL, RunRecord, RunStatus, RunSummary, run_uuid
from spine_migrate.execution.spec import WorkSpec, of_parent, pipeline_spec
from spine_migrate.execution.storable import as_json, as_text, describe

_log = logging.getLogger(__name__)


class SyncDispatcher:
    """Thread-safe; what ``Dispatcher`` awaits. ``publish`` False leaves publishing to the relay, which makes submitting
    one INSERT. With ``mark_later`` submitting is one INSERT and one message: that the run is queued is noted a moment
    later, for many at once, by a thread. ``lane_bound`` is how many runs may wait in a lane.

    Without a ledger it uses the executor's, where that has one, else a ``MemoryLedger`` of its own. ``registry`` None
    is the default one. Submitting needs no handler; where it is known, ``timeout`` in its metadata (seconds) is the
    run's unless another is given. With ``check_handlers`` a run without a handler is refused.

    Where another run of its entity is active, or ``concurrency`` says that its entity is locked, a run is not stored
    and ConcurrencyError is raised. The lock itself is the worker's to take (see ``entity_lock``): an executor that
    executes runs itself is given this guard where it has none, the workers of another need one of their own.
    """

    def __init__(
        self,
        executor: Executor,
        ledger: Ledger | None = None,
        registry: HandlerRegistry | None = None,
        concurrency: ConcurrencyGuard | None = None,
        *,
        publish: bool = True,
        mark_later: bool = False,
        lane_bound: int | None = None,
        check_handlers: bool = False,
    ) -> None:
        self.executor = executor
        self.ledger: Ledger = _ledger_of(executor) if ledger is None else ledger
        self.registry = registry
        self.concurrency = concurrency
        if isinstance(executor, ExecutesItself) and executor.guard is None:
            executor.guard = concurrency
        self._publishing = Publishing(executor, self.ledger, at_once=publish, mark_later=mark_later)
        self._lane_bound = lane_bound
        self._check_handlers = check_handlers

    def submit(
        self,
        spec: WorkSpec | str,
        params: dict[str, Any] | None = None,
        *,
        due_at: datetime | None = None,
        expires_at: datetime | None = None,
        timeout_seconds: float | None = None,
        tags: dict[str, Any] | None = None,
        connection: Any = None,
        **fields: Any,
    ) -> str:
        """Store a run, hand it to the executor, and give its id.

        ``submit("name", params, lane=..., trigger_source=...)`` is the pipeline of that name (capture-spine's form).
        With ``connection`` the run is part of the caller's transaction: it vanishes with it, and the relay publishes it
        once it is committed. Where the executor cannot be reached the run stays pending, for the relay to publish.

        Raises InvalidSpecError, ConcurrencyError, BackpressureError, and PipelineNotFoundError where handlers are
        checked.
        """
        if isinstance(spec, str):
            spec = pipeline_spec(spec, params, **fields)
        elif params is not None or fields:
            raise TypeError("A WorkSpec says it all; give params and fields with a name only.")
        return self.submit_run(
            RunRecord(spec, tags=tags or {}),
            Delivery(due_at, expires_at, timeout_seconds),
            connection=connection,
        ).run_id

    def submit_run(self, run: RunRecord, delivery: Delivery = AT_ONCE, *, connection: Any = None) -> RunRecord:
        """The same for a record; the run that is stored comes back, which may be another one of its idempotency key."""
        run = self._prepared(run, delivery)
        first = self._of_locked_entity(run, connection)
        if first is not None:
            return first
        publishes, delivery = self._publishing.delivering(delivery, connection)
        stored = self.ledger.create(run, delivery, lane_bound=self._lane_bound, connection=connection)
        if publishes and stored.run_id == run_uuid(run.run_id):
            self._publishing.publish_or_leave(stored)
        return stored

    def submit_many(
        self,
        specs: Iterable[WorkSpec],
        *,
        due_at: datetime | None = None,
        expires_at: datetime | None = None,
        timeout_seconds: float | None = None,
        tags: dict[str, Any] | None = None,
        connection: Any = None,
    ) -> list[str]:
        """The ids of many runs, which are stored in one transaction, all or none. Raises as ``submit``, for the first
        that is at fault.

        Where the executor cannot be reached three times in a row, the rest is left to the relay at once.
        """
        delivery = Delivery(due_at, expires_at, timeout_seconds)
        runs = [self._prepared(RunRecord(spec, tags=tags or {}), delivery) for spec in specs]
        firsts = [self._of_locked_entity(run, connection) for run in runs]
        new = [run for run, first in zip(runs, firsts, strict=True) if first is None]
        publishes, delivery = self._publishing.delivering(delivery, connection, len(new))
        made = self.ledger.create_many(new, delivery, lane_bound=self._lane_bound, connection=connection)
        if publishes:
            created = {run.run_id for run in new}
            self._publishing.publish_many([*{run.run_id: run for run in made if run.run_id in created}.values()])
        stored = iter(made)
        return [(next(stored) if first is None else first).run_id for first in firsts]

    def publish(self, run: RunRecord) -> None:
        """Hand a run to the executor. Raises BackendError; the relay tries again then."""
        self._publishing.publish(run)

    def hand_over(self, run: RunRecord) -> None:
        """Publish a pending run that is due, unless publishing is left to the relay, which it is as well where the
        executor cannot be reached.
        """
        if self._publishing.at_once:
            self._publishing.publish_or_leave(run)

    def submit_task(self, name: str, params: dict[str, Any] | None = None, **fields: Any) -> str:
        return self._submit_kind("task", name, params, fields)

    def submit_pipeline(self, name: str, params: dict[str, Any] | None = None, **fields: Any) -> str:
        return self._submit_kind("pipeline", name, params, fields)

    def submit_workflow(self, name: str, params: dict[str, Any] | None = None, **fields: Any) -> str:
        return self._submit_kind("workflow", name, params, fields)

    def submit_step(self, name: str, params: dict[str, Any] | None = None, **fields: Any) -> str:
        if fields.get("correlation_id") is None:
            fields["correlation_id"] = of_parent(fields.get("parent_run_id"))
        return self._submit_kind("step", name, params, fields)

    def get_run(self, run_id: str) -> RunRecord | None:
        return self.ledger.get(run_id)

    def get_runs(self, run_ids: Sequence[str]) -> list[RunRecord]:
        """Those that exist, in the order of ``run_ids``."""
        return self.ledger.get_many(run_ids)

    def list_runs(  # noqa: PLR0917 as in spine-core
        self,
        kind: str | None = None,
        status: RunStatus | str | None = None,
        name: str | None = None,
        parent_run_id: str | None = None,
        limit: int = 100,
        offset: int = 0,
        *,
        lane: str | None = None,
        tag: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[RunSummary]:
        """The newest first; see ``RunFilter``."""
        wanted = None if status is None else RunStatus(status)
        filters = RunFilter(kind, wanted, name, parent_run_id, lane, tag, since, until)
        return self.ledger.list_runs(filters, limit=limit, offset=offset)

    def get_events(self, run_id: str) -> list[RunEvent]:
        """Raises ExecutionNotFoundError."""
        return self.ledger.events(run_id)

    def get_children(self, run_id: str, limit: int = 100, offset: int = 0) -> list[RunSummary]:
        return self.list_runs(parent_run_id=run_id, limit=limit, offset=offset)

    def cancel(self, run_id: str, reason: str = "asked for") -> bool:
        """Whether the run is cancelled, or its worker is asked to stop, which may come too late: then it completes all
        the same. False where it has ended already.

        Raises ExecutionNotFoundError.
        """
        run = self._require(run_id)
        if run.status in FINAL:
            return False
        try:
            run = self.ledger.cancel(run_id, as_text(reason))
        except TransitionError:
            return False
        try:
            # A run that is cancelled while it is published has no reference yet; with most executors it is its id.
            self.executor.cancel(run.external_ref or run_id)
        except BackendError as error:
            # The ledger's word is enough: nobody can claim the run, and its worker hears of it by its lease.
            self._publishing.alert(run_id, "cancelling", error)
        return True

    def retry(self, run_id: str) -> str:
        """A new run of the same spec, timeout and message, which names this one; the id of the new run. The idempotency
        key stays with the first.

        Raises ExecutionNotFoundError, and TransitionError where the run has not failed or been cancelled.
        """
        run = self._require(run_id)
        if run.status not in FINAL - {RunStatus.COMPLETED}:
            why = "only a run that failed or was cancelled is retried"
            refused = {"status": str(run.status), "wanted": "retried", "why": why}
            self.ledger.record(RunEvent(run_id, EventType.TRANSITION_REFUSED, refused))
            raise TransitionError(run_id, run.status, "retried", why)
        again = RunRecord(
            replace(run.spec, idempotency_key=None),
            attempt=run.attempt + 1,
            retry_of_run_id=run_id,
            tags=dict(run.tags),
        )
        stored = self.submit_run(again, Delivery(timeout_seconds=run.timeout_seconds, message=run.message))
        self.ledger.record(RunEvent(run_id, EventType.RETRIED, {"run_id": stored.run_id}))
        return stored.run_id

    def reprocess(self, run_id: str) -> RunRecord:
        """Bring a dead letter back, as the same run. Raises as ``retry``, and ConcurrencyError."""
        run = self.ledger.reprocess(run_id)
        self.hand_over(run)
        return run

    def mark_started(self, run_id: str, external_ref: str | None = None) -> None:
        """For work that runs elsewhere and reports here; nobody takes it away. Raises TransitionError."""
        if external_ref is not None:
            self.ledger.mark_queued(run_id, external_ref, self.executor.name, claim_within_seconds=CLAIM_WITHIN)
        self.ledger.claim(run_id, "reported", lease_seconds=None)

    def mark_completed(self, run_id: str, result: Any = None) -> None:
        """Raises TransitionError, ExecutionNotFoundError, and InvalidSpecError where the result is not JSON."""
        try:
            stored = as_json(result)
        except ValueError as error:
            raise InvalidSpecError("result", f"The result {error}.") from error
        self.ledger.complete(run_id, stored)

    def mark_failed(self, run_id: str, error: str, error_type: str | None = None) -> None:
        """Raises TransitionError, ExecutionNotFoundError."""
        text, kind = describe(HandlerFailed(error, error_type or ""))
        self.ledger.fail(run_id, text, kind or None)

    def record_progress(self, run_id: str, progress: float, message: str | None = None) -> None:
        """Raises ExecutionNotFoundError, and ValueError where ``progress`` is not finite."""
        if not math.isfinite(progress):
            raise ValueError(f"Progress is a finite number, not {progress!r}.")
        said = None if message is None else as_text(message)
        self.ledger.record(RunEvent(run_id, EventType.PROGRESS, {"progress": progress, "message": said}))

    def record_heartbeat(self, run_id: str) -> None:
        """Raises ExecutionNotFoundError."""
        self.ledger.record(RunEvent(run_id, EventType.HEARTBEAT))

    def _prepared(self, run: RunRecord, delivery: Delivery) -> RunRecord:
        """With the timeout of its handler, where none is given. Raises InvalidSpecError, PipelineNotFoundError."""
        spec = run.spec
        invariants.check_fields(spec)
        if self._check_handlers and not self._registry.has(spec.kind, spec.name):
            known = [name for _, name in self._registry.list_handlers(spec.kind)]
            raise PipelineNotFoundError(spec.kind, spec.name, known)
        if delivery.timeout_seconds is not None or run.timeout_seconds is not None:
            return run
        usual = self._timeout(spec)
        return run if usual is None else replace(run, timeout_seconds=usual)

    def _of_locked_entity(self, run: RunRecord, connection: Any) -> RunRecord | None:
        """Where the run's entity is locked, the run that has its idempotency key. Raises ConcurrencyError where none
        has.
        """
        if self.concurrency is None:
            return None
        about = invariants.entity(invariants.json_object("metadata", run.spec.metadata))
        if about is None:
            return None
        try:
            held = self.concurrency.held(*about)
        except BackendError as error:
            # Nothing is lost: the worker does not start without the lock.
            _log.warning("Run %s is submitted although the guard is away: %s", run.run_id, error)
            return None
        if held is None:
            return None
        key = run.spec.idempotency_key
        first = None if key is None else self.ledger.of_key(key, connection=connection)
        if first is None:
            raise locked(about, held.holder)
        return first

    def _timeout(self, spec: WorkSpec) -> float | None:
        # Asked first: many a process that submits has no handlers, and the error would name all that it has.
        if not self._registry.has(spec.kind, spec.name):
            return None
        try:
            return self._registry.get_metadata(spec.kind, spec.name).get("timeout")
        except PipelineNotFoundError:
            return None

    @property
    def _registry(self) -> HandlerRegistry:
        return get_default_registry() if self.registry is None else self.registry

    def _submit_kind(self, kind: str, name: str, params: dict[str, Any] | None, fields: dict[str, Any]) -> str:
        options = {key: fields.pop(key) for key in _SUBMIT_OPTIONS if key in fields}
        return self.submit(WorkSpec(kind, name, {} if params is None else params, **fields), **options)

    def _require(self, run_id: str) -> RunRecord:
        run = self.ledger.get(run_id)
        if run is None:
            raise ExecutionNotFoundError(run_id)
        return run


_SUBMIT_OPTIONS: Sequence[str] = ("due_at", "expires_at", "timeout_seconds", "tags", "connection")


def _ledger_of(executor: Executor) -> Ledger:
    """Those that execute what they are given have one; the others only hand over."""
    found: Ledger | None = getattr(executor, "ledger", None)
    if found is None:
        # Few need it, and it brings tables of its own.
        from spine_migrate.execution.ledgers.memory import MemoryLedger

        found = MemoryLedger()
    return found
