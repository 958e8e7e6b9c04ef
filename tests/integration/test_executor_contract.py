"""What every executor keeps to (executors/protocol.py). Another one is one more parameter of ``bench``."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex
from typing import Protocol

import pytest

from spine_migrate.execution import EventType, RunRecord, RunStatus, WorkSpec
from tests import redis_server as own_redis
from tests.celery_worker import Place, prepared
from tests.database import Role, fresh_database
from tests.executors import LEASE, Bench, local_bench, memory_bench


class Open(Protocol):
    def __call__(self, folder: Path) -> AbstractContextManager[Bench]: ...


def threads(folder: Path) -> AbstractContextManager[Bench]:
    return local_bench(folder)


def processes(folder: Path) -> AbstractContextManager[Bench]:
    return local_bench(folder, processes=True, kill_after_seconds=60)


@pytest.fixture(scope="module")
def celery_place(server_url: str, owner: Role, redis_server_url: str) -> Iterator[Place]:
    """With its worker, which takes longer to start than most tests take."""
    with (
        fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database,
        own_redis.fresh_database(redis_server_url) as redis_url,
    ):
        place = prepared(database, redis_url, lease=LEASE, contract=True)
        with place.worker(1):
            yield place
        place.discard()


@pytest.fixture(params=[memory_bench, threads, processes, "celery"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    if request.param == "celery":
        with request.getfixturevalue("celery_place").dispatcher() as dispatcher:
            made = Bench(dispatcher.executor, dispatcher.ledger, tmp_path)
            yield made
            made.go()
        return
    opened: Open = request.param
    with opened(tmp_path) as made:
        yield made
        made.go()


def test_a_run_is_executed_and_has_its_result(bench: Bench) -> None:
    run = bench.ended(bench.submit("quick", value=[1, None, "ü"]))
    assert (run.status, run.result) == (RunStatus.COMPLETED, {"attempt": 1, "given": [1, None, "ü"]})
    assert bench.executions(run.run_id) == 1


def test_name_and_reference_fit_their_columns_and_are_stored(bench: Bench) -> None:
    """Queued while another run is executed, so that the submitter is the first to tell of it."""
    first = bench.submit("waits")
    bench.began(first)
    run = bench.run(bench.submit("quick"))
    assert run.status is RunStatus.QUEUED
    assert run.executor_name == bench.executor.name
    assert run.external_ref is not None
    assert 0 < len(run.external_ref) <= 255
    assert 0 < len(bench.executor.name) <= 50


def test_a_run_handed_over_many_times_is_executed_once(bench: Bench) -> None:
    """Before, while, and after it is executed."""
    first = bench.submit("waits")
    bench.began(first)
    waiting = bench.submit("quick")
    for run_id in (first, waiting):
        assert len({bench.executor.submit(bench.run(run_id)) for _ in range(3)}) == 1
    bench.go()
    bench.ended(waiting)
    bench.executor.submit(bench.run(waiting))
    bench.ended(bench.submit("quick"))
    assert (bench.executions(first), bench.executions(waiting)) == (1, 1)


def test_runs_submitted_from_many_threads(bench: Bench) -> None:
    with ThreadPoolExecutor(8) as pool:
        submitted = list(pool.map(lambda n: bench.submit("quick", value=n), range(40)))
    runs = [bench.ended(run_id) for run_id in submitted]
    assert [run.result["given"] for run in runs] == list(range(40))
    assert {bench.executions(run_id) for run_id in submitted} == {1}


def test_a_run_that_waits_is_never_started_once_it_is_cancelled(bench: Bench) -> None:
    first = bench.submit("waits")
    bench.began(first)
    waiting = bench.submit("quick")
    assert bench.dispatcher.cancel(waiting)
    bench.go()
    bench.ended(first)
    bench.ended(bench.submit("quick"))
    assert bench.run(waiting).status is RunStatus.CANCELLED
    assert bench.executions(waiting) == 0


def test_the_executor_still_knows_what_waits(bench: Bench) -> None:
    first = bench.submit("waits")
    bench.began(first)
    assert bench.executor.cancel(bench.reference(bench.submit("quick")))


def test_a_run_that_is_executed_is_told_to_stop(bench: Bench) -> None:
    run_id = bench.submit("waits")
    bench.began(run_id)
    assert bench.dispatcher.cancel(run_id)
    assert bench.ended(run_id).status is RunStatus.CANCELLED
    assert bench.ledger.events(run_id)[-1].data == {"reason": "told to stop"}
    assert bench.ended(bench.submit("quick")).status is RunStatus.COMPLETED


def test_a_run_that_has_ended_is_not_cancelled(bench: Bench) -> None:
    run_id = bench.submit("quick")
    bench.ended(run_id)
    assert not bench.dispatcher.cancel(run_id)
    assert bench.run(run_id).status is RunStatus.COMPLETED


def test_status(bench: Bench) -> None:
    """An executor may know less than the ledger, but nothing else. After the end some remember it and some do not."""
    first = bench.submit("waits")
    bench.began(first)
    waiting = bench.submit("quick")
    reference = bench.reference(first)
    assert bench.executor.get_status(reference) in {RunStatus.RUNNING, RunStatus.QUEUED, None}
    assert bench.executor.get_status(bench.reference(waiting)) in {RunStatus.QUEUED, None}
    bench.go()
    bench.ended(waiting)
    bench.ended(bench.submit("quick"))
    assert bench.executor.get_status(reference) in {RunStatus.COMPLETED, None}


def test_what_nobody_knows(bench: Bench) -> None:
    unknown = RunRecord(WorkSpec("task", "quick")).run_id
    assert bench.executor.get_status(unknown) is None
    assert isinstance(bench.executor.cancel(unknown), bool)


def test_a_run_without_a_row_is_let_go(bench: Bench) -> None:
    """As one that was purged while its message was under way."""
    bench.executor.submit(RunRecord(WorkSpec("task", "quick")))
    assert bench.ended(bench.submit("quick")).status is RunStatus.COMPLETED


def test_a_failure_is_tried_again(bench: Bench) -> None:
    run = bench.ended(bench.submit("fails_once"))
    assert (run.status, run.attempt, run.result) == (RunStatus.COMPLETED, 2, "at last")
    assert bench.executions(run.run_id) == 2


def test_a_failure_without_retries_is_a_dead_letter_that_can_be_reprocessed(bench: Bench) -> None:
    run = bench.ended(bench.submit("fails_once", max_retries=0))
    assert (run.status, run.error_type) == (RunStatus.DEAD_LETTERED, "ValueError")
    assert run.error == "the first attempt fails"
    bench.dispatcher.reprocess(run.run_id)
    assert bench.ended(run.run_id).status is RunStatus.COMPLETED


def test_a_handler_that_takes_too_long_is_told_and_the_run_timed_out(bench: Bench) -> None:
    run = bench.ended(bench.submit("waits", timeout_seconds=0.05, max_retries=0))
    assert (run.status, run.error_type) == (RunStatus.DEAD_LETTERED, "RunTimeout")


@pytest.mark.parametrize(
    ("name", "error_type"), [("unknown", "PipelineNotFoundError"), ("gives_no_json", "ResultNotStorable")]
)
def test_what_trying_again_does_not_change_fails_for_good(bench: Bench, name: str, error_type: str) -> None:
    run = bench.ended(bench.submit(name))
    assert (run.status, run.error_type) == (RunStatus.FAILED, error_type)


def test_progress_of_an_async_handler(bench: Bench) -> None:
    run = bench.ended(bench.submit("tells"))
    assert (run.status, run.result) == (RunStatus.COMPLETED, "told")
    said = [event.data for event in bench.ledger.events(run.run_id) if event.event_type == EventType.PROGRESS]
    assert said == [{"percent": 50, "message": "half"}, {"percent": 100, "message": ""}]


def test_a_run_that_is_not_due_waits_for_the_relay(bench: Bench) -> None:
    first = bench.submit("waits")
    bench.began(first)
    run_id = bench.submit("quick", due_at=datetime.now(UTC))
    assert bench.run(run_id).status is RunStatus.PENDING
    bench.go()
    assert bench.ended(run_id).status is RunStatus.COMPLETED
