"""What bodies of old tasks do and see, through a real worker: the same in both modes.

The first two lines of each test's docstring are its row in shims/BEHAVIOUR.md.
"""

from __future__ import annotations

from dataclasses import replace
from socket import gethostname
from typing import Any

import pytest

from tests.celery_worker import until
from tests.shims_place import Site
from tests.shims_tasks import QUIET, Flaky
from tests.waiting import LONGEST

pytestmark = pytest.mark.filterwarnings(QUIET)


def test_bind(site: Site) -> None:
    """Behaviour: with `bind=True` a body has its task, and `self.request` says how it was called.
    Kept by: the body is called in Celery's own request.
    """
    result = site.tasks.request.delay(1, 2)
    said = site.get(result)
    expected = {
        "id": result.id, "root_id": result.id, "parent_id": None, "retries": 0, "is_eager": False, "group": None,
        "called_directly": False, "args": [1, 2], "kwargs": {}, "task": f"{site.mode}.request",
    }  # fmt: skip
    assert {name: said[name] for name in expected} == expected
    site.run(result)


def test_retry(site: Site) -> None:
    """Behaviour: `self.retry` executes the task again under its id, with other arguments if it gives some.
    Kept by: another attempt of the same run, whose message is the retry's; it is published once the run waits again.
    """
    result = site.tasks.again.delay(2)
    assert site.get(result) == [2, True]
    run = site.run(result)
    assert sorted(said for _, said in site.noted("again")) == [0, 1, 2]
    if run is not None:
        assert run.attempt == 3
        again = ["started", "retry_scheduled"]
        assert site.events(result) == ["created", *again, *again, "started", "completed"]


def test_retry_after_a_while(site: Site) -> None:
    """Behaviour: a retry's `countdown` is waited for.
    Kept by: the run's due time.
    """
    result = site.tasks.again.delay(1, 0.4)
    assert site.get(result) == [1, True]
    run = site.run(result)
    if run is not None:
        # From the first start: when the retry is due was said before it was written down.
        first, second = [
            event.timestamp for event in site.dispatcher.get_events(run.run_id) if event.event_type == "started"
        ]
        assert (second - first).total_seconds() >= 0.4


def test_retries_that_run_out(site: Site) -> None:
    """Behaviour: beyond `max_retries` the result is the exception that the retry was given.
    Kept by: the run failed with it.
    """
    result = site.tasks.again.delay(9)
    with pytest.raises(Flaky, match="try 2"):
        site.get(result)
    run = site.run(result, "failed")
    if run is not None:
        assert (run.attempt, run.error, run.error_type) == (3, "try 2", "Flaky")


def test_retry_without_throwing(site: Site) -> None:
    """Behaviour: with `throw=False` a body goes on, and the task is executed again all the same.
    Kept by: another attempt of the same run.
    """
    result = site.tasks.quietly.delay()
    until(lambda: len(site.noted("quietly")) == 2, "It is not executed again", site.worker)
    run = site.run(result)
    assert run is None or (run.attempt, run.result) == (2, 1)


@pytest.mark.parametrize("times", [1, 5], ids=["mended", "given up"])
def test_autoretry_for(site: Site, times: int) -> None:
    """Behaviour: `autoretry_for` retries what the body raises.
    Kept by: Celery's own, which is around the handler as it is around the old body.
    """
    result = site.tasks.flaky.delay(times)
    if times == 1:
        assert site.get(result) == 2
    else:
        with pytest.raises(Flaky, match="attempt 3"):
            site.get(result)
    run = site.run(result, "completed" if times == 1 else "failed")
    assert run is None or run.attempt == min(times + 1, 3)
    assert len(site.noted("flaky")) == min(times + 1, 3)


@pytest.mark.parametrize("how", ["shim", "chain", "plain"])
def test_replace(site: Site, how: str) -> None:
    """Behaviour: `self.replace` has another task, or canvas, take the task's place, under its id.
    Kept by: the replaced run completes with an event; an old task in its place has a run of its own that names it.
    """
    result = site.tasks.replaced.delay(1, how)
    assert site.get(result) == {"shim": 11, "chain": 111, "plain": [1]}[how]
    if not site.dispatches:
        assert site.runs_of("replaced") == []
        return
    until(lambda: all(run.status == "completed" for run in site.runs_of("add") + site.runs_of("replaced")), "No end")
    (replaced,) = site.runs_of("replaced")
    assert (replaced.run_id, replaced.result) == (result.id, None)
    assert "replaced" in site.events(replaced.run_id)
    last = site.runs_of("add")[-1:]
    assert [run.spec.metadata["celery_task_id"] for run in last] == [result.id] * (how != "plain")


def test_a_replaced_part_of_a_chord(site: Site) -> None:
    """Behaviour: a task of a chord's header that is replaced counts once, with the result of its replacement.
    Kept by: Celery's own; the replacement's message keeps the chord.
    """
    from celery import chord, group

    header = group(site.tasks.replaced.s(1), site.tasks.add.s(1))
    assert site.get(chord(header)(site.tasks.echo.s())) == [[[11, 2]], {}]
    if site.dispatches:
        until(lambda: [run.status for run in site.runs_of("add")] == ["completed"] * 2, "No end", site.worker)


def test_ignore(site: Site) -> None:
    """Behaviour: a body that raises Ignore leaves no result.
    Kept by: the run completes, without a result and with an event `ignored`.
    """
    result = site.tasks.ignored.delay()
    until(lambda: site.noted("ignored"), "It is not executed", site.worker)
    run = site.run(result)
    assert result.state == "PENDING"
    if run is not None:
        assert run.result is None
        assert site.events(result) == ["created", "started", "ignored", "completed"]


