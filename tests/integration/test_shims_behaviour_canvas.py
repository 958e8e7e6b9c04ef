"""Old tasks in Celery's canvas, through a real worker: the same results in both modes, and a run for each execution.

The first two lines of each test's docstring are its row in shims/BEHAVIOUR.md.
"""

from __future__ import annotations

from typing import Any

import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError

from tests.celery_worker import until
from tests.shims_place import Site
from tests.shims_tasks import QUIET

pytestmark = pytest.mark.filterwarnings(QUIET)


def completed(site: Site, name: str, number: int) -> list[Any]:
    """The runs of a task once that many have completed; none in legacy mode."""
    if not site.dispatches:
        assert site.runs_of(name) == []
        return []
    until(lambda: [run.status for run in site.runs_of(name)] == ["completed"] * number, f"Not {number}", site.worker)
    return site.runs_of(name)


def test_s(site: Site) -> None:
    """Behaviour: `s` makes a signature, to which arguments are added before its own.
    Kept by: Celery's own; a signature is sent by the task's `apply_async`.
    """
    assert site.get(site.tasks.add.s(y=10).delay(1)) == 11
    assert [run.spec.params for run in completed(site, "add", 1)] == [{"x": 1, "y": 10}] * site.dispatches


def test_si(site: Site) -> None:
    """Behaviour: `si` makes a signature that takes nothing from the task before it.
    Kept by: Celery's own.
    """
    assert site.get((site.tasks.add.s(1) | site.tasks.add.si(5, 5)).delay()) == 10
    completed(site, "add", 2)


def test_a_signature_by_name(site: Site) -> None:
    """Behaviour: a signature knows its task by name alone, as one that was stored does.
    Kept by: the app's task of that name sends it.
    """
    signature = site.app.signature({"task": f"{site.mode}.add", "args": [2, 3], "kwargs": {}, "options": {}})
    assert site.get(signature.apply_async()) == 5
    completed(site, "add", 1)


def test_a_direct_call_of_a_signature(site: Site) -> None:
    """Behaviour: a signature that is called is a direct call.
    Kept by: a run that this process claims and marks.
    """
    assert site.tasks.add.s(2, 3)() == 5
    completed(site, "add", 1)


def test_chain(site: Site) -> None:
    """Behaviour: the result of a task of a chain goes to the next one.
    Kept by: the worker that has marked nothing yet sends the next one, whose run has the first as its parent.
    """
    add = site.tasks.add
    result = chain(add.s(1, 1), add.s(10), add.s(100))()
    assert site.get(result) == 112
    runs = completed(site, "add", 3)
    if runs:
        assert [run.spec.parent_run_id for run in runs] == [None, runs[0].run_id, runs[1].run_id]
        assert {run.spec.correlation_id for run in runs} == {runs[0].run_id}
        assert [run.run_id for run in runs] == [result.parent.parent.id, result.parent.id, result.id]


def test_a_chain_that_fails(site: Site) -> None:
    """Behaviour: a chain ends with the first task that fails, and its result is that failure.
    Kept by: Celery's own; what would have come next has no run.
    """
    result = chain(site.tasks.fail.si("in the middle"), site.tasks.add.si(1))()
    with pytest.raises(ValueError, match="in the middle"):
        site.get(result)
    site.run(result.parent, "failed")
    assert site.runs_of("add") == []


def test_group(site: Site) -> None:
    """Behaviour: a group's results are in its order.
    Kept by: a run for each; the messages keep group and place.
    """
    result = group(site.tasks.add.s(n, n) for n in range(4)).delay()
    assert site.get(result) == [0, 2, 4, 6]
    completed(site, "add", 4)


def test_a_group_in_a_chain(site: Site) -> None:
    """Behaviour: every task of a group gets the result of the one before, and the next one gets theirs.
    Kept by: Celery makes a chord of it.
    """
    tasks = site.tasks
    result = chain(tasks.add.s(1, 1), group(tasks.add.s(10), tasks.add.s(20)), tasks.echo.s())()
    assert site.get(result) == [[[12, 22]], {}]
    completed(site, "add", 3)
    completed(site, "echo", 1)


def test_chord(site: Site) -> None:
    """Behaviour: a chord's body gets the results of its header, once all are there.
    Kept by: the messages keep the chord; the body is sent when the last one's result is stored.
    """
    result = chord(group(site.tasks.add.s(n, 1) for n in range(4)))(site.tasks.echo.s())
    assert site.get(result) == [[[1, 2, 3, 4]], {}]
    runs = completed(site, "add", 4)
    (body,) = completed(site, "echo", 1) or [None]
    if body is not None:
        assert body.run_id == result.id
        assert body.spec.parent_run_id in {run.run_id for run in runs}


def test_a_chord_whose_header_fails(site: Site) -> None:
    """Behaviour: a chord's body is not called where a task of its header fails, and its result is that failure.
    Kept by: Celery's own.
    """
    header = group(site.tasks.add.s(1), site.tasks.fail.s("header"))
    result = chord(header)(site.tasks.echo.s())
    with pytest.raises((ChordError, ValueError), match="header"):
        site.get(result)
    completed(site, "add", 1)
    assert site.noted("echo") == []


def test_a_chord_of_both(site: Site) -> None:
    """Behaviour: a chord has old tasks and other tasks in its header, and another task as its body.
    Kept by: those that are no shims are Celery's own business.
    """
    header = group(site.tasks.add.s(1), site.tasks.plain.s(2))
    assert site.get(chord(header)(site.tasks.plain.s())) == [[2, [2]]]
    completed(site, "add", 1)


def test_map(site: Site) -> None:
    """Behaviour: `map` is one message, whose worker calls the task for each item.
    Kept by: a run for each, as for direct calls.
    """
    assert site.get(site.tasks.add.map([1, 2, 3]).delay()) == [2, 3, 4]
    completed(site, "add", 3)


def test_starmap(site: Site) -> None:
    """Behaviour: `starmap` likewise, with several arguments.
    Kept by: a run for each, as for direct calls.
    """
    assert site.get(site.tasks.add.starmap([(1, 10), (2, 20)]).delay()) == [11, 22]
    completed(site, "add", 2)


def test_chunks(site: Site) -> None:
    """Behaviour: `chunks` are messages with several items each.
    Kept by: a run for each item, as for direct calls.
    """
    assert site.get(site.tasks.add.chunks([(n, n) for n in range(5)], 2)()) == [[0, 2], [4, 6], [8]]
    completed(site, "add", 5)


def test_stamps(site: Site) -> None:
    """Behaviour: a stamped canvas puts its stamps into every message.
    Kept by: the messages keep them.
    """
    signature = site.tasks.request.s()
    signature.stamp(team="seven")
    result = signature.apply_async()
    assert site.get(result)["stamps"] == {"team": "seven"}
    site.run(result)
