"""What Celery's main process does of a process that was lost, while it forks another one in its place."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery, states
from celery.backends.cache import CacheBackend

from spine_migrate.execution import BackendError, RunRecord, RunStatus, SyncDispatcher, task_spec
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_shims import aftermath, configuration, configure, reroute
from tests.carrier import Carrier
from tests.waiting import until

asked_by: list[int] = []


class Telling(CacheBackend):  # type: ignore[misc]  # Celery has no types
    """Results in this process; ``asked_by`` are the threads in which it was asked."""

    def get_task_meta(self, task_id: str, cache: bool = True) -> dict[str, object]:  # noqa: FBT001, FBT002 - as in Celery
        asked_by.append(threading.get_ident())
        found: dict[str, object] = super().get_task_meta(task_id, cache=cache)
        return found


def _nothing() -> None:
    pass


@pytest.fixture
def app() -> Iterator[Celery]:
    asked_by.clear()
    with Celery("aftermath", broker="memory://", backend=f"{__name__}.Telling+memory://", set_as_current=False) as made:
        yield made
    configuration.reset()


@pytest.mark.parametrize(
    ("state", "status", "result"),
    [(states.SUCCESS, RunStatus.COMPLETED, 7), (states.STARTED, RunStatus.DEAD_LETTERED, None)],
)
def test_results_are_asked_for_by_the_thread_that_forks(
    app: Celery, state: str, status: RunStatus, result: int | None
) -> None:
    """Another one would hold locks of the backend's, which the child that is forked meanwhile waits for for ever."""
    ledger = MemoryLedger()
    configure(SyncDispatcher(Carrier(), ledger, publish=False))
    _lost(app, ledger, run_id := str(uuid4()), state)
    until(lambda: _run(ledger, run_id).status is status, "It is not marked.")
    assert set(asked_by) == {threading.get_ident()}
    assert _run(ledger, run_id).result == result


class Away(MemoryLedger):
    """Cannot be reached for as many marks."""

    def __init__(self, marks: int) -> None:
        super().__init__()
        self.marks = marks

    def complete(self, run_id: str, result: Any, *, fence: int | None = None, attempt: int | None = None) -> RunRecord:
        if self.marks:
            self.marks -= 1
            raise BackendError("The ledger cannot be reached.")
        return super().complete(run_id, result, fence=fence, attempt=attempt)


def test_a_ledger_that_cannot_be_reached_is_asked_again(app: Celery) -> None:
    ledger = Away(marks=2)
    configure(SyncDispatcher(Carrier(), ledger, publish=False))
    _lost(app, ledger, run_id := str(uuid4()))
    until(lambda: _run(ledger, run_id).status is RunStatus.COMPLETED, "It is not marked.")


def test_it_is_not_asked_for_longer_than_the_lease_lasts(app: Celery, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Away(marks=10**9)
    configure(SyncDispatcher(Carrier(), ledger, publish=False), lease_seconds=0.5)
    _lost(app, ledger, run_id := str(uuid4()))
    until(lambda: f"What became of the run {run_id} was not recorded" in caplog.text, "It is looked for without end.")
    assert _run(ledger, run_id).status is RunStatus.RUNNING


def _lost(app: Celery, ledger: MemoryLedger, run_id: str, state: str = states.SUCCESS) -> None:
    task = reroute("work", app=app, name="aftermath.work")(_nothing)
    ledger.create(RunRecord(task_spec("work"), run_id=run_id))
    ledger.claim(run_id, "lost", lease_seconds=60)
    app.backend.store_result(run_id, 7, state)
    asked_by.clear()
    aftermath.dead(task, {"id": run_id, "spine_run": run_id, "spine_attempt": 1}, RuntimeError("lost"))


def _run(ledger: MemoryLedger, run_id: str) -> RunRecord:
    run = ledger.get(run_id)
    assert run is not None
    return run
