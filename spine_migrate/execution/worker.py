"""Executing one run: claim it, keep the lease while its handler works, and mark what came of it.

Every executor ends here. A run that is handed over twice is claimed once; a worker that lost its claim marks nothing.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from spine_migrate.execution.backoff import delay
from spine_migrate.execution.calling import call
from spine_migrate.execution.context import TaskContext
from spine_migrate.execution.entity_lock import EntityLock
from spine_migrate.execution.errors import (
    BackendError,
    ConcurrencyError,
    ResultNotStorable,
    RunCancelled,
    RunTimeout,
    TransitionError,
)
from spine_migrate.execution.guards.protocol import ConcurrencyGuard
from spine_migrate.execution.lease import Lease
from spine_migrate.execution.ledgers.protocol import Claim, Ledger
from spine_migrate.execution.registry import Handler, HandlerRegistry
from spine_migrate.execution.runs import RunRecord, RunStatus
from spine_migrate.execution.storable import as_json, as_text, describe

__all__ = ["Attempt", "ResultNotStorable", "RunCancelled", "RunTimeout", "Worker", "here"]


def here() -> str:
    """A worker's name, for people who look for a run."""
    return f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"


@dataclass(frozen=True)
class Worker:
    """``lease_seconds`` is how long a dead worker goes unnoticed; it is renewed three times in that time.

    ``call`` runs the handler; an executor that works in other processes gives another one. With a ``guard`` a run that
    is about an entity is executed while its lock is held; see ``entity_lock``.
    """

    ledger: Ledger
    registry: HandlerRegistry
    lease_seconds: float = 60.0
    call: Callable[[Handler, TaskContext], Any] = field(default_factory=lambda: call)
    guard: ConcurrencyGuard | None = None

    def execute(self, run_id: str, *, before_mark: Callable[[Any], None] | None = None) -> RunRecord | None:
        """The run as it is afterwards; None where it was not for this worker to execute, or no longer.

        ``before_mark`` is given the result before the run is marked as completed, and does what must not be lost if
        this process dies in between, such as starting what comes next; it is called again by the next attempt then.
        What is no Exception, such as SystemExit and KeyboardInterrupt, ends the attempt as a failure and is raised.
        Raises ExecutionNotFoundError, and BackendError where the ledger could not be reached: for the claim, or for
        the mark as long as the lease lasts.
        """
        attempt = self.begin(run_id)
        if attempt is None:
            return None
        with attempt:
            try:
                result = attempt.call()
                if before_mark is not None:
                    before_mark(result)
            except Exception as error:  # noqa: BLE001 whatever a handler raises is the run's outcome
                return attempt.fail(error)
            except BaseException as error:
                attempt.abandon(error)
                raise
            return attempt.complete(result)

    def begin(self, run_id: str, attempt: int | None = None) -> Attempt | None:
        """Claim a run, in this ``attempt`` where one is given; None where it is not for this worker to execute, or not
        now. For executors that have to do something between the handler's end and the mark; the attempt is a context
        manager, which ends its lease.

        Raises BackendError, ExecutionNotFoundError.
        """
        try:
            claim = self.ledger.claim(run_id, here(), lease_seconds=self.lease_seconds, attempt=attempt)
        except TransitionError:
            return None
        try:
            lock = EntityLock.of(self.guard, claim.run, self.lease_seconds)
        except (ConcurrencyError, BackendError) as error:
            with Attempt(self, claim) as unexecuted:
                unexecuted.postpone(str(error))
            return None
        return Attempt(self, claim, lock)


