"""What Celery's main process does of a process that was lost, while it forks another one in its place."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from uuid import uuid4

import pytest
from celery import Celery, states
from celery.backends.cache import CacheBackend

from spine_migrate.execution import RunRecord, RunStatus, SyncDispatcher, task_spec
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_shims import aftermath, configuration, configure, reroute
from tests.carrier import Carrier
from tests.executors import until

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
    task = reroute("work", app=app, name="aftermath.work")(_nothing)
    run_id = str(uuid4())
    ledger.create(RunRecord(task_spec("work"), run_id=run_id))
    ledger.claim(run_id, "lost", lease_seconds=60)
    app.backend.store_result(run_id, 7, state)
    asked_by.clear()
    aftermath.dead(task, {"id": run_id, "spine_run": run_id, "spine_attempt": 1}, RuntimeError("lost"))
    until(lambda: ledger.get(run_id).status is status, "It is not marked.")  # type: ignore[union-attr]  # it is there
    assert set(asked_by) == {threading.get_ident()}
    run = ledger.get(run_id)
    assert run is not None
    assert run.result == result
