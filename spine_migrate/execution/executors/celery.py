"""Celery as an executor: a run becomes one message of one task, whose id is the run's and whose body is nothing else.
A run that was stored with a message of its own (``Delivery.message``, see ``celery_message``) is published as that one.

The worker's side is ``celery_worker.register``. What the ledger knows stays in the ledger: a run with a time in the
future is not published before it, since Redis delivers a message again once its visibility timeout is over; and a run
that has expired is refused, and cancelled, when it is claimed. A message that expired in the broker would vanish there,
and leave its run waiting for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from spine_migrate.execution.errors import BackendError
from spine_migrate.execution.executors.celery_broker import Broker
from spine_migrate.execution.executors.celery_message import ATTEMPT_HEADER, RUN_HEADER, TaskMessage
from spine_migrate.execution.executors.protocol import Outcome
from spine_migrate.execution.runs import FINAL, RunRecord, RunStatus

if TYPE_CHECKING:
    from celery import Celery

#: The one task that executes runs.
TASK = "spine.execute_run"

#: Queue and priority in the broker, 9 first (seed 001). RabbitMQ heeds a priority in queues with x-max-priority.
PRIORITIES: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "realtime": ("realtime", 9),
        "high": ("high", 7),
        "normal": ("default", 5),
        "low": ("low", 3),
        "slow": ("slow", 1),
    }
)

#: Queues of lanes; a lane that has none is published by priority.
LANES: Mapping[str, str] = MappingProxyType({"background": "background"})

_HIGHEST = 9
#: Characters of a reference.
_LONGEST = 255

#: Celery's PENDING is what it says of tasks that it has never heard of.
STATUSES: Mapping[str, RunStatus] = MappingProxyType(
    {
        "RECEIVED": RunStatus.QUEUED,
        "STARTED": RunStatus.RUNNING,
        "RETRY": RunStatus.PENDING,
        "SUCCESS": RunStatus.COMPLETED,
        "FAILURE": RunStatus.FAILED,
        "REVOKED": RunStatus.CANCELLED,
    }
)


class CeleryExecutor:
    """``queues`` gives lanes queues of their own, beside ``LANES``. ``terminate`` lets ``cancel`` kill the process that
    executes a run; what else that process holds dies with it.

    ``publish_timeout_seconds`` bounds each step of publishing, which takes a few of them where the broker is down.
    ``connections`` is how many threads can publish at once.
    """

    def __init__(
        self,
        app: Celery,
        queues: Mapping[str, str] = MappingProxyType({}),
        *,
        terminate: bool = False,
        publish_timeout_seconds: float = 2.0,
        connections: int = 10,
        name: str = "celery",
    ) -> None:
        self.name = name
        self._app = app
        self._queues = {**LANES, **queues}
        self._terminate = terminate
        self._broker = Broker(app, timeout_seconds=publish_timeout_seconds, connections=connections)

    def submit(self, run: RunRecord) -> str:
        """Publish, and give the task's id, which is the run's, unless the message that the run was stored with has
        another. Raises BackendError.
        """
        if run.message is not None:
            return self._submit_message(run, TaskMessage.of_stored(run.message))
        queue, priority = self.route(run)
        if self._broker.lower_is_sooner:
            priority = _HIGHEST - priority
        self._broker.publish(TASK, run.run_id, (run.run_id,), queue=queue, priority=priority)
        return run.run_id

    def _submit_message(self, run: RunRecord, message: TaskMessage) -> str:
        """A run that retries another one is a task of its own: the result of the first is final, and workers that were
        told to refuse its id still do. The message keeps an id that the ledger has no room for.
        """
        task_id = message.task_id if run.retry_of_run_id is None else run.run_id
        self._broker.publish_message(message, task_id, {RUN_HEADER: run.run_id, ATTEMPT_HEADER: run.attempt})
        return task_id if len(task_id) <= _LONGEST else run.run_id

    def close(self) -> None:
        """Close the connections to the broker; what is submitted afterwards opens others."""
        self._broker.close()

    def route(self, run: RunRecord) -> tuple[str, int]:
        """The queue of the run's lane, else of its priority; and how urgent it is there, from 9 down to 1."""
        # A run that was migrated may have a priority of the application's own.
        queue, priority = PRIORITIES.get(run.spec.priority, PRIORITIES["normal"])
        return self._queues.get(run.spec.lane, queue), priority

    def cancel(self, external_ref: str) -> bool:
        """Have every worker refuse the task; whether they could be told. A worker that is not told claims a run that
        the ledger has cancelled, and is refused there.
        """
        try:
            self._broker.revoke(external_ref, terminate=self._terminate)
        except BackendError:
            return False
        return True

    def get_status(self, external_ref: str) -> RunStatus | None:
        """By the result backend; None where there is none, or it knows nothing of the task.

        It answers within the backend's own timeouts (``redis_socket_timeout`` and the like). Raises BackendError.
        """
        found = self._stored_result(external_ref)
        return None if found is None else STATUSES.get(found["status"])

    def outcome(self, run: RunRecord) -> Outcome | None:
        """By the result backend, for a run with a message of its own: whoever has that message's task can execute it.
        Only where the task's id is the run's, since others may have been executed under it too.
        """
        if run.message is None or run.message["task_id"] != run.run_id:
            return None
        found = self._stored_result(run.run_id)
        status = None if found is None else STATUSES.get(found["status"])
        if found is None or status not in FINAL or found.get("date_done") is None:
            return None
        return Outcome(status, found["result"], _moment(found["date_done"]))

    def _stored_result(self, task_id: str) -> dict[str, Any] | None:
        """Raises BackendError."""
        from celery.backends.base import DisabledBackend
        from celery.exceptions import BackendGetMetaError
        from kombu.exceptions import KombuError, OperationalError

        backend = self._app.backend
        if isinstance(backend, DisabledBackend):
            return None
        try:
            found: dict[str, Any] = backend.get_task_meta(task_id)
        except (BackendGetMetaError, KombuError, OperationalError, OSError, *_errors_of(backend)) as error:
            raise BackendError(f"The result backend cannot be reached: {' '.join(str(error).split())}.") from error
        return found


def _moment(given: str | datetime) -> datetime:
    """As backends give it; UTC where it has no zone, which is what Celery writes."""
    found = datetime.fromisoformat(given) if isinstance(given, str) else given
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _errors_of(backend: object) -> tuple[type[BaseException], ...]:
    """What the client of a key-value store raises where it does not answer."""
    found: tuple[type[BaseException], ...] = getattr(backend, "connection_errors", ())
    return found
