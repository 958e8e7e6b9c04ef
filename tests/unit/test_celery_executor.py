"""What the Celery executor publishes, where to, and what it says when nobody listens."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from kombu.transport.memory import Channel

from spine_migrate.execution import BackendError, RunRecord, RunStatus, SyncDispatcher, WorkSpec
from spine_migrate.execution.executors.celery import TASK, CeleryExecutor
from spine_migrate.execution.executors.celery_message import TaskMessage


@pytest.fixture
def app() -> Iterator[Celery]:
    # The queues are the process's: what other tests have left in them is no message of these.
    Channel.queues.clear()
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


EXACT = {"z": 1, "a": 1e300, "minus": -0.0, "day": date(2026, 2, 28), "share": Decimal("0.10"), "nul": "a\0b"}


def stored_in_jsonb(message: TaskMessage) -> RunRecord:
    """As PostgreSQL gives it back, which sorts keys."""
    text = json.dumps(message.to_stored(), sort_keys=True)
    return RunRecord(WorkSpec("task", "work", priority="slow"), message=json.loads(text))


def test_a_stored_message_is_published_as_the_one_it_is(app: Celery) -> None:
    """Under its own id, which is no uuid; the run's lane and priority are not asked."""
    part = {**app.signature("tests.part"), "args": [EXACT]}
    options = {
        "queue": "their-queue", "priority": 3, "headers": {"tenant": "x"}, "link": [part], "link_error": [part],
        "chain": [part], "chord": part, "group_id": "g", "group_index": 2, "root_id": "r", "parent_id": "p",
        "retries": 4, "expires": "2030-01-01T00:00:00+00:00", "time_limit": 9, "soft_time_limit": 8, "shadow": "s",
        "ignore_result": True, "reply_to": "q", "origin": "gen@host", "argsrepr": "hidden",
        "stamped_headers": ["stamp"], "stamp": ["value"], "replaced_task_nesting": 1,
    }  # fmt: skip
    made = stored_in_jsonb(TaskMessage("their.task", "id of theirs", (EXACT, (1, 2)), EXACT, options))
    assert CeleryExecutor(app).submit(made) == "id of theirs"
    message = received(app, "their-queue")
    expected = {
        "task": "their.task", "id": "id of theirs", "spine_run": made.run_id, "spine_attempt": 1, "tenant": "x",
        "group": "g",
        "group_index": 2, "root_id": "r", "parent_id": "p", "retries": 4, "timelimit": [9, 8], "shadow": "s",
        "expires": "2030-01-01T00:00:00+00:00", "eta": None, "ignore_result": True, "origin": "gen@host",
        "argsrepr": "hidden", "stamps": {"stamp": ["value"]}, "stamped_headers": ["stamp"], "replaced_task_nesting": 1,
    }  # fmt: skip
    assert {name: message.headers[name] for name in expected} == expected
    args, kwargs, embedded = message.payload
    assert repr((args, kwargs)) == repr(([EXACT, [1, 2]], EXACT))
    assert embedded == {"callbacks": [part], "errbacks": [part], "chain": [part], "chord": part}
    assert {name: message.properties[name] for name in ("correlation_id", "reply_to", "priority")} == {
        "correlation_id": "id of theirs",
        "reply_to": "q",
        "priority": 3,
    }
    assert "expiration" not in message.properties


def test_a_message_without_a_queue_goes_where_the_application_has_its_tasks(app: Celery) -> None:
    CeleryExecutor(app).submit(stored_in_jsonb(TaskMessage("their.task", "an id")))
    assert received(app, "celery").headers["id"] == "an id"


def test_a_run_that_retries_another_is_a_task_of_its_own(app: Celery) -> None:
    """The first one's result is final, and workers that were told to refuse its id still do."""
    made = stored_in_jsonb(TaskMessage("their.task", "an id"))
    again = replace(made, run_id=str(uuid4()), retry_of_run_id=made.run_id)
    assert CeleryExecutor(app).submit(again) == again.run_id
    headers = received(app, "celery").headers
    assert (headers["id"], headers["spine_run"]) == (again.run_id, again.run_id)


def test_a_run_of_the_future_is_not_published(app: Celery) -> None:
    executor = CeleryExecutor(app)
    dispatcher = SyncDispatcher(executor)
    with app.connection_for_read() as connection, closing(connection.SimpleQueue("default")) as simple:
        # Queues in memory belong to the process, so other tests may have left messages.
        simple.clear()
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
