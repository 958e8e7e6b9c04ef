"""Publishing to Celery's broker within a bounded time.

Celery's own producers wait for ever where nobody listens: a lazy connection is established with as many retries as it
takes, and a socket that is open but silent is read without a timeout (celery #4296, #6911). So these connections are
our own, with a timeout on every step, taken from a pool that a fork starts anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spine_migrate.execution.errors import BackendError
from spine_migrate.execution.executors.celery_message import TaskMessage
from spine_migrate.execution.per_process import PerProcess

try:
    from kombu.exceptions import KombuError, OperationalError
except ImportError as error:
    raise ImportError(
        "The Celery executor needs Celery; install it with: pip install 'spine-migrate[celery]'"
    ) from error

if TYPE_CHECKING:
    from celery import Celery

#: One reconnection, at once: a pooled connection may have died with the broker's last restart.
_RETRY = {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}


class Broker:
    """Connections to the broker of ``app``. Thread-safe, and usable after a fork.

    ``timeout_seconds`` bounds each step: waiting for a connection of the pool, connecting, writing, reading. A publish
    has at most a handful of them.
    """

    def __init__(self, app: Celery, *, timeout_seconds: float, connections: int) -> None:
        self._app = app
        self._timeout = timeout_seconds
        self._limit = connections
        self._pool: PerProcess[Any] = PerProcess(self._make)

    def publish(self, task: str, task_id: str, args: tuple[Any, ...], *, queue: str, priority: int) -> None:
        """Send the message of a task. Raises BackendError where that fails; it may have been sent or not.

        Not by ``send_task``, which also subscribes to the task's result: nobody may ever read it, and where the result
        backend does not answer, it does not return.
        """
        message = self._app.amqp.create_task_message(task_id, task, args, {})
        self._send(task, message, {"queue": self._queue(queue), "priority": priority})

    def publish_message(self, message: TaskMessage, task_id: str, headers: dict[str, Any]) -> None:
        """Likewise, a message that is all there: ``headers`` come to those it has. Raises BackendError."""
        inside, outside = message.parts()
        if "queue" in outside:
            outside["queue"] = self._queue(outside["queue"])
        outside["headers"] = {**(outside.get("headers") or {}), **headers}
        sent_event = self._app.conf.task_send_sent_event
        made = self._app.amqp.create_task_message(
            task_id, message.task, message.args, message.kwargs, create_sent_event=sent_event, **inside
        )
        self._send(message.task, made, outside)

    def revoke(self, task_id: str, *, terminate: bool) -> None:
        """Raises BackendError."""
        with self._connection() as connection:
            self._app.control.revoke(task_id, terminate=terminate, connection=connection)

    def close(self) -> None:
        """Close what is open; the next one who needs a connection opens another."""
        pool = self._pool.forget()
        if pool is not None:
            pool.force_close_all()

    def _send(self, task: str, message: Any, options: dict[str, Any]) -> None:
        amqp = self._app.amqp
        with self._connection() as connection, amqp.Producer(connection, auto_declare=False) as producer:
            amqp.send_task_message(
                producer, task, message, retry=True, retry_policy=_RETRY, timeout=self._timeout, **options
            )

    @property
    def lower_is_sooner(self) -> bool:
        """Whether priority 0 is the first one. It is with Redis, and the last one with AMQP."""
        return bool(self._pool.get().connection.transport.driver_type == "redis")

    def _queue(self, name: str) -> Any:
        try:
            return self._app.amqp.queues[name]
        except KeyError:
            raise BackendError(
                f"Celery has no queue {name!r}: it is not in task_queues, and task_create_missing_queues is off."
            ) from None

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        errors = self._errors()
        try:
            with self._pool.get().acquire(block=True, timeout=self._timeout) as connection:
                try:
                    yield connection
                except errors:
                    # What is left of it must not meet the next one who borrows it.
                    connection.collect(socket_timeout=self._timeout)
                    raise
        except errors as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise BackendError(f"The broker cannot be reached: {words}.") from error

    def _errors(self) -> tuple[type[BaseException], ...]:
        """Celery's, and those of the transport's own library."""
        lent = self._pool.get().connection
        return (KombuError, OperationalError, OSError, *lent.connection_errors, *lent.channel_errors)

    def _make(self) -> Any:
        timeouts = _timeouts(self._timeout)
        connection = self._app.connection_for_write(
            connect_timeout=self._timeout, transport_options={**timeouts, **_RETRY}
        )
        return connection.Pool(self._limit)


def _timeouts(seconds: float) -> dict[str, Any]:
    """Each transport takes its own and leaves the others alone."""
    redis = {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry_on_timeout": False}
    amqp = {"read_timeout": seconds, "write_timeout": seconds, "confirm_publish": True}
    return {**redis, **amqp, "connect_retries_timeout": seconds}
