"""One execution of a shim's run in this process: from the claim, through the body, to the mark.

The body is the handler's, or the old one. The run is marked when Celery has dispatched what comes next and stored the
result, in ``task_postrun`` (see hooks.py), which no override of ``on_success`` or ``on_failure`` can keep from being
sent; a direct call, which has nothing that comes next, marks it at once. What an ending comes to:

=================================  ==============================================================================
the body returns                   completed, with the result where it is JSON
what comes next cannot be sent     failed, as Celery's result says
it raises                          failed; cancelled where it was asked to stop
it retries itself                  pending again, one attempt up, with the message that Celery would have published
it is replaced                     completed, with an event ``replaced``
``Ignore``                         completed, with an event ``ignored``
``Reject``                         a dead letter; with ``requeue``, where the task acknowledges late, pending again
=================================  ==============================================================================
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from celery import states
from celery.exceptions import Ignore, Reject, Retry, SoftTimeLimitExceeded
from celery.utils.time import maybe_make_aware

from spine_migrate.execution.errors import BackendError, HandlerFailed, TransitionError
from spine_migrate.execution.events import RunEvent
from spine_migrate.execution.jsonable import plain
from spine_migrate.execution.publishing import PUBLISH_GRACE
from spine_migrate.execution.runs import RunStatus
from spine_migrate.execution.worker import Attempt, RunCancelled, Worker

if TYPE_CHECKING:
    from celery import Celery

    from spine_shims.task import RerouteTask

_log = logging.getLogger(__name__)

#: The name under which an execution is kept on Celery's request.
ON_REQUEST = "spine_execution"
#: And that of a comparison with the handler (see shadowing.py).
SHADOW_ON_REQUEST = "spine_shadow"

_SOURCE = "spine_shims"


class Again(NamedTuple):
    """A retry that Celery would have published: its message, and when it is due."""

    message: dict[str, Any]
    due_at: datetime | None


class Execution:
    """``legacy`` says that the body is the old one; else it is the handler, where the application has registered one.

    ``entered`` once the body was chosen, ``ended`` once it is over, ``sent`` once Celery has done what comes next.
    """

    def __init__(self, task: RerouteTask, worker: Worker, attempt: Attempt, request: Any, *, legacy: bool) -> None:
        self.task = task
        self.attempt = attempt
        self.task_id: str | None = request.id
        self.root_id: str | None = request.root_id or request.id
        self.retries: int = request.retries or 0
        self.nesting: int = request.replaced_task_nesting or 0
        self.entered = False
        self.ended = False
        self.sent = False
        self.replaced_by: str | None = None
        self._worker = worker
        self._request = request
        self._legacy = legacy
        self._again: Again | None = None
        self._outcome: tuple[str | None, Any] = (None, None)
        self._marked = False

    @property
    def run_id(self) -> str:
        return self.attempt.claim.run.run_id

    @property
    def by_handler(self) -> bool:
        """Whether the handler is called; where there is none, the old body is, tracked."""
        spec = self.attempt.claim.run.spec
        return not self._legacy and self._worker.registry.has(spec.kind, spec.name)

    def call(self, body: Callable[[], Any]) -> Any:
        """What the task is to return; ``body`` goes through ``enter`` in the end. Raises what the task is to raise."""
        token = _running.set(self)
        try:
            result = self.attempt.through(body)
        except BaseException as error:
            # All that can end a body is its outcome, what ends the process too; it goes on to Celery as it is.
            self._outcome = _state(error), error
            if isinstance(error, Exception):
                self._raised(error)
            raise
        finally:
            _running.reset(token)
            self.ended = True
        self._outcome = states.SUCCESS, result
        self._check_lost()
        return result

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The body itself, which Celery's autoretry is around."""
        self.entered = True
        if not self.by_handler:
            return self.task.legacy(*args, **kwargs)
        spec = self.attempt.claim.run.spec
        return self._worker.call(self._worker.registry.get(spec.kind, spec.name), self.attempt.context)

    def is_retried_by(self, task_id: str, options: dict[str, Any]) -> bool:
        """Whether a call of the task is this one's retry."""
        return (
            not self.ended
            and self.task_id == task_id
            and (options.get("retries") or 0) > self.retries
            and (options.get("replaced_task_nesting") or 0) == self.nesting
        )

    def retry(self, again: Again) -> None:
        """Published once the run is pending again: its message must not meet a run that is still being executed."""
        self._again = again

    def mark(self, state: str | None = None, value: Any = None) -> None:
        """Once; ``state`` is Celery's, None where it has none, and the body's own end counts."""
        if self._marked:
            return
        self._marked = True
        with self.attempt:
            try:
                self._mark_in_time(state, value)
            except BackendError:
                _log.exception(
                    "The run %s has ended and could not be marked; its lease will tell that its worker was lost",
                    self.run_id,
                )

    def _mark_in_time(self, state: str | None, value: Any) -> None:
        """The limit is the body's, which is over; Celery raises it once, wherever the process is."""
        try:
            self._mark(state, value)
        except SoftTimeLimitExceeded:
            self._mark(state, value)

    def _mark(self, state: str | None, value: Any) -> None:
        own, result = self._outcome
        called_here = state is None
        state = state or own
        if self._again is not None:
            self._mark_retried(result if isinstance(result, Retry) else Retry("retried"))
        elif state == states.SUCCESS:
            # Celery sends its last signal with this state, too, while it goes through an error of its own.
            self._complete(result) if self.sent or called_here else self._fail_unsent()
        elif state == states.RETRY:
            # In eager mode Celery executes the next attempt here, which the relay is not to be faster than.
            grace = PUBLISH_GRACE if self._request.is_eager else 0.0
            self.attempt.again(_cause(result), in_seconds=self._pause(result), publish_in_seconds=grace)
        elif state == states.IGNORED:
            self._note("replaced", {"by": self.replaced_by}) if self.replaced_by else self._note("ignored")
            self.attempt.complete(None)
        elif state == states.REJECTED:
            self._reject(result)
        elif state == states.FAILURE:
            error = value if isinstance(value, Exception) else result
            self.attempt.fail(error if isinstance(error, Exception) else RuntimeError(repr(error)), RunStatus.FAILED)
        # Else the process is to end, and Celery's main process knows why: a time limit, a revocation, a shutdown. It
        # marks the run (see requests.py), or the lease tells that the worker was lost.

    def _complete(self, result: Any) -> None:
        try:
            storable = plain(result)
        except ValueError as error:
            # The caller has it, by way of Celery, whose serializer may be another one.
            self._note("result_not_stored", {"type": type(result).__qualname__, "why": str(error)})
            storable = None
        self.attempt.complete(storable)

    def _fail_unsent(self) -> None:
        """As Celery has it, whose result is that failure: the body has returned, and it goes no further."""
        error = sys.exc_info()[1] or RuntimeError("nobody knows why")
        why = f"The body has returned, but what comes next was not sent, or the result not stored: {error}"
        self.attempt.fail(HandlerFailed(why, type(error).__qualname__), RunStatus.FAILED)

    def _mark_retried(self, retry: Retry) -> None:
        again = self._again
        if again is None:
            return
        seconds = 0.0
        if again.due_at is not None:
            seconds = max(0.0, (again.due_at - self.task.app.now()).total_seconds())
        run = self.attempt.again(_cause(retry), in_seconds=seconds, message=again.message)
        if run is not None and run.status is RunStatus.PENDING and not seconds:
            self.task.hand_over(run)

    def _pause(self, retry: Any) -> float:
        """Of a retry in eager mode, which does not wait."""
        when = getattr(retry, "when", None)
        if self._request.is_eager or when is None:
            return 0.0
        if isinstance(when, datetime):
            aware: datetime = maybe_make_aware(when, self.task.app.timezone)
            return float(max(0.0, (aware - self.task.app.now()).total_seconds()))
        return max(0.0, float(when))

    def _reject(self, rejected: Any) -> None:
        why = str(getattr(rejected, "reason", None) or rejected)
        if getattr(rejected, "requeue", False) and self.task.acks_late:
            self.attempt.postpone(f"rejected: {why}", in_seconds=0.0)
        else:
            self.attempt.fail(HandlerFailed(why, Reject.__name__), RunStatus.DEAD_LETTERED)

    def _raised(self, error: Exception) -> None:
        """Tells Celery of a run that was cancelled what it says of a task that was revoked."""
        self._check_lost()
        if isinstance(error, (Ignore, Reject, Retry)) or self._again is not None:
            return
        asked = isinstance(error, RunCancelled) or self.attempt.context.cancelled.is_set()
        if not asked or self.attempt.judge(error) is not RunStatus.CANCELLED:
            return
        self._marked = True
        with self.attempt:
            self.attempt.fail(error, RunStatus.CANCELLED)
        if not self._request.called_directly:
            self.task.tell_revoked(self._request, str(error) or "cancelled")
            raise Ignore from error

    def _check_lost(self) -> None:
        """Raises Ignore where somebody else has the run by now, whose it is to go on. Asked only of an attempt that was
        told to stop, which losing its claim does, too; a direct caller has what came of it all the same.
        """
        if not self.attempt.context.cancelled.is_set() or self._request.called_directly:
            return
        try:
            self._worker.ledger.renew(self.run_id, self.attempt.claim.fence, lease_seconds=self._worker.lease_seconds)
        except TransitionError:
            self._marked = True
            with self.attempt:
                raise Ignore(f"The run {self.run_id} was taken over by another worker.") from None
        except BackendError:
            return

    def _note(self, event_type: str, data: dict[str, Any] | None = None) -> None:
        self.attempt.context.note(RunEvent(self.run_id, event_type, data or {}, source=_SOURCE))


