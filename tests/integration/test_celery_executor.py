"""Runs through a real broker and a real prefork Celery worker."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from celery import Celery, chord, group
from celery.exceptions import TaskRevokedError

from spine_migrate.execution import BackendError, RunRecord, RunStatus, SyncDispatcher, WorkSpec
from spine_migrate.execution.executors.celery import TASK
from spine_migrate.execution.executors.celery_message import TaskMessage
from spine_migrate.execution.ledgers.protocol import Delivery
from spine_migrate.execution.relay import Relay
from tests import redis_server as own_redis
from tests.celery_worker import REPOSITORY, CeleryWorker, Place, closed, final, prepared, until
from tests.database import Role, fresh_database
from tests.redis_server import RedisServer
from tests.waiting import LONGEST


@pytest.fixture(scope="module")
def place(server_url: str, owner: Role, redis_server_url: str) -> Iterator[Place]:
    """One for all tests of the module, with one worker: starting one takes longer than most of them."""
    with (
        fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database,
        own_redis.fresh_database(redis_server_url) as redis_url,
    ):
        made = prepared(database, redis_url)
        yield made
        made.discard()


@pytest.fixture(scope="module")
def worker(place: Place) -> Iterator[CeleryWorker]:
    with place.worker() as started:
        yield started


@pytest.fixture
def app(place: Place) -> Iterator[Celery]:
    with closed(place.app()) as made:
        yield made


@pytest.fixture
def dispatcher(place: Place) -> Iterator[SyncDispatcher]:
    with place.dispatcher() as made:
        yield made


def relay(dispatcher: SyncDispatcher) -> Relay:
    return Relay(dispatcher.ledger, dispatcher.executor, backoff_seconds=0.1, claim_within_seconds=10)


def stored(dispatcher: SyncDispatcher, name: str, params: dict[str, Any], **fields: Any) -> RunRecord:
    """Committed, and published by nobody: the test sends the message."""
    return dispatcher.ledger.create(RunRecord(WorkSpec("task", name, params, **fields)))


def signature(app: Celery, place: Place, run: RunRecord) -> Any:
    """The run's message as a part of a canvas, as the shims send it."""
    return app.signature(TASK, args=(run.run_id,), task_id=run.run_id, queue=f"{place.prefix}default")


def continued(place: Place, task: str) -> list[tuple[Any, ...]]:
    return place.rows("SELECT given, status FROM continued WHERE task = %s", task)


@pytest.fixture(autouse=True)
def _nothing_continued(place: Place) -> None:
    place.rows("DELETE FROM continued RETURNING 1")


def test_a_run_is_executed_and_both_sides_know_its_result(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher, app: Celery
) -> None:
    """Celery's own way to wait for a result goes by the run's id."""
    run_id = dispatcher.submit_task("quick", {"a": [1, None, "ü"]})
    assert app.AsyncResult(run_id).get(timeout=LONGEST) == {"got": {"a": [1, None, "ü"]}}
    run = final(dispatcher, run_id, worker)
    assert (run.status, run.result) == (RunStatus.COMPLETED, {"got": {"a": [1, None, "ü"]}})
    assert (run.external_ref, run.executor_name) == (run_id, "celery")
    assert dispatcher.executor.get_status(run_id) is RunStatus.COMPLETED
    assert place.executions(run_id) == 1


def test_a_lane_has_its_queue(place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher) -> None:
    run_id = dispatcher.submit_task("quick", lane="background", priority="slow")
    assert final(dispatcher, run_id, worker).status is RunStatus.COMPLETED


def test_the_more_urgent_comes_first_in_a_queue_of_redis(redis_url: str) -> None:
    """Where 0 is the most urgent one, the other way round than in AMQP."""
    place = Place("", redis_url, redis_url)
    with place.executor() as executor, place.app() as app:
        runs = {
            priority: RunRecord(WorkSpec("task", "quick", priority=priority))
            for priority in ("slow", "low", "normal", "high", "realtime")
        }
        for run in runs.values():
            executor.submit(run)
        with (
            app.connection_for_read() as connection,
            closing(connection.SimpleQueue(f"{place.prefix}default")) as queue,
        ):
            received = [queue.get(timeout=LONGEST).headers["id"] for _ in runs]
    # Redis has four steps for ten priorities, the first two of ours share one, and so do the last two.
    assert set(received[:2]) == {runs["realtime"].run_id, runs["high"].run_id}
    assert received[2] == runs["normal"].run_id
    assert set(received[3:]) == {runs["low"].run_id, runs["slow"].run_id}


