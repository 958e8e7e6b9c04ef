"""What a ledger does for the runtime: every change of a run is a compare-and-set, with its event, or it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from spine_migrate.execution import invariants
from spine_migrate.execution.events import RunEvent
from spine_migrate.execution.ledgers.refusals import no_such_run
from spine_migrate.execution.runs import RunRecord, RunStatus, RunSummary, run_uuid
from spine_migrate.execution.storable import as_text


@dataclass(frozen=True)
class Delivery:
    """When a run may reach a worker. Times have a zone; None is now, or never.

    It is not published before ``due_at`` and not started after ``expires_at``. ``publish_in_seconds`` keeps the relay
    off a run that its submitter is about to publish. A handler may take ``timeout_seconds``. ``message``, JSON, is what
    the executor publishes instead of a message of its own; what it says is between the executor and its workers.

    Raises InvalidSpecError for a time without a zone, a timeout that is not above 0, and a message that is not JSON.
    """

    due_at: datetime | None = None
    expires_at: datetime | None = None
    timeout_seconds: float | None = None
    publish_in_seconds: float = 0.0
    message: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        invariants.instant("due_at", self.due_at)
        invariants.instant("expires_at", self.expires_at)
        invariants.seconds("timeout_seconds", self.timeout_seconds)
        invariants.message(self.message)

    def of(self, run: RunRecord) -> RunRecord:
        """A new run as a ledger holds it; what is not said here of its timeout and message is as the run has it.

        Raises InvalidSpecError.
        """
        kept = invariants.checked(run)
        for field, other in (("parent_run_id", kept.spec.parent_run_id), ("retry_of_run_id", kept.retry_of_run_id)):
            if other is not None and run_uuid(other) is None:
                raise no_such_run(field, other)
        if self.timeout_seconds is not None:
            kept.timeout_seconds = self.timeout_seconds
        if self.message is not None:
            kept.message = invariants.json_object("message", self.message)
        return kept


@dataclass(frozen=True)
class Claim:
    """A worker's right to a run. ``fence`` grows with every claim of any run: who holds an older one has lost it.

    ``retries_left`` counts the attempts that the run has beyond this one.
    """

    run: RunRecord
    fence: int
    retries_left: int


@dataclass(frozen=True)
class Ending:
    """What a run came to: completed with ``result``, JSON; failed with ``error``; or cancelled for the reason that
    ``error`` gives.
    """

    status: RunStatus
    result: Any = None
    error: str | None = None
    error_type: str | None = None


@dataclass(frozen=True)
class RunFilter:
    """Each field narrows a list down, None does not. ``since`` and ``until`` are about ``created_at``, the latter
    excluded; ``tag`` is a key of ``tags``, or ``key=value``. Raises InvalidSpecError for a time without a zone.
    """

    kind: str | None = None
    status: RunStatus | None = None
    name: str | None = None
    parent_run_id: str | None = None
    lane: str | None = None
    tag: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        invariants.instant("since", self.since)
        invariants.instant("until", self.until)

    @property
    def matches_nothing(self) -> bool:
        """No run can have such a value, which PostgreSQL would not even take for a comparison."""
        texts = (self.kind, self.name, self.lane, self.tag)
        return (self.parent_run_id is not None and run_uuid(self.parent_run_id) is None) or not all(
            as_text(text) == text for text in texts if text is not None
        )


AT_ONCE = Delivery()
EVERYTHING = RunFilter()


class Ledger(Protocol):
    """``MemoryLedger`` and ``PostgresLedger`` keep one contract; tests/integration/test_ledger_contract.py holds them
    to it.

    A change that the state machine does not have, or that comes from a worker whose claim is lost, raises
    TransitionError, leaves the run as it is and adds an event ``transition_refused``. An unknown run raises
    ExecutionNotFoundError. ``connection`` joins the caller's transaction, where a ledger has such a thing.
    """

    def create(
        self, run: RunRecord, delivery: Delivery = AT_ONCE, *, lane_bound: int | None = None, connection: Any = None
    ) -> RunRecord:
        """Store a pending run; the run that has its idempotency key already, where there is one, is given instead.

        Raises, in this order: InvalidSpecError (it cannot be stored), BackpressureError (``lane_bound`` runs or more
        wait in its lane; runs that are submitted at the same moment do not see each other), ConcurrencyError (another
        run of its entity is active, or the caller's transaction cannot see the run that has its key),
        InvalidSpecError (its parent or retried run does not exist). Nothing is stored then, and the caller's
        transaction can go on.
        """
        ...

    def create_many(
        self,
        runs: Sequence[RunRecord],
        delivery: Delivery = AT_ONCE,
        *,
        lane_bound: int | None = None,
        connection: Any = None,
    ) -> list[RunRecord]:
        """Store many runs, in their order, or none of them; for each, what ``create`` would give. A run may name one
        before it as its parent.

        Raises as ``create``, in the same order: for the first that cannot be stored, else for the first lane that has
        no room for all of its runs, else for the first that is refused when it is its turn. In the caller's transaction
        a deadlock with another one that stores the same keys or entities is the caller's, as psycopg raises it.
        """
        ...

    def get(self, run_id: str, *, connection: Any = None) -> RunRecord | None: ...

    def of_key(self, idempotency_key: str, *, connection: Any = None) -> RunRecord | None:
        """The run that has this idempotency key."""
        ...

    def get_many(self, run_ids: Sequence[str]) -> list[RunRecord]:
        """Those that exist, in the order of ``run_ids``."""
        ...

    def list_runs(self, filters: RunFilter = EVERYTHING, *, limit: int = 100, offset: int = 0) -> list[RunSummary]:
        """The newest first. Raises InvalidSpecError where ``limit`` or ``offset`` is no number of rows."""
        ...

    def events(self, run_id: str) -> list[RunEvent]:
        """In the order they were recorded."""
        ...

    def record(self, event: RunEvent, *, connection: Any = None) -> None:
        """Add an event, at the ledger's own time; one that is recorded again is there once. Raises InvalidSpecError."""
        ...

    def mark_queued(
        self,
        run_id: str,
        external_ref: str,
        executor_name: str,
        *,
        claim_within_seconds: float,
        attempt: int | None = None,
    ) -> bool:
        """The run was published, in its ``attempt``. False, and not an error, where a worker or a cancellation was
        faster, even if the worker has given it back for another attempt; then it is only noted by whom it was carried,
        if nobody was noted before.
        """
        ...

    def mark_many_queued(
        self, published: Sequence[tuple[RunRecord, str]], executor_name: str, *, claim_within_seconds: float
    ) -> int:
        """The same for runs as they were published, each with its reference; how many wait now. One that does not
        exist any more is left out.
        """
        ...

    def claim(self, run_id: str, worker: str, *, lease_seconds: float | None, attempt: int | None = None) -> Claim:
        """Start a pending or queued run that is due and has not expired. Without a lease nobody takes it away again.
        With ``attempt`` it is started in that attempt alone: a message may be older than the run.

        Expired runs become cancelled instead, and raise TransitionError too.
        """
        ...

    def renew(self, run_id: str, fence: int, *, lease_seconds: float) -> bool:
        """Extend the lease; whether the run is to be cancelled. Raises TransitionError where the claim is lost."""
        ...

    def complete(self, run_id: str, result: Any, *, fence: int | None = None, attempt: int | None = None) -> RunRecord:
        """In this ``attempt`` alone, where one is given. Raises InvalidSpecError for a result that is not JSON, and
        leaves the run as it is.
        """
        ...

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
        """Failed, or with ``dead`` a dead letter, which ``reprocess`` brings back; likewise. What cannot be stored of
        ``error`` and ``error_type`` is escaped or cut.
        """
        ...

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
        """Back to pending, one attempt up, due after ``in_seconds``; refused where the run is to be cancelled.
        ``publish_in_seconds`` is as in ``Delivery``, for a caller who claims the attempt himself. A ``message`` takes
        the place of the one that is published for the run. Raises InvalidSpecError where it is not JSON.
        """
        ...

    def postpone(self, run_id: str, why: str, *, in_seconds: float, fence: int) -> RunRecord:
        """Back to pending as if it had not been claimed: neither attempts nor retries are counted; due after
        ``in_seconds``. Refused where the run is to be cancelled.
        """
        ...

    def cancel(self, run_id: str, reason: str, *, fence: int | None = None) -> RunRecord:
        """Cancelled at once, unless a worker holds a lease on it: then it is asked to stop (``renew`` says so), and the
        record that comes back is still running. ``fence`` is the worker's own, which ends it.
        """
        ...

    def reprocess(self, run_id: str) -> RunRecord:
        """A dead letter becomes pending, due now, with all its retries."""
        ...

    def publishable(self, limit: int, *, again_in_seconds: float) -> Sequence[RunRecord]:
        """Pending runs that are due, oldest due first, each given to one caller only until ``again_in_seconds`` have
        passed; twice as long after every time that it came to nothing, up to the sixth.
        """
        ...

    def unclaimed(self, limit: int, *, again_in_seconds: float) -> Sequence[RunRecord]:
        """Queued runs that nobody has claimed in time, to be published again; likewise."""
        ...

    def reap(self, limit: int, *, backoff_seconds: float) -> Sequence[RunRecord]:
        """End the claims whose lease ran out: the run is cancelled where that was asked for, else tried again after
        ``backoff_seconds`` where it has retries left, else a dead letter. Gives them as they are then.
        """
        ...

    def end_unclaimed(self, run: RunRecord, ending: Ending, *, worker: str, why: str) -> bool:
        """Claim a run that waits in this attempt and end it, in one step, with an event ``alert_triggered`` that says
        ``why``: somebody has executed it who does not claim. False where it does not wait any more, or has expired.
        Raises InvalidSpecError for a result that is not JSON.
        """
        ...
