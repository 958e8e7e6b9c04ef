"""Messages of old tasks that no shim has sent, through a real worker that has the shims, in both modes.

The first two lines of each test's docstring are its row in shims/BEHAVIOUR.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from celery.result import AsyncResult

from tests.celery_worker import REPOSITORY, until
from tests.shims_place import Site
from tests.shims_tasks import QUIET

pytestmark = pytest.mark.filterwarnings(QUIET)


def send(site: Site, name: str, *args: Any, **options: Any) -> Any:
    """As a producer that has no tasks."""
    return site.app.send_task(f"{site.mode}.{name}", args, **options)


OLD_PRODUCER = """
import os
from celery import Celery, chord, group
mode = {mode!r}
app = Celery(broker=os.environ["SPINE_TEST_BROKER_URL"], backend=os.environ["SPINE_TEST_RESULT_URL"])
app.conf.task_default_queue = os.environ["SPINE_TEST_PREFIX"] + "celery"
@app.task(name=mode + ".add")
def add(x, y=1):
    raise AssertionError("A producer executes nothing.")
print(({call}).id)
"""


def sent_by_an_old_producer(site: Site, call: str) -> AsyncResult:
    """In a process of its own, whose tasks have the same names and are no shims."""
    ended = subprocess.run(
        [sys.executable, "-c", OLD_PRODUCER.format(mode=site.mode, call=call)],
        env=site.place.environment(), check=True, capture_output=True, text=True,
    )  # fmt: skip
    return site.app.AsyncResult(ended.stdout.strip())


def test_send_task(site: Site) -> None:
    """Behaviour: `send_task` sends a task by its name, from a process that does not have it.
    Kept by: the worker adopts it: a run under the task's id, when it is executed.
    """
    result = send(site, "add", 2, 3)
    assert site.get(result) == 5
    run = site.run(result)
    if run is not None:
        assert (run.spec.params, run.spec.trigger_source, run.result) == ({"x": 2, "y": 3}, "message", 5)
        assert site.events(result) == ["created", "started", "completed"]


def test_a_message_of_an_old_producer(site: Site) -> None:
    """Behaviour: a producer that still has the old version sends its tasks.
    Kept by: the worker adopts them, with their links.
    """
    link = 'app.signature(mode + ".plain", args=("linked",))'
    result = sent_by_an_old_producer(site, f"add.apply_async((1,), link={link})")
    assert site.get(result) == 2
    until(lambda: site.noted("plain"), "The link is not called", site.worker)
    assert site.noted("plain") == [("plain", [2, "linked"])]
    run = site.run(result)
    assert run is None or run.message is not None


def test_a_chord_of_an_old_producer(site: Site) -> None:
    """Behaviour: a chord that was sent before the deploy comes to its body.
    Kept by: the worker adopts each message; they keep the chord.
    """
    header = "group(add.s(n) for n in range(3))"
    result = sent_by_an_old_producer(site, f'chord({header})(app.signature(mode + ".echo"))')
    assert site.get(result) == [[[1, 2, 3]], {}]
    if site.dispatches:
        until(lambda: [run.status for run in site.runs_of("add")] == ["completed"] * 3, "No end", site.worker)


def test_another_language(site: Site) -> None:
    """Behaviour: a message is written by hand, in Celery's protocol, as other languages do it.
    Kept by: the worker adopts it.
    """
    task_id = str(uuid4())
    headers = {"lang": "go", "task": f"{site.mode}.add", "id": task_id, "root_id": task_id}
    body = json.dumps([[2, 3], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}])
    # RabbitMQ drops what is sent to a queue that nobody has declared yet.
    site.get(send(site, "echo"))
    with site.app.connection_for_write() as connection, site.app.amqp.Producer(connection) as producer:
        producer.publish(
            body, routing_key=f"{site.place.prefix}celery", exchange="", headers=headers, correlation_id=task_id,
            content_type="application/json", content_encoding="utf-8", serializer=None,
        )  # fmt: skip
    assert site.get(site.app.AsyncResult(task_id)) == 5
    site.run(task_id)


def test_a_message_that_is_delivered_again(site: Site) -> None:
    """Behaviour: a message that the broker delivers again, since nobody acknowledged it, is executed again.
    Kept by: the second delivery finds the run of the first, and is ignored.
    """
    result = send(site, "add", 1)
    assert site.get(result) == 2
    site.run(result)
    headers = {"lang": "py", "task": f"{site.mode}.add", "id": result.id, "root_id": result.id}
    with site.app.connection_for_write() as connection, site.app.amqp.Producer(connection) as producer:
        producer.publish(
            [[1], {}, {}], routing_key=f"{site.place.prefix}celery", exchange="", headers=headers,
            correlation_id=result.id, serializer="json", delivery_info={"redelivered": True},
        )  # fmt: skip
    if site.dispatches:
        site.deliveries(result, 1)
    until(lambda: site.dispatches or len(site.noted("add")) == 2, "It is not executed again", site.worker)
    assert len(site.noted("add")) == (1 if site.dispatches else 2)


def test_a_retry_of_a_message(site: Site) -> None:
    """Behaviour: a task that was sent before the deploy retries itself.
    Kept by: another attempt of the run that adopted it.
    """
    result = send(site, "again", 2)
    assert site.get(result) == [2, True]
    run = site.run(result)
    assert run is None or run.attempt == 3


def test_arguments_that_do_not_fit(site: Site) -> None:
    """Behaviour: a message whose arguments do not fit the task fails with TypeError.
    Kept by: the old body is called, and says so; the run failed, and has no params.
    """
    result = send(site, "add", 1, 2, 3, 4)
    with pytest.raises(TypeError):
        site.get(result)
    run = site.run(result, "failed")
    if run is not None:
        assert (run.spec.params, run.spec.metadata["params_not_stored"]) == ({}, "the arguments do not fit the task")


def test_a_callers_transaction(site: Site) -> None:
    """Behaviour: a task is sent before the caller's transaction is committed, and even if it is not.
    Kept by: with `connection=`, psycopg's, the call is part of the transaction.
    """
    with psycopg.connect(site.place.url) as connection:
        lost = site.tasks.add.apply_async((1,), connection=connection)
        connection.rollback()
        kept = site.tasks.add.apply_async((2,), connection=connection)
        assert site.runs(kept.id) == []
        connection.commit()
    assert site.get(kept) == 3
    site.run(kept)
    assert site.runs(lost.id) == []


def test_beat(site: Site, tmp_path: Path) -> None:
    """Behaviour: a beat entry names an old task, and beat sends it.
    Kept by: beat's producer is not needed: the run is stored, with the source `beat`.
    """
    words = ["--schedule", str(tmp_path / "schedule"), "--pidfile", "", "--max-interval", "1"]
    beat = subprocess.Popen(
        [sys.executable, "-m", "celery", "--app", "tests.shims_app", "beat", *words],
        cwd=REPOSITORY,
        env={**site.place.environment(), "SPINE_TEST_BEAT": site.mode},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: ("legacy", site.mode) in site.noted("echo"), "Beat sends nothing", site.worker)
    finally:
        # On SIGTERM it closes its connection in the signal's handler, and waits for itself where it is just sending.
        beat.kill()
        beat.wait()
    if site.dispatches:
        until(lambda: {run.status for run in site.runs_of("echo")} == {"completed"}, "No end", site.worker)
        assert {run.spec.trigger_source for run in site.runs_of("echo")} == {"beat"}
        assert site.runs_of("echo")[0].spec.params == {"args": ["beat", "dispatch"]}
