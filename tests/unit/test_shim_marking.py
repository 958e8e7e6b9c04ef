"""How an execution is marked when the limits of its body are over, too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from spine_migrate.execution import HandlerRegistry, RunRecord, RunStatus, SyncDispatcher
from spine_migrate.execution.executors.memory import MemoryExecutor
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_shims import configure, reroute
from spine_shims.configuration import reset
from spine_shims.modes import Modes
from tests.shims_tasks import QUIET

pytestmark = pytest.mark.filterwarnings(QUIET)


class Interrupted(MemoryLedger):
    """The first mark takes so long that Celery's signal comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = True

    def complete(self, run_id: str, result: Any, *, fence: int | None = None, attempt: int | None = None) -> RunRecord:
        if self.waits:
            self.waits = False
            raise SoftTimeLimitExceeded
        return super().complete(run_id, result, fence=fence, attempt=attempt)


@pytest.fixture
def dispatcher() -> Iterator[SyncDispatcher]:
    made = SyncDispatcher(MemoryExecutor(Interrupted()), registry=HandlerRegistry(), publish=False)
    configure(made, modes=Modes(environment={}))
    yield made
    reset()


def test_a_soft_time_limit_that_comes_with_the_mark_is_late(dispatcher: SyncDispatcher) -> None:
    """The body has returned, and is not to be executed once more for want of a mark."""
    with Celery("marking", broker="memory://", backend="cache+memory://", set_as_current=False) as app:
        task = reroute("work", app=app, name="marking.work")(_more)
        assert task.apply((1,)).get() == 2
    (run,) = dispatcher.list_runs()
    assert run.status is RunStatus.COMPLETED


def _more(x: int) -> int:
    return x + 1