class Attempt:
    """One claim of a run, whose lease is renewed until it is marked, or given up by leaving the context.

    ``complete`` and ``fail`` give the run as it is then, None where the claim was lost. They raise BackendError where
    the ledger could not be reached for as long as the lease lasts; another attempt is due then.
    """

    def __init__(self, worker: Worker, claim: Claim, lock: EntityLock | None = None) -> None:
        self.claim = claim
        entity_fence = None if lock is None else lock.fence
        self.context = TaskContext(claim.run, claim.fence, worker.ledger.record, entity_fence=entity_fence)
        self._worker = worker
        self._lease = Lease(worker.ledger, claim, self.context, worker.lease_seconds, lock)
        self._lease.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lease.end()

    def call(self) -> Any:
        """The handler's result. Raises what it raises, PipelineNotFoundError, RunTimeout, LockLost, LeaseLost."""
        spec, worker = self.claim.run.spec, self._worker
        return self.through(lambda: worker.call(worker.registry.get(spec.kind, spec.name), self.context))

    def through(self, body: Callable[[], Any]) -> Any:
        """The result of a body that calls the handler by itself, or what stands in for it. Raises what that raises,
        RunTimeout, LockLost, LeaseLost.
        """
        try:
            result = body()
        except Exception as error:
            # A handler that was told to stop may raise what it likes; what counts is why it was told.
            self._lease.check()
            if isinstance(error, RunCancelled):
                self._lease.check_lost()
            raise
        self._lease.check()
        return result

    def judge(self, error: BaseException) -> RunStatus:
        """What a failure comes to: cancelled where the run was asked to stop, else pending where trying again can help
        and is allowed, else failed, or a dead letter where trying again could have helped.
        """
        if isinstance(error, RunCancelled) or self._cancellation_requested():
            return RunStatus.CANCELLED
        if not getattr(error, "retryable", True):
            return RunStatus.FAILED
        return RunStatus.PENDING if self.claim.retries_left > 0 else RunStatus.DEAD_LETTERED

    def complete(self, result: Any) -> RunRecord | None:
        """A result that is not JSON is a failure, which trying again does not change."""
        ledger, run_id, fence = self._worker.ledger, self.claim.run.run_id, self.claim.fence
        try:
            stored = as_json(result)
        except ValueError as error:
            return self.fail(ResultNotStorable(f"The result {error}."))
        return self._mark(lambda: ledger.complete(run_id, stored, fence=fence))

    def fail(self, error: Exception, judged: RunStatus | None = None) -> RunRecord | None:
        """``judged`` is what ``judge`` said of this error, where it was asked before."""
        return self._mark(self._failing(error, self.judge(error) if judged is None else judged))

    def again(
        self,
        error: BaseException,
        *,
        in_seconds: float,
        publish_in_seconds: float = 0.0,
        message: dict[str, Any] | None = None,
    ) -> RunRecord | None:
        """Give the run back for another attempt that its handler has asked for, however many were tried; it is
        cancelled where that was asked for meanwhile. ``message`` is published for it from then on, by the relay only
        after ``publish_in_seconds`` more, where the caller executes the attempt himself.
        """
        text, kind = describe(error)
        return self._mark(lambda: self._try_again(text, kind, in_seconds, message, publish_in_seconds))

    def postpone(self, why: str, *, in_seconds: float | None = None) -> RunRecord | None:
        """Give the run back unexecuted, to be published again after ``in_seconds``, by default about half a lease; it
        is cancelled where that was asked for meanwhile.
        """
        ledger, run_id, fence = self._worker.ledger, self.claim.run.run_id, self.claim.fence
        if self._cancellation_requested():
            return self._mark(lambda: ledger.cancel(run_id, "asked for", fence=fence))
        seconds = delay(self._worker.lease_seconds / 2, 1) if in_seconds is None else in_seconds
        return self._mark(lambda: ledger.postpone(run_id, why, in_seconds=seconds, fence=fence))

    def abandon(self, error: BaseException) -> None:
        """The thread or process is to end because of ``error``: mark the failure if the ledger is there, and do not
        wait for it if not, since the lease runs out by itself.
        """
        self._lease.end()
        with suppress(TransitionError, BackendError):
            self._failing(error, self.judge(error))()

    def _failing(self, error: BaseException, status: RunStatus) -> Callable[[], RunRecord]:
        """What marks the run as ``status`` says."""
        ledger, run, fence = self._worker.ledger, self.claim.run, self.claim.fence
        text, kind = describe(error)
        if status is RunStatus.CANCELLED:
            reason = (
                str(error) or "stopped" if isinstance(error, RunCancelled) else f"failed when asked to stop: {text}"
            )
            return lambda: ledger.cancel(run.run_id, as_text(reason), fence=fence)
        if status is RunStatus.PENDING:
            seconds = delay(run.spec.retry_delay_seconds, run.attempt)
            return lambda: self._try_again(text, kind, seconds)
        dead = status is RunStatus.DEAD_LETTERED
        return lambda: ledger.fail(run.run_id, text, kind, dead=dead, fence=fence)

    def _try_again(
        self,
        error: str,
        error_type: str | None,
        in_seconds: float,
        message: dict[str, Any] | None = None,
        publish_in_seconds: float = 0.0,
    ) -> RunRecord:
        """The ledger refuses it where the run was asked to stop since the failure was judged; then that is its end."""
        ledger, run_id, fence = self._worker.ledger, self.claim.run.run_id, self.claim.fence
        try:
            return ledger.try_again(
                run_id,
                error,
                error_type,
                in_seconds=in_seconds,
                publish_in_seconds=publish_in_seconds,
                fence=fence,
                message=message,
            )
        except TransitionError:
            if not self._cancellation_requested():
                raise
            return ledger.cancel(run_id, as_text(f"failed when asked to stop: {error}"), fence=fence)

    def _cancellation_requested(self) -> bool:
        """Asked of the ledger, which may know it before the next renewal does; False where it cannot say."""
        try:
            return self._worker.ledger.renew(
                self.claim.run.run_id, self.claim.fence, lease_seconds=self._worker.lease_seconds
            )
        except (TransitionError, BackendError):
            return False

    def _mark(self, mark: Callable[[], RunRecord]) -> RunRecord | None:
        """Tried again for as long as the lease lasts without being renewed; then another attempt is due anyway."""
        self._lease.end()
        end = time.monotonic() + self._worker.lease_seconds
        while True:
            try:
                return mark()
            except TransitionError:
                return None
            except BackendError:
                if time.monotonic() >= end:
                    raise
                time.sleep(min(1.0, self._worker.lease_seconds / 10))
