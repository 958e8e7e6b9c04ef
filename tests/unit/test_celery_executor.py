"""What the Celery executor publishes, where to, and what it says when nobody listens."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from celery import Celery

from spine_migrate.execution import BackendError, RunRecord, RunStatus, SyncDispatcher, WorkSpec
from spine_migrate.execution.executors.celery import TASK, CeleryExecutor


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery(broker="memory://", backend="cache+memory://", set_as_current=False) as made:
        yield made


def run(**fields: Any) -> RunRecord:
    return RunRecord(WorkSpec("task", "work", **fields))


def received(app: Celery, queue: str) -> Any:
    with app.connection_for_read() as connection, closing(connection.SimpleQueue(queue)) as simple:
        return simple.get_nowait()


@pytest.mark.parametrize(
    ("priority", "queue", "number"),
    [
        ("realtime", "realtime", 9),
        ("high", "high", 7),
        ("normal", "default", 5),
        ("low", "low", 3),
        ("slow", "slow", 1),
    ],
)
def test_the_queue_of_a_priority(app: Celery, priority: str, queue: str, number: int) -> None:
    assert CeleryExecutor(app).route(run(priority=priority)) == (queue, number)


@pytest.mark.parametrize(
    ("lane", "queue"), [("background", "background"), ("feeds", "q-feeds"), ("default", "high"), ("unmapped", "high")]
)
def test_the_queue_of_a_lane_comes_before_that_of_a_priority(app: Celery, lane: str, queue: str) -> None:
    executor = CeleryExecutor(app, {"feeds": "q-feeds"})
    assert executor.route(run(lane=lane, priority="high")) == (queue, 7)


def test_a_message_is_the_run_id_and_nothing_else(app: Celery) -> None:
    """No params, which may be large or secret; no time at which the broker would keep it back or throw it away."""
    made = run(params={"secret": "x"}, lane="background", priority="high")
    assert CeleryExecutor(app).submit(made) == made.run_id
    message = received(app, "background")
    assert message.headers["task"] == TASK
    assert message.headers["id"] == made.run_id
    assert (message.headers["eta"], message.headers["expires"]) == (None, None)
    assert message.payload[:2] == [[made.run_id], {}]
    assert message.properties["priority"] == 7


def test_a_run_of_the_future_is_not_published(app: Celery) -> None:
    executor = CeleryExecutor(app)
    dispatcher = SyncDispatcher(executor)
    run_id = dispatcher.submit_task("work", due_at=datetime.now(UTC) + timedelta(days=1))
    stored = dispatcher.get_run(run_id)
    assert stored is not None
    assert stored.status is RunStatus.PENDING
    with app.connection_for_read() as connection, closing(connection.SimpleQueue("default")) as simple:
        assert simple.qsize() == 0


@pytest.fixture
def silent() -> Iterator[int]:
    """A port where connections are taken and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.timeout(60)
@pytest.mark.parametrize("scheme", ["redis", "amqp"])
@pytest.mark.parametrize("port", ["silent", "closed"])
def test_a_broker_that_is_down_is_an_error_and_no_hang(request: pytest.FixtureRequest, scheme: str, port: str) -> None:
    """Celery's own producer waits for ever for both (celery #4296, #6911): the test's time limit would end it."""
    app = Celery(broker=f"{scheme}://127.0.0.1:{request.getfixturevalue(port)}//", set_as_current=False)
    executor = CeleryExecutor(app, publish_timeout_seconds=0.2)
    for _ in range(2):
        with pytest.raises(BackendError, match="broker cannot be reached"):
            executor.submit(run())
    assert executor.cancel("some-id") is False
    executor.close()


@pytest.mark.timeout(60)
def test_a_submit_outlives_a_broker_that_is_down(closed: int) -> None:
    """The run stays, pending and with the reason, for the relay."""
    app = Celery(broker=f"redis://127.0.0.1:{closed}/0", set_as_current=False)
    dispatcher = SyncDispatcher(CeleryExecutor(app, publish_timeout_seconds=0.2))
    run_id = dispatcher.submit_task("work")
    stored = dispatcher.get_run(run_id)
    assert stored is not None
    assert stored.status is RunStatus.PENDING
    assert "Connection refused" in dispatcher.get_events(run_id)[-1].data["publishing"]


def test_a_queue_that_celery_does_not_know_is_named(app: Celery) -> None:
    app.conf.task_create_missing_queues = False
    with pytest.raises(BackendError, match="no queue 'slow'"):
        CeleryExecutor(app).submit(run(priority="slow"))


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("STARTED", RunStatus.RUNNING),
        ("RETRY", RunStatus.PENDING),
        ("SUCCESS", RunStatus.COMPLETED),
        ("FAILURE", RunStatus.FAILED),
        ("REVOKED", RunStatus.CANCELLED),
        ("SOMETHING_OF_THEIRS", None),
    ],
)
def test_the_status_by_the_result_backend(app: Celery, state: str, status: RunStatus | None) -> None:
    result = ValueError("no") if state in {"RETRY", "FAILURE", "REVOKED"} else 1
    app.backend.store_result(f"id-{state}", result, state)
    assert CeleryExecutor(app).get_status(f"id-{state}") is status


def test_the_status_of_what_nobody_knows(app: Celery) -> None:
    assert CeleryExecutor(app).get_status("another-id") is None
    assert CeleryExecutor(Celery(broker="memory://", set_as_current=False)).get_status("an-id") is None


def test_without_celery_the_extra_is_named() -> None:
    without = "import sys; sys.modules['celery'] = sys.modules['kombu'] = None; import {}"
    module = "spine_migrate.execution.executors.celery"
    ended = subprocess.run([sys.executable, "-c", without.format(module)], check=False, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "pip install 'spine-migrate[celery]'" in ended.stderr.splitlines()[-1]