def test_a_connection_that_died_with_the_broker_is_replaced(redis_server: RedisServer) -> None:
    place = Place("", redis_server.url, redis_server.url)
    with place.executor() as executor:
        for _ in range(3):
            executor.submit(RunRecord(WorkSpec("task", "quick")))
            redis_server.kill()
            with pytest.raises(BackendError):
                executor.submit(RunRecord(WorkSpec("task", "quick")))
            redis_server.start()


def test_a_restart_between_two_submits_goes_unnoticed(redis_server: RedisServer) -> None:
    place = Place("", redis_server.url, redis_server.url)
    with place.executor() as executor:
        for _ in range(3):
            executor.submit(RunRecord(WorkSpec("task", "quick")))
            redis_server.kill()
            redis_server.start()


def test_a_message_that_a_run_was_stored_with_is_published_by_the_relay(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher, app: Celery
) -> None:
    """Its task is another one than ours; its link goes with it, and its result has its id."""
    link = app.signature("tests.continuation", args=("linked",), immutable=True, queue=f"{place.prefix}celery")
    options = {"queue": f"{place.prefix}background", "link": [link]}
    message = TaskMessage("tests.continuation", f"{place.prefix}first", ("x",), options=options)
    run = RunRecord(WorkSpec("task", "another name"))
    dispatcher.ledger.create(run, Delivery(message=message.to_stored()))
    relay(dispatcher).run_once()
    assert app.AsyncResult(f"{place.prefix}first").get(timeout=LONGEST) is None
    until(lambda: len(continued(place, "continuation")) > 1, "The link is not called", worker)
    assert sorted(continued(place, "continuation")) == [("linked", None), ("x", None)]
    queued = dispatcher.get_run(run.run_id)
    assert queued is not None
    assert (queued.status, queued.external_ref) == (RunStatus.QUEUED, f"{place.prefix}first")


def test_many_deliveries_of_a_run_are_one_execution(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher
) -> None:
    """Before, while and after it is executed."""
    run = stored(dispatcher, "slow", {"seconds": 0.3})
    for _ in range(5):
        dispatcher.executor.submit(run)
    final(dispatcher, run.run_id, worker)
    for _ in range(3):
        dispatcher.executor.submit(run)
    last = dispatcher.submit_task("quick")
    final(dispatcher, last, worker)
    assert place.executions(run.run_id) == 1
    kept = dispatcher.get_run(run.run_id)
    assert kept is not None
    assert kept.status is RunStatus.COMPLETED


def test_a_chain_goes_on_before_its_first_run_is_marked(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher, app: Celery
) -> None:
    run = stored(dispatcher, "quick", {"n": 1})
    (signature(app, place, run) | app.signature("tests.continuation")).apply_async()
    until(lambda: continued(place, "continuation"), "The chain does not go on", worker)
    assert final(dispatcher, run.run_id, worker).status is RunStatus.COMPLETED
    assert continued(place, "continuation") == [({"got": {"n": 1}}, None)]
    assert continued(place, "published") == [(None, "running")]


def test_a_callback_runs_once_for_all_deliveries(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher, app: Celery
) -> None:
    run = stored(dispatcher, "quick", {})
    linked = signature(app, place, run)
    linked.link(app.signature("tests.continuation"))
    for _ in range(3):
        linked.apply_async()
    until(lambda: continued(place, "continuation"), "The callback is not called", worker)
    final(dispatcher, dispatcher.submit_task("quick"), worker)
    assert final(dispatcher, run.run_id, worker).status is RunStatus.COMPLETED
    assert len(continued(place, "published")) == 1


