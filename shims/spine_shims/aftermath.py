"""Marks that Celery's main process makes, in a thread: it has a pool to feed, and must not wait for a database.

It also forks, to replace the very process that was lost. A child has the locks of its parent as they were, and not the
thread that held them; and kombu, from which Celery's result backends have their properties, guards each property of a
class by a lock. So what is Celery's own is asked in the thread that forks, and imported there; the other one has only
what is safe to be forked from.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from celery import states

from spine_migrate.execution.backoff import delay
from spine_migrate.execution.errors import BackendError, ExecutionNotFoundError, TransitionError
from spine_migrate.execution.executors.celery_message import ATTEMPT_HEADER, RUN_HEADER
from spine_migrate.execution.jsonable import plain_or_none
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.storable import describe
from spine_shims.configuration import configuration
from spine_shims.modes import Side
from spine_shims.producing import run_id_of

if TYPE_CHECKING:
    from spine_shims.task import RerouteTask

_log = logging.getLogger(__name__)

#: Seconds between two attempts to mark a run while the ledger cannot be reached: about the first, and at most.
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0


def failed(task: RerouteTask, request: Mapping[str, Any], error: Exception) -> None:
    """Celery has stored a failure, and nobody executes the task again."""
    text, kind = describe(error)
    _aside(task, request, lambda ledger, run_id, attempt: ledger.fail(run_id, text, kind, attempt=attempt))


def dead(task: RerouteTask, request: Mapping[str, Any], error: Exception) -> None:
    """The process that executed it is gone. Where it had stored a result before, the body has returned, and what comes
    next was sent; else it is not known how far it came, and a person has to look.
    """
    text, kind = describe(error)

    success = _success(task, str(request["id"]))

    def mark(ledger: Ledger, run_id: str, attempt: int | None) -> None:
        # Under the id of another run's task others may have stored what they gave.
        if success is not None and run_id == request["id"]:
            ledger.complete(run_id, plain_or_none(success["result"]), attempt=attempt)
        else:
            ledger.fail(run_id, text, kind, dead=True, attempt=attempt)

    _aside(task, request, mark)


def cancelled(task: RerouteTask, request: Mapping[str, Any], reason: str) -> None:
    """A worker has refused the task, or killed it, which goes for every attempt."""
    _aside(task, request, lambda ledger, run_id, _: ledger.cancel(run_id, reason))


def _success(task: RerouteTask, task_id: str) -> dict[str, Any] | None:
    """What Celery has stored of a task that has succeeded; None where it stores nothing, too."""
    from celery.backends.base import DisabledBackend

    if isinstance(task.backend, DisabledBackend):
        return None
    try:
        found: dict[str, Any] = task.backend.get_task_meta(task_id)
    except Exception as error:  # noqa: BLE001 - of whichever backend; Celery's main process is not to end for it
        _log.warning("What became of the task %s cannot be read (%s).", task_id, type(error).__qualname__)
        return None
    return found if found["status"] == states.SUCCESS else None


def _aside(task: RerouteTask, request: Mapping[str, Any], mark: Callable[[Ledger, str, int | None], object]) -> None:
    """``mark`` is given the attempt that the message was for: the body may have been over, and the run in its next
    one, when its process was lost.
    """
    task_id, run_id, attempt = str(request["id"]), request.get(RUN_HEADER), request.get(ATTEMPT_HEADER)
    if run_id is None:
        if (
            task.route is None
            or configuration().side_of_message(task.name, task.route, task_id)[1] is not Side.DISPATCH
        ):
            return
        run_id, attempt = run_id_of(task_id), (request.get("retries") or 0) + 1
    known = configuration()
    ledger, until = known.ledger(task.app), time.monotonic() + known.lease_seconds

    def work() -> None:
        try:
            _patiently(lambda: mark(ledger, run_id, attempt), until)
        except (ExecutionNotFoundError, TransitionError):
            # It was never claimed here, has ended, or is in another attempt.
            return
        except BackendError as error:
            _log.warning("What became of the run %s was not recorded: %s", run_id, error)

    threading.Thread(target=work, name="spine-shim-aftermath", daemon=True).start()


def _patiently(mark: Callable[[], object], until: float) -> None:
    """Nobody else knows what is to be marked, and nobody waits for it; but once the lease is over, the run is another
    one's. Raises BackendError where the ledger stays away until then.
    """
    attempt = 1
    while True:
        try:
            mark()
        except BackendError:
            pause = delay(_FIRST_PAUSE, attempt, longest=_LONGEST_PAUSE)
            if time.monotonic() + pause > until:
                raise
            time.sleep(pause)
            attempt += 1
        else:
            return