_running: ContextVar[Execution | None] = ContextVar("spine_shims_running", default=None)


def entering(task: RerouteTask) -> Execution | None:
    """The execution whose body the task is asked for; None where ``run`` was called by somebody else."""
    found = _running.get()
    return found if found is not None and found.task is task and not found.entered else None


def running(app: Celery) -> Execution | None:
    """The execution that a call comes from: its body, or Celery, which goes on with what comes next."""
    found = _running.get()
    if found is None:
        task = app.current_worker_task
        found = None if task is None else getattr(task.request, ON_REQUEST, None)
    return found


@contextmanager
def aside() -> Iterator[None]:
    """Nothing that is called within comes from the execution around it."""
    token = _running.set(None)
    try:
        yield
    finally:
        _running.reset(token)


def _state(error: BaseException) -> str | None:
    """Celery's for what a body raises; None for what is to end the process."""
    for kind, state in ((Retry, states.RETRY), (Ignore, states.IGNORED), (Reject, states.REJECTED)):
        if isinstance(error, kind):
            return str(state)
    return str(states.FAILURE) if isinstance(error, Exception) else None


def _cause(retry: Any) -> Exception:
    """Why a body wants to be tried again: what it gave as ``exc``, where it did."""
    cause = getattr(retry, "exc", None)
    return cause if isinstance(cause, Exception) else retry
