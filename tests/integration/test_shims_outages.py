"""What becomes of calls and messages while the database is away, and of runs whose worker is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from celery import chain
from celery.exceptions import WorkerLostError
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.errors import ConfigurationError
from spine_migrate.execution import BackendError, HandlerRegistry, OrchestrationError, RunRecord, SyncDispatcher
from spine_migrate.execution.executors.celery import CeleryExecutor
from spine_migrate.execution.executors.celery_message import TaskMessage
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.ledgers.protocol import Delivery
from spine_shims import configure
from spine_shims.configuration import _pool
from spine_shims.message import stored
from tests.asking import ask
from tests.celery_worker import CeleryWorker, Place, until
from tests.conftest import StartServer
from tests.database import Database, patient
from tests.patience import have_patience
from tests.shims_place import Producer, Site, producing, relay_of
from tests.shims_tasks import QUIET, TABLE, handlers

pytestmark = pytest.mark.filterwarnings(QUIET)

#: Nobody listens there.
NOWHERE = "postgresql://nobody@127.0.0.1:9/none?connect_timeout=1"

dispatch = pytest.mark.parametrize("site", ["dispatch"], indirect=True)


@contextmanager
def ledger_away(site: Site, **options: Any) -> Iterator[None]:
    """For this process; the worker's is there."""
    registry = HandlerRegistry()
    handlers(registry)
    with ConnectionPool(NOWHERE, min_size=0, max_size=1, timeout=0.2) as pool:
        executor = site.dispatcher.executor
        configure(SyncDispatcher(executor, PostgresLedger(pool), registry, publish=False), **options)
        yield


@dispatch
def test_a_call_without_a_database_fails(site: Site) -> None:
    """At once, with one sentence; nothing is published."""
    with ledger_away(site), pytest.raises(BackendError, match="ledger cannot be reached"):
        site.tasks.echo.delay(1)
    with ledger_away(site), pytest.raises(BackendError):
        site.tasks.echo(1)
    site.get(site.tasks.plain.delay())
    assert site.noted("echo") == []


@dispatch
def test_a_call_without_a_database_falls_back(site: Site) -> None:
    """The message is the plain old one, which the worker, who has a database, adopts."""
    with ledger_away(site, fallback="legacy"):
        result = site.tasks.echo.delay(1)
        assert site.get(result) == [[1], {}]
        assert site.tasks.echo(2) == [[2], {}]
    run = site.run(result)
    assert run is not None
    assert run.spec.trigger_source == "message"
    assert len(site.runs_of("echo")) == 1