def test_reject(site: Site) -> None:
    """Behaviour: a body that raises Reject gives its message up.
    Kept by: a dead letter, which a person can bring back.
    """
    result = site.tasks.rejected.delay()
    until(lambda: site.noted("rejected"), "It is not executed", site.worker)
    run = site.run(result, "dead_lettered")
    assert run is None or run.error == "not now"


def test_reject_and_requeue(site: Site) -> None:
    """Behaviour: a body that raises Reject with `requeue` is executed again, where it acknowledges late.
    Kept by: the run waits again, in the same attempt.
    """
    result = site.tasks.rejected.delay(requeue=True)
    if not site.dispatches:
        assert site.get(result) == "redelivered"
        return
    until(lambda: len(site.noted("rejected")) > 1, "It is not executed again", site.worker)
    (run,) = site.runs(result.id)
    assert run.attempt == 1
    assert "postponed" in site.events(result)
    site.dispatcher.cancel(run.run_id)


def test_update_state(site: Site) -> None:
    """Behaviour: `self.update_state` stores a state of the body's own.
    Kept by: Celery's own.
    """
    result = site.tasks.states.delay()
    assert site.get(result) == "done"
    assert site.noted("states") == [("legacy", "HALFWAY")]
    site.run(result)


def test_a_call_from_a_body(site: Site) -> None:
    """Behaviour: a call from a body is a child of the task, and `children` of its result tells it.
    Kept by: the caller's run is the parent; Celery notes the child.
    """
    result = site.tasks.parent.delay(2)
    ids = site.get(result)
    assert [child.id for child in result.children] == ids
    run = site.run(result)
    for child in ids:
        of_child = site.run(child)
        if run is not None and of_child is not None:
            assert (of_child.spec.parent_run_id, of_child.spec.correlation_id) == (run.run_id, result.id)


@pytest.mark.parametrize("how", ["success", "fail", "retry"])
def test_hooks(site: Site, how: str) -> None:
    """Behaviour: `before_start`, `on_success`, `on_failure`, `on_retry` and `after_return` are called, as overridden.
    Kept by: the shim uses none of them: the run is marked when Celery sends `task_postrun`.
    """
    result = site.tasks.hooked.delay(how)
    further: dict[str, list[tuple[str, Any]]] = {
        "success": [("on_success", "success"), ("after_return", "SUCCESS")],
        "fail": [("on_failure", "hooked"), ("after_return", "FAILURE")],
        "retry": [("on_retry", "once"), ("before_start", None), ("on_success", "retry"), ("after_return", "SUCCESS")],
    }
    expected = [("before_start", None), *further[how]]

    def called() -> list[tuple[Any, ...]]:
        """A retry that Celery publishes at once may be executed, and end, before its on_retry is."""
        return sorted(site.noted("hooked", result.id), key=str)

    until(lambda: len(called()) >= len(expected), lambda: f"Not called: {called()}", site.worker)
    assert called() == sorted(expected, key=str)
    site.run(result, "failed" if how == "fail" else "completed")


def test_a_base_class_that_calls(site: Site) -> None:
    """Behaviour: an application's base class with a `__call__`, which opens a context around bodies, is used.
    Kept by: the shim's own comes before it and calls it.
    """
    result = site.tasks.inside.delay()
    assert site.get(result) == 1
    assert site.tasks.inside() == 1
    site.run(result)


def test_annotations(site: Site) -> None:
    """Behaviour: `task_annotations` change attributes of a task by its name.
    Kept by: the task has its old name.
    """
    result = site.tasks.request.delay()
    assert site.get(result)["annotated"] == site.mode
    site.run(result)


def test_rate_limit(site: Site) -> None:
    """Behaviour: a rate limit, of the task or set at run time, keeps a worker from executing more.
    Kept by: Celery's own, by the task's name; what waits in the worker is a run that is queued.
    """
    place = replace(site.place, prefix=f"{site.place.prefix}limited-")
    name, queue, node = f"{site.mode}.echo", f"{place.prefix}celery", f"{place.prefix}@{gethostname()}"
    with place.worker(4) as worker:
        asked = {"destination": [node], "timeout": LONGEST, "limit": 1}
        until(lambda: site.app.control.ping(**{**asked, "timeout": 1}), "The worker does not answer", worker)
        assert site.app.control.rate_limit(name, "1/h", reply=True, **asked)
        first, *others = [site.tasks.echo.apply_async((n,), queue=queue) for n in range(3)]
        assert site.get(first) == [[0], {}]
        # Of another task, which come after them.
        for n in range(4):
            assert site.get(site.tasks.add.apply_async((n,), queue=queue)) == n + 1
        assert len(site.noted("echo")) == 1
    site.run(first)
    assert {run.status for one in others for run in site.runs(one.id)} <= {"queued"}
    place.discard()


def test_signals(site: Site) -> None:
    """Behaviour: `task_prerun` and its like are sent with the task as their sender.
    Kept by: the task is the one that Celery executes.
    """
    result = site.tasks.old.delay(4)
    assert site.get(result) == 8
    until(lambda: len(site.noted("old")) == 2, "No signal", site.worker)
    assert sorted(body for body, _ in site.noted("old", result.id)) == ["legacy", "prerun"]
    site.run(result)


def test_a_class(site: Site) -> None:
    """Behaviour: an old task is a class with a `run`.
    Kept by: the base class of shims takes a route as an attribute.
    """
    assert site.tasks.old(5) == 10
    assert [run.spec.name for run in site.runs_of("old")] == ["old"] * site.dispatches


def test_run_itself(site: Site) -> None:
    """Behaviour: `task.run(...)` is the old body, without Celery.
    Kept by: it still is, without a run; unit tests call it.
    """
    assert site.tasks.add.run(2, 3) == 5
    assert site.runs_of("add") == []
