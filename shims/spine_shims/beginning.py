"""How an execution begins: with the claim of the run that was stored for a message, or of one that adopts it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NoReturn

from celery import Task
from celery.app.task import Context
from celery.exceptions import Ignore, Reject
from kombu.exceptions import EncodeError

from spine_migrate.execution.errors import BackendError, ConcurrencyError, ExecutionNotFoundError, RunCancelled
from spine_migrate.execution.executors.celery_message import ATTEMPT_HEADER, RUN_HEADER
from spine_migrate.execution.runs import RunRecord, RunStatus
from spine_shims.adopting import adopted, is_left
from spine_shims.configuration import configuration
from spine_shims.executing import ON_REQUEST, Execution, running
from spine_shims.modes import Mode, Side

if TYPE_CHECKING:
    from spine_shims.task import RerouteTask

_log = logging.getLogger(__name__)


def of_run(task: RerouteTask, request: Context) -> Execution | None:
    """None where no run was stored for the message, or it is gone. Raises Ignore where the run is not for this delivery
    to execute, or cannot be claimed now: the message comes again then, and the relay's beside it does no harm.
    """
    run_id = getattr(request, RUN_HEADER, None)
    if run_id is None:
        return None
    config = configuration()
    try:
        worker = config.worker(task.app)
        attempt = worker.begin(run_id, getattr(request, ATTEMPT_HEADER, None))
        if attempt is None:
            _refused(task, worker.ledger.get(run_id))
        if is_left(attempt.claim.run) and not request.is_eager:
            with attempt:
                attempt.fail(RunCancelled("whoever called it is gone"), RunStatus.CANCELLED)
            raise Ignore("The run was its caller's to execute.")
    except ExecutionNotFoundError:
        return None
    except BackendError as error:
        _later(task, request, str(error))
    _, side = config.side_of_message(task.name, task.routed, request.id)
    return _kept(Execution(task, worker, attempt, request, legacy=side is not Side.DISPATCH), request)


def of_message(
    task: RerouteTask, request: Context, args: tuple[Any, ...], kwargs: dict[str, Any], mode: Mode
) -> Execution | None:
    """None where the database is away, and the old body does it, untracked. Raises Ignore where it is to come again."""
    config = configuration()
    # A message is no part of what is executed where it arrives; an eager call is.
    by = running(task.app) if request.is_eager else None
    try:
        return begun(task, args, kwargs, by)
    except (ConcurrencyError, BackendError) as error:
        if config.falls_back and isinstance(error, BackendError):
            config.count(task.name, "fallback: no database", mode, Side.LEGACY)
            return None
        if request.is_eager:
            raise
        _later(task, request, str(error))


def begun(task: RerouteTask, args: tuple[Any, ...], kwargs: dict[str, Any], by: Execution | None) -> Execution:
    """Of a message or call that has no run. Raises BackendError, and ConcurrencyError where the entity is busy."""
    request = task.request
    worker = configuration().worker(task.app)
    run_id, fits = adopted(task, worker.ledger, args, kwargs, by)
    # A message that is delivered again may be older than the run that has adopted it.
    attempt = worker.begin(run_id, (request.retries or 0) + 1)
    if attempt is None:
        if request.called_directly:
            # Its caller does not wait, and must not find it executed later.
            worker.ledger.cancel(run_id, "the entity is locked")
            raise ConcurrencyError(f"The entity of the run {run_id} of {task.name} is locked.", run_id=run_id)
        _refused(task, worker.ledger.get(run_id))
    return _kept(Execution(task, worker, attempt, request, legacy=not fits), request)


def _kept(execution: Execution, request: Context) -> Execution:
    """For those who come later: the calls that come next, and the signal at the end."""
    setattr(request, ON_REQUEST, execution)
    return execution


def _later(task: RerouteTask, request: Context, why: str) -> NoReturn:
    """The message again, as it is, after a while; by Celery itself, since it is no call.

    Where the broker is away too, the message goes back. One that was acknowledged early cannot, and without a run it is
    nowhere else: this process, which gets no other one from that broker either, holds it until it can be sent.
    """
    seconds = task.adopt_again_seconds
    _log.warning("The message %s of %s is looked at again in %g s: %s", request.id, task.name, seconds, why)
    again = task.signature_from_request(request, retries=request.retries, countdown=seconds)
    goes_back = task.acks_late or getattr(request, RUN_HEADER, None) is not None
    while True:
        try:
            Task.apply_async(task, again.args, again.kwargs, **again.options)
        except Exception as error:
            # Whatever the broker's own client raises: kombu passes on what it does not know.
            if goes_back or isinstance(error, EncodeError):
                raise Reject(error, requeue=True) from error
            _log.warning("The message %s of %s cannot be sent, and is held: %s", request.id, task.name, error)
            time.sleep(seconds)
        else:
            raise Ignore(why)


def _refused(task: RerouteTask, run: RunRecord | None) -> NoReturn:
    """The run is somebody else's, has ended or is not due. Whoever waits for one that was cancelled is told."""
    request = task.request
    if run is not None and run.status is RunStatus.CANCELLED:
        task.tell_revoked(request, "cancelled")
    raise Ignore("The run is not for this delivery to execute.")