def test_a_chord_of_runs_has_its_body(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher, app: Celery
) -> None:
    runs = [stored(dispatcher, "quick", {"n": n}) for n in range(3)]
    header = group(signature(app, place, run) for run in runs)
    chord(header, app=app)(app.signature("tests.continuation", queue=f"{place.prefix}celery"))
    until(lambda: continued(place, "continuation"), "The chord's body is not called", worker)
    assert continued(place, "continuation") == [([{"got": {"n": n}} for n in range(3)], None)]
    for run in runs:
        assert final(dispatcher, run.run_id, worker).status is RunStatus.COMPLETED


def test_a_failure_is_tried_again_by_the_relay_and_then_given_up(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher, app: Celery
) -> None:
    run = stored(dispatcher, "fails", {"times": 9}, max_retries=1, retry_delay_seconds=0)
    dispatcher.publish(run)
    # Celery stores that it is tried again after the run is marked; later it could overwrite what comes of that.
    until(lambda: dispatcher.executor.get_status(run.run_id) is RunStatus.PENDING, "It is not tried again", worker)
    ended = final(dispatcher, run.run_id, worker, relay(dispatcher))
    assert (ended.status, ended.error, ended.attempt) == (RunStatus.DEAD_LETTERED, "attempt 2 fails", 2)
    assert place.executions(run.run_id) == 2
    with pytest.raises(ValueError, match="attempt 2 fails"):
        app.AsyncResult(run.run_id).get(timeout=LONGEST)
    assert dispatcher.executor.get_status(run.run_id) is RunStatus.FAILED


def test_who_waits_for_a_run_that_is_tried_again_gets_its_result(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher, app: Celery
) -> None:
    run = stored(dispatcher, "fails", {"times": 1}, retry_delay_seconds=0)
    dispatcher.publish(run)
    until(lambda: dispatcher.executor.get_status(run.run_id) is RunStatus.PENDING, "It is not tried again", worker)
    assert final(dispatcher, run.run_id, worker, relay(dispatcher)).status is RunStatus.COMPLETED
    assert app.AsyncResult(run.run_id).get(timeout=LONGEST) is None


def test_an_errback_is_called_once_there_is_no_more_to_try(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher, app: Celery
) -> None:
    run = stored(dispatcher, "fails", {"times": 1}, max_retries=0)
    signature(app, place, run).apply_async(link_error=app.signature("tests.errback"))
    assert final(dispatcher, run.run_id, worker).status is RunStatus.DEAD_LETTERED
    assert continued(place, "errback") == [("attempt 1 fails", "running")]


def test_a_waiting_run_that_is_cancelled_is_not_executed(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher
) -> None:
    run = stored(dispatcher, "quick", {})
    assert dispatcher.cancel(run.run_id)
    dispatcher.executor.submit(run)
    final(dispatcher, dispatcher.submit_task("quick"), worker)
    assert final(dispatcher, run.run_id, worker).status is RunStatus.CANCELLED
    assert place.executions(run.run_id) == 0


def test_a_running_run_is_asked_to_stop(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher, app: Celery
) -> None:
    """It hears of it when its lease is renewed; who waits for the result is told, too."""
    run_id = dispatcher.submit_task("slow", {"seconds": LONGEST})
    until(lambda: place.executions(run_id), "It does not start", worker)
    assert dispatcher.cancel(run_id)
    assert final(dispatcher, run_id, worker).status is RunStatus.CANCELLED
    with pytest.raises(TaskRevokedError):
        app.AsyncResult(run_id).get(timeout=LONGEST)


def test_termination_is_for_those_who_ask_for_it(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher
) -> None:
    """The child is killed in its sleep, from which nothing else would wake it; the relay ends the run."""
    with place.executor(terminate=True) as executor:
        killing = SyncDispatcher(executor, dispatcher.ledger)
        run_id = killing.submit_task("deaf", {"seconds": 2 * LONGEST})
        until(lambda: place.executions(run_id), "It does not start", worker)
        ((before,),) = place.rows("SELECT pid FROM executed WHERE run_id = %s", run_id)
        assert killing.cancel(run_id)
    assert final(dispatcher, run_id, worker, relay(dispatcher)).status is RunStatus.CANCELLED
    until(lambda: before not in worker.children(), "The child lives", worker)


