"""Handlers that end in every bad way, and a ledger that goes away while they work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from spine_migrate.execution import (
    BackendError,
    EventType,
    ExecutionNotFoundError,
    HandlerRegistry,
    RunRecord,
    RunStatus,
    TaskContext,
    WorkSpec,
)
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.protocol import Delivery
from spine_migrate.execution.worker import RunCancelled, Worker


class Away(MemoryLedger):
    """Methods named in ``away`` fail as they would without a server; ``asked`` is set once one did."""

    def __init__(self) -> None:
        super().__init__()
        self.away: dict[str, Exception] = {}
        self.asked = threading.Event()

    def __getattribute__(self, name: str) -> Any:
        fault = object.__getattribute__(self, "__dict__").get("away", {}).get(name)
        if fault is None:
            return super().__getattribute__(name)

        def fail(*_: object, **__: object) -> Any:
            self.asked.set()
            raise fault

        return fail


GONE = BackendError("The ledger cannot be reached.")


def made(
    handler: Callable[..., Any], *, lease: float = 60.0, timeout: float | None = None, **fields: Any
) -> tuple[Away, Worker, str]:
    ledger, registry = Away(), HandlerRegistry()
    registry.register("task", "work", handler)
    run = ledger.create(RunRecord(WorkSpec("task", "work", **fields)), Delivery(timeout_seconds=timeout))
    return ledger, Worker(ledger, registry, lease_seconds=lease), run.run_id


def leases() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "spine-lease"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_ends_the_process_is_raised_and_the_run_is_tried_again(kind: type[BaseException]) -> None:
    def handler(_: dict[str, Any]) -> None:
        raise kind("out")

    ledger, worker, run_id = made(handler)
    with pytest.raises(kind):
        worker.execute(run_id)
    run = ledger.get(run_id)
    assert run is not None
    assert (run.status, run.error_type, run.error) == (RunStatus.PENDING, kind.__name__, "out")
    assert leases() == []


def test_what_ends_the_process_does_not_wait_for_a_ledger_that_is_away() -> None:
    ledger, worker, run_id = made(lambda _: None)

    def handler(_: dict[str, Any]) -> None:
        ledger.away = {"try_again": GONE, "renew": GONE}
        raise KeyboardInterrupt

    worker.registry.register("task", "work", handler, replace=True)
    with pytest.raises(KeyboardInterrupt):
        worker.execute(run_id)
    assert ledger.asked.is_set()


class Textless(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("a\0b"), r"a\x00b"),
        (ValueError("half \ud800"), r"half \ud800"),
        (ValueError(), "ValueError"),
        (Textless(), "Textless, whose text cannot be had (RuntimeError)"),
        (ValueError("x" * 20_000), "x" * 10_000),
    ],
)
def test_an_error_that_no_column_could_hold_is_stored_all_the_same(error: Exception, text: str) -> None:
    def handler(_: dict[str, Any]) -> None:
        raise error

    _, worker, run_id = made(handler, max_retries=0)
    run = worker.execute(run_id)
    assert run is not None
    assert (run.status, run.error, run.error_type) == (RunStatus.DEAD_LETTERED, text, type(error).__name__)


@pytest.mark.parametrize(
    "result", ["a\0b", {"x": ["\ud800"]}, {"\0": 1}, {"deep": {1, 2}}, float("inf"), b"bytes", iter(())]
)
def test_a_result_that_no_ledger_could_hold_fails_for_good(result: object) -> None:
    _, worker, run_id = made(lambda _: result)
    run = worker.execute(run_id)
    assert run is not None
    assert (run.status, run.error_type) == (RunStatus.FAILED, "ResultNotStorable")


def test_a_result_is_stored_as_it_would_come_back_from_postgresql() -> None:
    _, worker, run_id = made(lambda _: {1: (1, 2), "text": r"\u0000 is six characters", "pair": "\U0001f600"})
    run = worker.execute(run_id)
    assert run is not None
    assert run.result == {"1": [1, 2], "text": r"\u0000 is six characters", "pair": "\U0001f600"}


def test_a_run_without_a_handler_fails_and_names_what_there_is() -> None:
    ledger, worker, run_id = made(lambda _: None)
    other = ledger.create(RunRecord(WorkSpec("task", "unknown"))).run_id
    run = worker.execute(other)
    assert run is not None
    assert run.status is RunStatus.FAILED
    assert run.error == "There is no task named 'unknown'; registered are work."
    assert worker.execute(run_id) is not None


def test_an_unknown_run() -> None:
    _, worker, _ = made(lambda _: None)
    with pytest.raises(ExecutionNotFoundError):
        worker.execute("nothing")


@pytest.mark.parametrize("fault", [GONE, RuntimeError("the pool is closed")])
def test_a_handler_is_told_once_the_lease_could_not_be_renewed_in_time(fault: Exception) -> None:
    """It stops, and as nobody else has the run it is tried again, not cancelled."""
    ledger, worker, run_id = made(lambda _: None, lease=0.03)

    def handler(_: dict[str, Any], context: TaskContext) -> None:
        ledger.away = {"renew": fault}
        assert context.cancelled.wait(60)
        ledger.away = {}
        raise RunCancelled

    worker.registry.register("task", "work", handler, replace=True)
    run = worker.execute(run_id)
    assert run is not None
    assert (run.status, run.error_type) == (RunStatus.PENDING, "LeaseLost")


def test_a_handler_is_told_of_a_cancellation_by_the_next_renewal() -> None:
    ledger, worker, run_id = made(lambda _: None, lease=0.03)

    def handler(_: dict[str, Any], context: TaskContext) -> None:
        ledger.cancel(run_id, "not wanted")
        assert context.cancelled.wait(60)
        raise RunCancelled("stopped in time")

    worker.registry.register("task", "work", handler, replace=True)
    run = worker.execute(run_id)
    assert run is not None
    assert run.status is RunStatus.CANCELLED
    assert ledger.events(run_id)[-1].data == {"reason": "stopped in time"}


def test_a_handler_is_told_that_its_claim_is_lost_and_marks_nothing() -> None:
    ledger, worker, run_id = made(lambda _: None, lease=0.03)

    def handler(_: dict[str, Any], context: TaskContext) -> str:
        ledger.try_again(run_id, "taken away", None, in_seconds=0)
        assert context.cancelled.wait(60)
        return "late"

    worker.registry.register("task", "work", handler, replace=True)
    assert worker.execute(run_id) is None
    run = ledger.get(run_id)
    assert run is not None
    assert (run.status, run.result) == (RunStatus.PENDING, None)


@pytest.mark.parametrize("ending", [RunCancelled, ValueError, None])
def test_a_handler_that_took_too_long_timed_out_however_it_ends(ending: type[Exception] | None) -> None:
    def handler(_: dict[str, Any], context: TaskContext) -> None:
        assert context.cancelled.wait(60)
        if ending is not None:
            raise ending

    _, worker, run_id = made(handler, timeout=0.01, max_retries=0)
    run = worker.execute(run_id)
    assert run is not None
    assert (run.status, run.error_type) == (RunStatus.DEAD_LETTERED, "RunTimeout")
    assert run.error == "The handler took longer than 0.01 seconds."


def test_a_mark_waits_for_a_ledger_that_comes_back() -> None:
    ledger, worker, run_id = made(lambda _: None, lease=60.0)

    def comes_back() -> None:
        assert ledger.asked.wait(60)
        ledger.away = {}

    def handler(_: dict[str, Any]) -> int:
        ledger.away = {"complete": GONE}
        ledger.asked.clear()
        threading.Thread(target=comes_back).start()
        return 1

    worker.registry.register("task", "work", handler, replace=True)
    run = worker.execute(run_id)
    assert run is not None
    assert (run.status, run.result) == (RunStatus.COMPLETED, 1)


def test_a_mark_gives_up_once_the_lease_has_run_out() -> None:
    ledger, worker, run_id = made(lambda _: None, lease=0.03)

    def handler(_: dict[str, Any]) -> None:
        ledger.away = {"complete": GONE}

    worker.registry.register("task", "work", handler, replace=True)
    with pytest.raises(BackendError):
        worker.execute(run_id)
    assert leases() == []


@pytest.mark.parametrize("percent", [-1, 100.5, float("nan"), float("inf")])
def test_progress_outside_of_its_range(percent: float) -> None:
    def handler(_: dict[str, Any], context: TaskContext) -> None:
        context.report_progress(percent)

    _, worker, run_id = made(handler)
    run = worker.execute(run_id)
    assert run is not None
    assert run.error_type == "ValueError"


def reports(_: dict[str, Any], context: TaskContext) -> None:
    context.report_progress(10, "a\0b")
    context.report_progress(100)


async def reports_and_waits(_: dict[str, Any], context: TaskContext) -> None:
    await context.report_progress(10, "a\0b")
    await asyncio.gather(asyncio.sleep(0), *[_awaiting(context)])


async def _awaiting(context: TaskContext) -> None:
    await context.report_progress(100)


@pytest.mark.parametrize("handler", [reports, reports_and_waits])
def test_progress_from_sync_and_async_handlers(handler: Callable[..., Any]) -> None:
    ledger, worker, run_id = made(handler)
    assert worker.execute(run_id) is not None
    found = [event for event in ledger.events(run_id) if event.event_type == EventType.PROGRESS]
    assert [event.data for event in found] == [
        {"percent": 10, "message": r"a\x00b"},
        {"percent": 100, "message": ""},
    ]
    assert {event.source for event in found} == {"handler"}


def test_progress_that_cannot_be_recorded_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    ledger, worker, run_id = made(lambda _: None)

    def handler(_: dict[str, Any], context: TaskContext) -> str:
        context.report_progress(1)
        return "done"

    worker.registry.register("task", "work", handler, replace=True)
    ledger.away = {"record": GONE}
    run = worker.execute(run_id)
    assert run is not None
    assert run.status is RunStatus.COMPLETED
    assert "was not recorded" in caplog.text
