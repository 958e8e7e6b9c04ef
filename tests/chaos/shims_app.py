"""Old tasks as shims, as producers and workers of tests/chaos/test_shims.py load them.

Bodies write down their begin and their end in the table ``body``, which is in a database of its own: the ledger's is
taken away from everybody now and then. A body dies by itself, in its first execution, where its argument says so.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import psycopg
from celery import Celery

from spine_migrate.execution import RunRecord
from spine_migrate.execution.executors.celery import CeleryExecutor
from spine_migrate.execution.ledgers import postgres
from spine_shims import RerouteTask, configuration, configure, reroute
from spine_shims.executing import ON_REQUEST

#: So often that no run is given up for having met too many kills.
RETRIES = 50

_doomed = False


class DyingLedger(postgres.PostgresLedger):
    """Of a process that dies once a body has ended, what comes next is published, and the run is not marked; or once
    the next attempt that the body asks for is, and Celery's main process has not heard of it.
    """

    def complete(self, run_id: str, result: Any, *, fence: int | None = None, attempt: int | None = None) -> RunRecord:
        if _doomed:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().complete(run_id, result, fence=fence, attempt=attempt)

    def try_again(self, run_id: str, error: str, error_type: str | None, **options: Any) -> RunRecord:
        marked = super().try_again(run_id, error, error_type, **options)
        if _doomed:
            os.kill(os.getpid(), signal.SIGKILL)
        return marked


app = Celery("chaos", broker=os.environ["SPINE_TEST_BROKER_URL"], backend=os.environ["SPINE_TEST_RESULT_URL"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    task_default_queue=f"{os.environ['SPINE_TEST_PREFIX']}celery",
    result_chord_retry_interval=0.1,
    # By which Celery 5.7 reckons for how long a process keeps a chord's callback to itself, be it dead or alive: six
    # seconds are the least. A task that is executed again sooner finds it taken, and nobody comes after it.
    broker_connection_timeout=1.0,
    # What a worker had fetched that was killed is delivered again after so many seconds.
    broker_transport_options={"visibility_timeout": 4},
)
executor = CeleryExecutor(app)
postgres.PostgresLedger = DyingLedger  # type: ignore[misc]  # for whoever makes one by URL
# Else an outage would have to be longer than a test has time for.
configuration._PATIENCE = 0.3  # noqa: SLF001
configure(
    os.environ["SPINE_DATABASE_URL"],
    fallback=os.environ["SPINE_TEST_FALLBACK"],
    lease_seconds=float(os.environ["SPINE_TEST_LEASE"]),
    workers_first=False,
)
RerouteTask.adopt_again_seconds = 0.5


def shim(name: str, **options: Any) -> Any:
    given = {"lost_worker_retries": RETRIES, **options}
    return reroute(name, app=app, name=f"chaos.{name}", bind=True, **given)


def notes() -> psycopg.Connection[Any]:
    return psycopg.connect(os.environ["SPINE_TEST_NOTES_URL"], autocommit=True)


def _body(task: Any, seconds: float, dies: str = "") -> None:
    global _doomed  # noqa: PLW0603 - of a process that is about to die
    request = task.request
    execution = getattr(request, ON_REQUEST, None)
    attempt = None if execution is None else execution.attempt.claim.run.attempt
    with notes() as connection:
        found = connection.execute(
            "INSERT INTO body (task, task_id, attempt, retries, pid) VALUES (%s, %s, %s, %s, %s)"
            " RETURNING id, (SELECT count(*) FROM body b WHERE b.task_id = body.task_id)",
            (task.name.removeprefix("chaos."), request.id, attempt, request.retries, os.getpid()),
        ).fetchone()
        assert found is not None
        number, before = found
        time.sleep(seconds)
        if dies == "in the body" and before == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        connection.execute("UPDATE body SET ended = clock_timestamp() WHERE id = %s", (number,))
        _doomed = dies == "before the mark" and before == 0


@shim("work", acks_late=True)  # type: ignore[untyped-decorator]  # Celery has no types
def work(self: Any, seconds: float, dies: str = "") -> float:
    _body(self, seconds, dies)
    return seconds


@shim("once", lost_worker_retries=0)  # type: ignore[untyped-decorator]  # as above
def once(self: Any, seconds: float, dies: str = "") -> float:
    """Not to be executed twice, whatever happens."""
    _body(self, seconds, dies)
    return seconds


@shim("retried", lost_worker_retries=0, max_retries=None)  # type: ignore[untyped-decorator]  # as above
def retried(self: Any, seconds: float, dies: str = "") -> int:
    """Once, and the second time slowly enough for everybody to hear of the end of the first."""
    _body(self, max(seconds, 2.0 * self.request.retries), dies)
    if not self.request.retries:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@shim("again", acks_late=True, max_retries=None)  # type: ignore[untyped-decorator]  # as above
def again(self: Any, times: int, seconds: float, dies: str = "") -> int:
    _body(self, seconds, dies)
    if self.request.retries < times:
        raise self.retry(countdown=0)
    return int(self.request.retries)


@shim("step", acks_late=True)  # type: ignore[untyped-decorator]  # as above
def step(self: Any, before: int, seconds: float, dies: str = "") -> int:
    _body(self, seconds, dies)
    return before + 1


@shim("total", acks_late=True)  # type: ignore[untyped-decorator]  # as above
def total(self: Any, given: list[int], seconds: float = 0.0) -> int:
    _body(self, seconds)
    return sum(given)
