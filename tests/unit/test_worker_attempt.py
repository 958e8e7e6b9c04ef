"""An attempt between its claim and its mark: what a failure comes to, and who may still mark the run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spine_migrate.execution import EventType, HandlerRegistry, RunRecord, RunStatus, TaskContext, WorkSpec
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.worker import RunCancelled, Worker


class Useless(Exception):
    retryable = False


def raising(error: Exception) -> Any:
    def handler(_: dict[str, Any]) -> None:
        raise error

    return handler


def made(handler: Any, **fields: Any) -> tuple[MemoryLedger, Worker, str]:
    ledger, registry = MemoryLedger(), HandlerRegistry()
    registry.register("task", "work", handler)
    run = ledger.create(RunRecord(WorkSpec("task", "work", **fields)))
    return ledger, Worker(ledger, registry), run.run_id


@pytest.mark.parametrize(
    ("error", "retries", "status"),
    [
        (ValueError("no"), 1, RunStatus.PENDING),
        (ValueError("no"), 0, RunStatus.DEAD_LETTERED),
        (Useless("no"), 1, RunStatus.FAILED),
        (RunCancelled("enough"), 1, RunStatus.CANCELLED),
    ],
)
def test_what_a_failure_comes_to(error: Exception, retries: int, status: RunStatus) -> None:
    _, worker, run_id = made(raising(error), max_retries=retries)
    run = worker.execute(run_id)
    assert run is not None
    assert run.status is status


def test_a_handler_that_fails_when_asked_to_stop_is_cancelled_and_not_tried_again() -> None:
    ledger = MemoryLedger()

    def handler(_: dict[str, Any], context: TaskContext) -> None:
        ledger.cancel(context.run_id, "not wanted")
        raise ValueError("in the middle")

    registry = HandlerRegistry()
    registry.register("task", "work", handler)
    run_id = ledger.create(RunRecord(WorkSpec("task", "work"))).run_id
    run = Worker(ledger, registry).execute(run_id)
    assert run is not None
    assert run.status is RunStatus.CANCELLED
    assert ledger.events(run_id)[-1].data == {"reason": "failed when asked to stop: in the middle"}


def test_a_cancellation_between_the_last_look_and_the_retry_is_not_lost() -> None:
    class Late(MemoryLedger):
        def try_again(self, run_id: str, *more: Any, **options: Any) -> RunRecord:
            self.cancel(run_id, "not wanted")
            return super().try_again(run_id, *more, **options)

    ledger, registry = Late(), HandlerRegistry()
    registry.register("task", "work", raising(ValueError("no")))
    run_id = ledger.create(RunRecord(WorkSpec("task", "work"))).run_id
    run = Worker(ledger, registry).execute(run_id)
    assert run is not None
    assert run.status is RunStatus.CANCELLED


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("result", [object(), {"x": float("nan")}, {1, 2}, nested(150), nested(5000)])
def test_a_result_that_is_not_json_fails_the_run_for_good(result: object) -> None:
    _, worker, run_id = made(lambda _: result)
    run = worker.execute(run_id)
    assert run is not None
    assert (run.status, run.error_type) == (RunStatus.FAILED, "ResultNotStorable")


def test_a_run_is_running_until_what_comes_next_was_started() -> None:
    ledger, worker, run_id = made(lambda _: 1)
    seen = []

    def start_next(result: object) -> None:
        run = ledger.get(run_id)
        assert run is not None
        seen.append((result, run.status))

    assert worker.execute(run_id, before_mark=start_next) is not None
    assert seen == [(1, RunStatus.RUNNING)]


def test_an_attempt_that_is_left_unmarked_can_be_reaped() -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    ledger = MemoryLedger(lambda: now[0])
    run_id = ledger.create(RunRecord(WorkSpec("task", "work"))).run_id
    attempt = Worker(ledger, HandlerRegistry()).begin(run_id)
    assert attempt is not None
    with attempt:
        pass
    assert ledger.reap(10, backoff_seconds=0) == []
    now[0] += timedelta(seconds=60)
    assert [run.status for run in ledger.reap(10, backoff_seconds=0)] == [RunStatus.PENDING]
    assert attempt.complete(1) is None
    assert ledger.events(run_id)[-1].event_type == EventType.TRANSITION_REFUSED


def test_a_second_delivery_is_not_for_anybody() -> None:
    _, worker, run_id = made(lambda _: 1)
    first = worker.begin(run_id)
    assert first is not None
    with first:
        assert worker.begin(run_id) is None
        assert worker.execute(run_id) is None