def test_an_expired_run_is_cancelled_and_not_executed(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher
) -> None:
    run_id = dispatcher.submit_task("quick", expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert final(dispatcher, run_id, worker).status is RunStatus.CANCELLED
    assert place.executions(run_id) == 0


def test_a_run_with_a_time_is_executed_when_the_relay_finds_it_due(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher
) -> None:
    run_id = dispatcher.submit_task("quick", due_at=datetime.now(UTC) + timedelta(milliseconds=300))
    assert final(dispatcher, run_id, worker, relay(dispatcher)).status is RunStatus.COMPLETED


def test_beat_can_be_the_relay(place: Place, worker: CeleryWorker, tmp_path: Path) -> None:
    """A real beat process, and nobody else who publishes."""
    beat = subprocess.Popen(
        [sys.executable, "-m", "celery", "--app", "tests.celery_app", "beat", "--schedule", tmp_path / "schedule"],
        cwd=REPOSITORY,
        env=place.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with place.dispatcher(publish=False) as dispatcher:
            run_id = dispatcher.submit_task("quick")
            assert final(dispatcher, run_id, worker).status is RunStatus.COMPLETED
    finally:
        beat.kill()
        beat.wait()
    assert place.executions(run_id) == 1


def test_a_message_of_a_run_that_does_not_exist_is_a_failure(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher
) -> None:
    run = RunRecord(WorkSpec("task", "quick"))
    dispatcher.executor.submit(run)
    until(lambda: dispatcher.executor.get_status(run.run_id) is RunStatus.FAILED, "It is not refused", worker)


def test_a_worker_that_lost_its_claim_starts_nothing_that_comes_next(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher, app: Celery
) -> None:
    """The relay takes the run away as if the worker were dead; the handler ends badly, and nobody hears of it."""
    run = stored(dispatcher, "slow", {"seconds": LONGEST}, max_retries=0)
    signature(app, place, run).apply_async(link_error=app.signature("tests.errback"))
    until(lambda: place.executions(run.run_id), "It does not start", worker)

    def taken_away() -> bool:
        """Between the two the worker may renew its lease."""
        place.rows("UPDATE run_handoff SET next_at = now() - interval '1 s' WHERE run_id = %s RETURNING 1", run.run_id)
        return [reaped.run_id for reaped in dispatcher.ledger.reap(10, backoff_seconds=0)] == [run.run_id]

    until(taken_away, "It is not taken away", worker)
    until(lambda: refused(dispatcher, run.run_id), "The worker does not notice", worker)
    final(dispatcher, dispatcher.submit_task("quick"), worker)
    assert final(dispatcher, run.run_id, worker).status is RunStatus.DEAD_LETTERED
    assert continued(place, "errback") == []
    assert dispatcher.executor.get_status(run.run_id) is None


def refused(dispatcher: SyncDispatcher, run_id: str) -> bool:
    return any(event.event_type == "transition_refused" for event in dispatcher.get_events(run_id))


def test_each_process_of_the_pool_has_its_own_connections(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher, tmp_path: Path
) -> None:
    """Two runs of which each waits for the other; a connection that came through the fork would be shared."""
    runs = [dispatcher.submit_task("meets", {"folder": str(tmp_path), "others": 1}) for _ in range(2)]
    for run_id in runs:
        assert final(dispatcher, run_id, worker).status is RunStatus.COMPLETED
    assert len(place.rows("SELECT DISTINCT pid FROM executed WHERE run_id = ANY (%s::uuid[])", runs)) == 2


@pytest.mark.parametrize("name", ["dies", "dies_before_the_mark"])
def test_a_run_outlives_the_process_that_executes_it(
    place: Place, worker: CeleryWorker, dispatcher: SyncDispatcher, name: str
) -> None:
    """Killed in the handler, and after it: the message comes back while the lease lasts, and is refused."""
    run = stored(dispatcher, name, {"times": 1})
    dispatcher.publish(run)
    ended = final(dispatcher, run.run_id, worker, relay(dispatcher))
    assert (ended.status, ended.attempt) == (RunStatus.COMPLETED, 2)
    assert place.executions(run.run_id) == 2