@dispatch
def test_the_kill_switch_needs_no_database(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here; in the worker, whose switch is not thrown, the message is adopted."""
    monkeypatch.setenv("SPINE_SHIM_MODE", "dispatch.add=legacy")
    with ledger_away(site):
        assert site.tasks.add(2, 3) == 5
        assert site.get(site.tasks.add.delay(2, 3)) == 5
    assert [body for body, _ in site.noted("add")] == ["legacy", "handler"]


@dispatch
def test_a_broker_that_is_away_at_the_call(site: Site, shimmed: Producer) -> None:
    """Published directly or not: the run is stored, and the caller has its AsyncResult; the relay publishes it."""
    with Place("", "redis://127.0.0.1:9/0", shimmed.place.results).app() as nowhere:
        executor = CeleryExecutor(nowhere, publish_timeout_seconds=0.2)
        configure(SyncDispatcher(executor, site.dispatcher.ledger, site.dispatcher.registry, publish=True))
        result = site.tasks.add.delay(1)
        (run,) = site.runs(result.id)
        assert "publishing" in site.dispatcher.get_events(run.run_id)[-1].data
        site.place.rows("UPDATE run_handoff SET next_at = now() RETURNING 1")
        assert site.get(result) == 2
        executor.close()


def lost(site: Site, name: str) -> int:
    """The process that executes the task, killed."""
    found = site.place.rows("SELECT pid FROM shim_executed WHERE task = %s", name)
    os.kill(found[-1][0], signal.SIGKILL)
    return int(found[-1][0])


@dispatch
def test_a_lost_worker_of_a_task_that_acknowledges_early(site: Site) -> None:
    """It is not known how far it came, and it was not to be executed twice: Celery's failure, and a dead letter."""
    result = site.tasks.sleep.delay(60)
    until(lambda: site.noted("sleep"), "It does not start", site.worker)
    lost(site, "sleep")
    with pytest.raises(WorkerLostError):
        site.get(result)
    run = site.run(result, "dead_lettered")
    assert run is not None
    assert run.error_type == "WorkerLostError"
    assert len(site.noted("sleep")) == 1


@dispatch
def test_a_lost_worker_of_a_task_that_acknowledges_late(site: Site) -> None:
    """Its lease runs out, and the relay has it executed again; whoever waits gets the result."""
    result = site.tasks.late.delay(60)
    until(lambda: site.noted("late"), "It does not start", site.worker)
    lost(site, "late")
    site.lease_is_over(result)
    assert site.get(result) == 1
    run = site.run(result)
    assert run is not None
    assert run.attempt == 2
    assert len(site.noted("late")) == 2


@dispatch
def test_what_comes_next_cannot_be_sent(site: Site) -> None:
    """JSON has no such number, so the next call is refused: Celery's result is that failure, and the run has failed."""
    result = site.tasks.nothing.apply_async(link=site.tasks.echo.s())
    with pytest.raises(OrchestrationError, match="cannot be written as JSON"):
        site.get(result)
    run = site.run(result, "failed")
    assert run is not None
    assert run.error is not None
    assert "what comes next was not sent" in run.error
    assert run.error_type == "InvalidSpecError"
    assert len(site.noted("nothing")) == 1
    assert site.noted("echo") == []


@dispatch
def test_what_comes_next_is_sent_again(site: Site) -> None:
    """As an old message, by a parent that is executed again while the database is away: it is known by its parent."""
    result = site.tasks.add.apply_async((1,), link=site.tasks.echo.s("next"))
    parent = site.run(result)
    until(lambda: site.runs_of("echo") and site.runs_of("echo")[0].status == "completed", "No link", site.worker)
    (link,) = site.runs_of("echo")
    assert parent is not None
    assert link.spec.parent_run_id == parent.run_id
    headers = {"spine_parent": parent.run_id}
    site.app.send_task(site.tasks.echo.name, (2, "next"), task_id=link.run_id, headers=headers)
    other = site.app.send_task(site.tasks.echo.name, (3, "other"), task_id=f"{link.run_id[:-4]}beef", headers=headers)
    run = site.run(other)
    assert run is not None
    assert run.spec.parent_run_id == parent.run_id
    assert len(site.runs_of("echo")) == 2
    assert len(site.noted("echo")) == 2


@dispatch
def test_a_parent_that_the_database_has_lost(site: Site) -> None:
    """It came back without what it had last: what comes next is executed all the same."""
    lost_parent = str(uuid4())
    result = site.app.send_task(site.tasks.echo.name, (1,), headers={"spine_parent": lost_parent})
    assert site.get(result) == [[1], {}]
    run = site.run(result)
    assert run is not None
    assert (run.spec.parent_run_id, run.spec.metadata["lost_parent"]) == (None, lost_parent)


@dispatch
def test_a_direct_call_whose_caller_is_gone(site: Site) -> None:
    """Between storing its run and claiming it: nobody waits for it, and it is not executed later, unless somebody says
    so.
    """
    run_id, task = str(uuid4()), site.tasks.add
    spec = task.run_spec((1,), {}, queue=None, urgency=None, trigger_source="call", metadata={"celery_task": task.name})
    message = stored(TaskMessage(task.name, run_id, (1,)))
    site.dispatcher.ledger.create(RunRecord(spec, run_id=run_id), Delivery(message=message))
    site.run(run_id, "cancelled")
    assert site.noted("add") == []
    again = site.dispatcher.retry(run_id)
    until(lambda: [run.status for run in site.runs(again)] == ["completed"], "It is not executed", site.worker)


@dispatch
def test_an_id_that_the_ledger_has_no_room_for(site: Site) -> None:
    """Celery has: what is called, or sent by name, under such an id is executed, and told under it."""
    for number, call in enumerate((site.tasks.add.apply_async, partial(site.app.send_task, site.tasks.add.name))):
        result = call((1,), task_id=f"{number}" * 300)
        assert site.get(result) == 2
        site.run(result)


@dispatch
def test_sessions_that_the_server_has_ended(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when it was restarted, or a pooler was: a call finds out before it is made, and does not fail."""
    have_patience(monkeypatch)
    with _pool(patient(site.place.url)) as pool:
        dispatcher = site.dispatcher
        configure(SyncDispatcher(dispatcher.executor, PostgresLedger(pool), dispatcher.registry, publish=False))
        for _ in range(3):
            assert site.get(site.tasks.add.delay(1)) == 2
            site.place.rows(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )


def test_a_host_that_has_vanished_is_given_up(database: Database) -> None:
    """Unless the URL says for how long: the kernel would wait for a quarter of an hour."""
    told = f"{database.url}{'&' if '?' in database.url else '?'}tcp_user_timeout=77"
    for url, seconds in ((database.url, "10000"), (told, "77")):
        with _pool(url) as pool, pool.connection() as connection:
            assert connection.info.get_parameters()["tcp_user_timeout"] == seconds


def test_a_url_that_cannot_be_read_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="none that libpq knows") as raised:
        _pool("host=here secret")
    assert "secret" not in str(raised.value)


@pytest.fixture
def apart(database: Database, redis_url: str, start_server: StartServer) -> tuple[Place, Any]:
    """A ledger on a server that can be stopped; what bodies write down is in another database."""
    server = start_server()
    schema.upgrade(server.url())
    with psycopg.connect(database.url) as connection:
        connection.execute(TABLE)
    return Place(server.url(), redis_url, redis_url, application="tests.shims_app"), server


@contextmanager
def worker_of(place: Place, notes: str, **variables: str) -> Iterator[CeleryWorker]:
    with replace(place, variables={"SPINE_TEST_NOTES_URL": notes, **variables}).worker() as worker:
        yield worker


def executions(notes: str, name: str) -> list[str]:
    return [body for (body,) in ask(notes, "SELECT body FROM shim_executed WHERE task = %s", (name,))]


def warmed(place: Place, producer: Producer, worker: CeleryWorker, notes: str) -> None:
    """The worker's connections are there before they are lost."""
    for _ in range(4):
        producer.app.send_task("dispatch.echo", (1,))
    until(lambda: len(executions(notes, "echo")) == 4, "It is not executed", worker)
    # A process that has yet to mark one would be busy with it all the while.
    marked = "SELECT count(*) FROM runs WHERE status = 'completed'"
    until(lambda: place.rows(marked) == [(4,)], "They are not marked", worker)


@pytest.mark.parametrize("fallback", ["fail", "legacy"])
def test_a_message_without_a_run_while_the_database_is_away(
    apart: tuple[Place, Any], database: Database, fallback: str
) -> None:
    """It waits, under its id, and is adopted once; or the old body does it, untracked."""
    place, server = apart
    with (
        worker_of(place, database.url, SPINE_TEST_FALLBACK=fallback) as worker,
        producing(place, worker) as producer,
    ):
        warmed(place, producer, worker, database.url)
        server.stop("immediate")
        result = producer.app.send_task("dispatch.add", (1,))
        if fallback == "legacy":
            until(lambda: executions(database.url, "add") == ["legacy"], "The old body is not called", worker)
        else:
            until(lambda: "is looked at again" in worker.log(), "It does not wait", worker)
            assert executions(database.url, "add") == []
        server.start()
        assert result.get(timeout=60) == 2
        assert executions(database.url, "add") == ["legacy" if fallback == "legacy" else "handler"]
        # The result is there before the run is marked.
        marked = [] if fallback == "legacy" else [("completed",)]
        status = "SELECT status FROM runs WHERE run_id = %s"
        until(lambda: place.rows(status, result.id) == marked, f"It is not {marked}", worker)


def test_what_comes_next_while_the_database_is_away(
    apart: tuple[Place, Any], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body has ended, and nobody could call again: the next task of the chain is sent as an old message, which is
    adopted once the database is back. Both bodies are executed once, whose worker has lived.
    """
    place, server = apart
    monkeypatch.setenv("SPINE_TEST_NOTES_URL", database.url)
    lease = {"SPINE_TEST_LEASE": "60"}
    with worker_of(place, database.url, **lease) as worker, producing(place, worker) as producer, relay_of(place):
        warmed(place, producer, worker, database.url)
        configure(producer.dispatcher)
        tasks = producer.site("dispatch").tasks
        result = chain(tasks.held.s(), tasks.echo.s("next"))()
        until(lambda: executions(database.url, "held"), "It does not start", worker)
        server.stop("immediate")
        ask(database.url, "INSERT INTO shim_executed (task) VALUES ('let go')")
        # Which is adopted no sooner than the database is there.
        until(lambda: "is looked at again" in worker.log(), "What comes next does not come", worker)
        server.start()
        assert result.get(timeout=60) == [["held", "next"], {}]
        assert executions(database.url, "held") == ["legacy"]
        assert len(executions(database.url, "echo")) == 5
        ids = [UUID(result.parent.id), UUID(result.id)]
        marked = "SELECT trigger_source FROM runs WHERE run_id = ANY (%s) AND status = 'completed' ORDER BY created_at"
        until(lambda: place.rows(marked, ids) == [("celery",), ("message",)], "They are not marked", worker)


def test_a_run_whose_message_comes_while_the_database_is_away(
    apart: tuple[Place, Any], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes again, and the relay publishes the run as well; it is executed once."""
    place, server = apart
    monkeypatch.setenv("SPINE_TEST_NOTES_URL", database.url)
    with worker_of(place, database.url, SPINE_TEST_LEASE="60") as worker, producing(place, worker) as producer:
        warmed(place, producer, worker, database.url)
        configure(producer.dispatcher)
        site = producer.site("dispatch")
        result = site.tasks.add.delay(1)
        (run,) = site.runs(result.id)
        server.stop("immediate")
        producer.dispatcher.executor.submit(run)
        until(lambda: "is looked at again" in worker.log(), "It does not wait", worker)
        server.start()
        with relay_of(place):
            assert result.get(timeout=60) == 2
        assert executions(database.url, "add") == ["handler"]
