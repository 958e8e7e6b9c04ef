"""Every way of calling an old task, through a real worker: the caller sees the same in both modes."""

from __future__ import annotations

import pytest

from tests.shims_place import Site
from tests.shims_tasks import QUIET

pytestmark = pytest.mark.filterwarnings(QUIET)


def test_delay(site: Site) -> None:
    """Behaviour: `delay` sends the task and gives an AsyncResult.
    Kept by: a run under the task's id, published by the relay as the old message.
    """
    result = site.tasks.add.delay(2, y=3)
    assert site.get(result) == 5
    run = site.run(result)
    if run is not None:
        assert (run.spec.kind, run.spec.name, run.spec.params, run.result) == ("pipeline", "add", {"x": 2, "y": 3}, 5)
        assert site.events(result) == ["created", "queued", "started", "completed"]


def test_a_direct_call(site: Site) -> None:
    """Behaviour: a direct call executes the body in the caller's process and gives its result.
    Kept by: a run that this process claims and marks.
    """
    assert site.tasks.add(2, 3) == 5
    runs = site.runs_of("add")
    assert [run.status for run in runs] == (["completed"] if site.dispatches else [])


def test_retry(site: Site) -> None:
    """Behaviour: x
    Kept by: y.
    """
    result = site.tasks.again.delay(2)
    assert site.get(result) == [2, True]
    run = site.run(result)
    if run is not None:
        assert run.attempt == 3


def test_autoretry(site: Site) -> None:
    """Behaviour: x
    Kept by: y.
    """
    result = site.tasks.flaky.delay(2)
    assert site.get(result) == 3
    run = site.run(result)
    if run is not None:
        assert run.attempt == 3
