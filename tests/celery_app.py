"""The Celery application of the tests, as a worker process loads it: ``celery --app tests.celery_app worker``.

SPINE_TEST_BROKER_URL, SPINE_TEST_RESULT_URL and SPINE_DATABASE_URL say where, SPINE_TEST_LEASE is in seconds. Handlers
write down each execution of theirs in the table ``executed`` of tests/celery_worker.py.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from celery import Celery, signals
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from spine_migrate.execution import HandlerRegistry, RunRecord, TaskContext
from spine_migrate.execution.executors.celery import LANES, TASK, CeleryExecutor
from spine_migrate.execution.executors.celery_beat import register_relay
from spine_migrate.execution.executors.celery_worker import register
from spine_migrate.execution.guards.postgres import PostgresGuard
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.relay import Relay
from spine_migrate.execution.worker import RunCancelled
from tests import handlers as contract
from tests.asking import ask

DIE = "die"
_URL = os.environ["SPINE_DATABASE_URL"]
_PREFIX = os.environ["SPINE_TEST_PREFIX"]

app = Celery("spine-tests", broker=os.environ["SPINE_TEST_BROKER_URL"], backend=os.environ["SPINE_TEST_RESULT_URL"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_connection_retry=True,
    worker_prefetch_multiplier=1,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    task_default_queue=f"{_PREFIX}celery",
    # A chord's body is looked for as often as that.
    result_chord_retry_interval=0.1,
)
# The executors' contract has handlers of its own.
registry = contract.registry if "SPINE_TEST_CONTRACT" in os.environ else HandlerRegistry()


def _note(context: TaskContext) -> None:
    ask(
        _URL,
        "INSERT INTO executed (run_id, attempt, pid) VALUES (%s, %s, %s)",
        (context.run_id, context.attempt, os.getpid()),
    )


def quick(params: dict[str, Any], context: TaskContext) -> Any:
    _note(context)
    return {"got": params}


def slow(params: dict[str, Any], context: TaskContext) -> Any:
    """Works for ``seconds``, unless it is asked to stop."""
    _note(context)
    if context.cancelled.wait(params["seconds"]):
        raise RunCancelled("asked to stop")
    return params["seconds"]


def deaf(params: dict[str, Any], context: TaskContext) -> None:
    """Works for ``seconds``, whatever is asked."""
    _note(context)
    time.sleep(params["seconds"])


def meets(params: dict[str, Any], context: TaskContext) -> None:
    """Works until ``others`` are at work beside it, as files in ``folder`` say."""
    _note(context)
    folder = Path(params["folder"])
    (folder / context.run_id).touch()
    while len(list(folder.iterdir())) <= params["others"]:
        if context.cancelled.wait(0.01):
            raise RunCancelled("asked to stop")


def fails(params: dict[str, Any], context: TaskContext) -> None:
    """In the first ``times`` attempts."""
    _note(context)
    if context.attempt <= params["times"]:
        raise ValueError(f"attempt {context.attempt} fails")


def dies(params: dict[str, Any], context: TaskContext) -> None:
    """In the first ``times`` attempts, as kill -9 lets it."""
    _note(context)
    if context.attempt <= params["times"]:
        os.kill(os.getpid(), signal.SIGKILL)


def dies_before_the_mark(params: dict[str, Any], context: TaskContext) -> str:
    """In the first ``times`` attempts, once the handler has ended and what comes next is published."""
    _note(context)
    return DIE if context.attempt <= params["times"] else "done"


def fenced(_: dict[str, Any], context: TaskContext) -> int | None:
    _note(context)
    return context.entity_fence


if registry is not contract.registry:
    for handler in (quick, slow, meets, deaf, fails, dies, dies_before_the_mark, fenced):
        registry.register("task", handler.__name__, handler)


class DyingLedger(PostgresLedger):
    def complete(self, run_id: str, result: Any, *, fence: int | None = None, attempt: int | None = None) -> RunRecord:
        if result == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().complete(run_id, result, fence=fence, attempt=attempt)


def ledger() -> DyingLedger:
    return DyingLedger(ConnectionPool(_URL, min_size=1, max_size=2, open=True))


def guard() -> PostgresGuard:
    return PostgresGuard(ConnectionPool(_URL, min_size=1, max_size=2, open=True))


register(
    app,
    ledger=ledger,
    guard=guard,
    registry=registry,
    lease_seconds=float(os.environ.get("SPINE_TEST_LEASE", "2")),
)


executor = CeleryExecutor(app, {lane: f"{_PREFIX}{lane}" for lane in ("default", *LANES)}, publish_timeout_seconds=30)
register_relay(app, lambda: Relay(ledger(), executor), every_seconds=0.5)


@app.task(name="tests.continuation")  # type: ignore[untyped-decorator]  # Celery has no types
def continuation(given: Any) -> None:
    ask(_URL, "INSERT INTO continued VALUES ('continuation', %s, NULL)", (Jsonb(given),))


@app.task(name="tests.errback")  # type: ignore[untyped-decorator]  # as above
def errback(request: Any, error: Any, _traceback: Any) -> None:
    """Celery calls one with three parameters itself, where the task failed, and does not publish it."""
    ask(
        _URL,
        "INSERT INTO continued SELECT 'errback', %s, status FROM runs WHERE run_id = %s",
        (Jsonb(str(error)), request.id),
    )


@signals.after_task_publish.connect  # type: ignore[untyped-decorator]  # as above
def _published(sender: str, headers: dict[str, Any], **_: Any) -> None:
    """In the worker: what the parent run is, at the moment when what comes after it is published."""
    if sender == TASK or headers.get("parent_id") is None:
        return
    ask(
        _URL,
        "INSERT INTO continued SELECT 'published', NULL, status FROM runs WHERE run_id = %s",
        (headers["parent_id"],),
    )
