"""Executors for an application's own tests and its development: what runs, when, and in whose thread."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spine_migrate.execution import HandlerRegistry, RunRecord, RunStatus, SyncDispatcher, TaskContext
from spine_migrate.execution.executors.memory import MemoryExecutor
from spine_migrate.execution.executors.simple import SimpleExecutor
from spine_migrate.execution.ledgers.memory import MemoryLedger


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def registry() -> HandlerRegistry:
    made = HandlerRegistry()

    def fails_once(_: dict[str, Any], context: TaskContext) -> int:
        if context.attempt == 1:
            raise ValueError("the first attempt fails")
        return context.attempt

    made.register("task", "where", lambda _: threading.get_ident())
    made.register("task", "fails_once", fails_once)
    return made


_FORKED = """
import os, signal, threading
from spine_migrate.execution.ledgers.memory import MemoryLedger

ledger, held = MemoryLedger(), threading.Event()

def hold():
    with ledger._lock:
        held.set()
        threading.Event().wait()

threading.Thread(target=hold, daemon=True).start()
assert held.wait(60)
child = os.fork()
if child == 0:
    signal.alarm(30)
    os._exit(len(ledger.list_runs()))
os._exit(abs(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))
"""


def test_a_ledger_in_a_forked_child_has_a_lock_of_its_own() -> None:
    """A thread that the child does not have may hold that of its parent."""
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _FORKED]
    assert subprocess.run(words, check=False, timeout=240).returncode == 0


def test_nothing_runs_until_it_is_told_to(registry: HandlerRegistry) -> None:
    executor = MemoryExecutor(registry=registry)
    dispatcher = SyncDispatcher(executor)
    first, second = dispatcher.submit_task("where", {"n": 1}), dispatcher.submit_task("where", {"n": 2})
    assert [run.spec.params for run in executor.submitted] == [{"n": 1}, {"n": 2}]
    assert {executor.get_status(run_id) for run_id in (first, second)} == {RunStatus.QUEUED}
    done = executor.run_next()
    assert done is not None
    assert (done.run_id, done.status, done.result) == (first, RunStatus.COMPLETED, threading.get_ident())
    waiting = dispatcher.get_run(second)
    assert waiting is not None
    assert waiting.status is RunStatus.QUEUED
    assert [run.run_id for run in executor.run_all()] == [second]
    assert executor.run_next() is None
    assert executor.run_all() == []


def test_what_a_handler_submits_is_run_too(registry: HandlerRegistry) -> None:
    executor = MemoryExecutor(registry=registry)
    dispatcher = SyncDispatcher(executor)
    registry.register("workflow", "w", lambda _: dispatcher.submit_step("s"))
    registry.register("step", "s", lambda _: "done")
    dispatcher.submit_workflow("w")
    assert [run.spec.name for run in executor.run_all()] == ["w", "s"]


def test_a_retry_and_a_run_for_later_come_when_their_time_does(registry: HandlerRegistry) -> None:
    """By the ledger's clock, which a test can set."""
    clock = Clock()
    executor = MemoryExecutor(MemoryLedger(clock), registry)
    dispatcher = SyncDispatcher(executor)
    later = dispatcher.submit_task("where", due_at=clock.now + timedelta(hours=2))
    retried = dispatcher.submit_task("fails_once", retry_delay_seconds=60)
    assert [run.status for run in executor.run_all()] == [RunStatus.PENDING]
    clock.now += timedelta(hours=1)
    assert [(run.run_id, run.result) for run in executor.run_all()] == [(retried, 2)]
    clock.now += timedelta(hours=1)
    assert [run.run_id for run in executor.run_all()] == [later]


def test_a_handler_that_is_interrupted_leaves_the_executor_usable(registry: HandlerRegistry) -> None:
    def interrupted(_: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    registry.register("task", "interrupted", interrupted)
    executor = MemoryExecutor(registry=registry)
    dispatcher = SyncDispatcher(executor)
    run_id = dispatcher.submit_task("interrupted")
    dispatcher.submit_task("where")
    with pytest.raises(KeyboardInterrupt):
        executor.run_next()
    assert executor.get_status(run_id) is None
    assert [run.spec.name for run in executor.run_all()] == ["where"]


def test_simple_is_over_when_it_is_submitted(registry: HandlerRegistry) -> None:
    executor = SimpleExecutor(registry=registry)
    dispatcher = SyncDispatcher(executor)
    run_id = dispatcher.submit_task("where")
    run = dispatcher.get_run(run_id)
    assert run is not None
    assert (run.status, run.result) == (RunStatus.COMPLETED, threading.get_ident())
    assert (run.external_ref, run.executor_name) == (run_id, "simple")
    assert executor.get_status(run_id) is RunStatus.COMPLETED
    assert not executor.cancel(run_id)
    unknown = RunRecord(run.spec).run_id
    assert executor.get_status(unknown) is None
    assert not executor.cancel(unknown)


def test_simple_leaves_a_retry_to_a_relay(registry: HandlerRegistry) -> None:
    dispatcher = SyncDispatcher(SimpleExecutor(registry=registry))
    run = dispatcher.get_run(dispatcher.submit_task("fails_once"))
    assert run is not None
    assert (run.status, run.attempt, run.error_type) == (RunStatus.PENDING, 2, "ValueError")


def test_simple_can_be_asked_to_stop_while_it_runs(registry: HandlerRegistry) -> None:
    executor = SimpleExecutor(registry=registry)
    dispatcher = SyncDispatcher(executor)
    seen: list[bool] = []

    def cancels_itself(_: dict[str, Any], context: TaskContext) -> None:
        seen.append(dispatcher.cancel(context.run_id) and executor.cancel(context.run_id))
        raise ValueError("stopped")

    registry.register("task", "cancels_itself", cancels_itself)
    run = dispatcher.get_run(dispatcher.submit_task("cancels_itself"))
    assert run is not None
    assert (seen, run.status) == ([True], RunStatus.CANCELLED)
