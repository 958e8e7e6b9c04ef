"""The task by which a Celery worker executes runs.

What Celery does once the task's body has returned (celery.app.trace, 5.4 to 5.7, the same order in all of them): it
publishes the callbacks (``link``) and the next task of a chain; it stores the result, which also counts the task off in
its chord and publishes the chord's body; it calls ``on_success``; the parent process acknowledges the message. So the
body claims the run and calls the handler, and ``on_success`` marks the run: what comes next has been published once a
run is marked. The errbacks of a failure are published before ``on_failure``, likewise. A process that dies before the
mark leaves a run whose lease runs out, for the relay to reap and publish again; where none of the two is called (the
result could not be stored, a handler that ends its thread), ``task_postrun`` gives the run up, to the same effect.

The relay publishes the run and nothing else: links, chain and chord of the first message are not stored with the run,
so the next attempt of a process that died does not start them. What must come next in any case is submitted by the
handler.

The message is acknowledged late and comes back when its process dies, which costs nothing: while the lease of the dead
one lasts, the claim is refused; afterwards the relay has published the run again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NoReturn

from celery import Celery, Task, signals
from celery.exceptions import Ignore, Retry

from spine_migrate.execution.errors import BackendError, ResultNotStorable, TransitionError
from spine_migrate.execution.executors.celery import TASK
from spine_migrate.execution.guards.protocol import ConcurrencyGuard
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.per_process import PerProcess
from spine_migrate.execution.registry import HandlerRegistry, get_default_registry
from spine_migrate.execution.runs import RunStatus
from spine_migrate.execution.storable import as_json
from spine_migrate.execution.worker import Attempt, Worker

_LOG = logging.getLogger(__name__)


class RunTask(Task):  # type: ignore[misc]  # Celery has no types
    """Executes the run whose id is its one argument. The attempt at hand is kept on the request, which each delivery
    has of its own.
    """

    abstract = True
    acks_late = True
    reject_on_worker_lost = True
    #: Trying again is the ledger's; a message that Celery published again would be one more delivery.
    max_retries = 0
    ignore_result = False
    worker: PerProcess[Worker]

    def run(self, run_id: str) -> Any:
        try:
            attempt = self.worker.get().begin(run_id)
        except BackendError as error:
            # The run waits in the ledger, as it was: the relay publishes it again.
            _LOG.warning("The run %s could not be claimed: %s", run_id, error)
            raise Ignore from error
        if attempt is None:
            raise Ignore
        self.request.spine_attempt = attempt
        try:
            # As the ledger stores it: what it could not store must not reach those who come next either.
            result = _stored(attempt.call())
        except Exception as error:  # noqa: BLE001 whatever a handler raises is the run's outcome
            self._failed(attempt, error)
        except BaseException as error:
            attempt.abandon(error)
            raise
        if self._lost(attempt):
            raise Ignore
        return result

    def _failed(self, attempt: Attempt, error: Exception) -> NoReturn:
        """Marks what Celery is not to hear of as a failure; a failure is marked by ``on_failure``."""
        judged = attempt.judge(error)
        if self._lost(attempt):
            raise Ignore from error
        if judged is RunStatus.CANCELLED:
            attempt.fail(error, judged)
            self.backend.mark_as_revoked(self.request.id, str(error) or "cancelled", request=self.request)
            raise Ignore from error
        if judged is RunStatus.PENDING:
            attempt.fail(error, judged)
            raise Retry(exc=error) from error
        self.request.spine_failure = error, judged
        raise error

    def _lost(self, attempt: Attempt) -> bool:
        """Whether somebody else has the run by now, whose it is to go on. Asked only of an attempt that was told to
        stop, which losing its claim does, too.
        """
        if not attempt.context.cancelled.is_set():
            return False
        worker = self.worker.get()
        try:
            worker.ledger.renew(attempt.claim.run.run_id, attempt.claim.fence, lease_seconds=worker.lease_seconds)
        except TransitionError:
            return True
        except BackendError:
            return False
        return False

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:  # noqa: ARG002 - Celery's hook
        attempt = self._attempt()
        if attempt is not None:
            self._mark(task_id, lambda: attempt.complete(retval))

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ARG002 - Celery's hook
        """Of the handler, or where what comes next could not be published."""
        attempt = self._attempt()
        if attempt is not None:
            error, judged = getattr(self.request, "spine_failure", (exc, None))
            self._mark(task_id, lambda: attempt.fail(error, judged))

    def give_up(self) -> None:
        """End the lease of an attempt that was not marked."""
        attempt = self._attempt()
        if attempt is not None:
            attempt.__exit__()

    def _attempt(self) -> Attempt | None:
        return getattr(self.request, "spine_attempt", None)

    def _mark(self, run_id: str, mark: Callable[[], object]) -> None:
        try:
            mark()
        except BackendError:
            _LOG.exception(
                "The run %s has ended and could not be marked; it is tried again once its lease is over", run_id
            )


def register(
    app: Celery,
    *,
    ledger: Callable[[], Ledger],
    registry: HandlerRegistry | None = None,
    guard: Callable[[], ConcurrencyGuard] | None = None,
    lease_seconds: float = 60.0,
) -> Task:
    """Make the workers of ``app`` execute runs; the task, which is named ``spine.execute_run``.

    ``ledger`` and ``guard`` are called in each worker process, once it has its first run. ``lease_seconds`` is how long
    a dead worker goes unnoticed. Without a ``registry`` it is the default one.
    """

    def make() -> Worker:
        known = get_default_registry() if registry is None else registry
        return Worker(ledger(), known, lease_seconds, guard=None if guard is None else guard())

    task = app.register_task(type("ExecuteRun", (RunTask,), {"name": TASK, "worker": PerProcess(make)})())
    signals.task_postrun.connect(_give_up, sender=task, weak=False)
    return task


def _stored(result: Any) -> Any:
    try:
        return as_json(result)
    except ValueError as error:
        raise ResultNotStorable(f"The result {error}.") from error


def _give_up(sender: RunTask, **_: object) -> None:
    sender.give_up()
