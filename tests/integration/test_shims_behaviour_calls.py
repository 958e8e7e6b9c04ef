"""Ways of calling an old task, and the options of a call, through a real worker: the same for the caller in both modes.

The first two lines of each test's docstring are its row in shims/BEHAVIOUR.md.
"""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from secrets import token_hex
from typing import Any
from uuid import UUID, uuid4

import pytest
from celery.exceptions import TaskRevokedError, TimeLimitExceeded
from kombu.exceptions import EncodeError

from spine_migrate.execution.errors import InvalidSpecError
from tests.celery_worker import until
from tests.shims_place import Site
from tests.shims_tasks import QUIET

pytestmark = pytest.mark.filterwarnings(QUIET)


def test_delay(site: Site) -> None:
    """Behaviour: `delay` sends the task and gives its AsyncResult.
    Kept by: a run whose id is the task's, published with the old task's message by the relay.
    """
    result = site.tasks.add.delay(2, y=3)
    assert site.get(result) == 5
    site.sent(result)
    run = site.run(result)
    if run is not None:
        assert (run.spec.kind, run.spec.name, run.spec.params) == ("pipeline", "add", {"x": 2, "y": 3})
        assert (run.result, run.attempt, run.spec.trigger_source) == (5, 1, "celery")
        assert (run.external_ref, run.executor_name, run.spec.correlation_id) == (result.id, "celery", result.id)
        assert site.events(result) == ["created", "started", "completed"]
    body = "handler" if site.dispatches else "legacy"
    assert [noted for noted, _ in site.noted("add", result.id)] == [body]


def test_a_direct_call(site: Site) -> None:
    """Behaviour: `task(...)` executes the body in the caller's process and gives its result.
    Kept by: a run that the caller's process claims and marks.
    """
    assert site.tasks.add(2, 3) == 5
    runs = site.runs_of("add")
    assert [(run.status, run.spec.trigger_source) for run in runs] == [("completed", "call")] * site.dispatches
    for run in runs:
        assert site.events(run.run_id) == ["created", "started", "completed"]


def test_a_direct_call_that_raises(site: Site) -> None:
    """Behaviour: an exception of a direct call is the caller's.
    Kept by: it is raised as it is, and the run failed.
    """
    with pytest.raises(ValueError, match="no such thing"):
        site.tasks.fail("no such thing")
    assert [(run.status, run.error) for run in site.runs_of("fail")] == [("failed", "no such thing")] * site.dispatches


def test_a_call_inside_a_body(site: Site) -> None:
    """Behaviour: a body calls another old task directly.
    Kept by: a run of its own, whose parent is the caller's.
    """
    result = site.tasks.nested.delay(5)
    assert site.get(result) == 7
    run = site.run(result)
    if run is not None:
        (inner,) = site.runs_of("add")
        assert (inner.status, inner.spec.parent_run_id) == ("completed", run.run_id)


def test_apply(site: Site) -> None:
    """Behaviour: `apply` executes the task here and gives an EagerResult, of failures too.
    Kept by: a run that this process claims and marks.
    """
    result = site.tasks.add.apply((2,), {"y": 3})
    assert (result.get(), result.state) == (5, "SUCCESS")
    site.run(result)
    failed = site.tasks.fail.apply(("eager",))
    assert (str(failed.result), failed.state) == ("eager", "FAILURE")
    site.run(failed, "failed")


def test_apply_that_retries(site: Site) -> None:
    """Behaviour: a retry in `apply` is executed here, at once.
    Kept by: another attempt of the same run, without its countdown.
    """
    result = site.tasks.again.apply((1, 30))
    assert result.get() == [1, True]
    run = site.run(result)
    assert run is None or run.attempt == 2


def test_eager_mode(site: Site) -> None:
    """Behaviour: with `task_always_eager` every call is executed here.
    Kept by: as `apply`; nothing is stored before, nothing published.
    """
    with site.settings(task_always_eager=True):
        result = site.tasks.add.delay(2, 3)
    assert (result.get(), result.state) == (5, "SUCCESS")
    site.run(result)


def test_eager_exceptions(site: Site) -> None:
    """Behaviour: with `task_eager_propagates` a caller meets the exception.
    Kept by: it is raised as it is, and the run failed.
    """
    eager = site.settings(task_always_eager=True, task_eager_propagates=True)
    with eager, pytest.raises(ValueError, match="eager"):
        site.tasks.fail.delay("eager")
    assert [run.status for run in site.runs_of("fail")] == ["failed"] * site.dispatches


def test_countdown(site: Site) -> None:
    """Behaviour: `countdown` keeps a task back for so many seconds.
    Kept by: the run's due time; nothing is in the broker before.
    """
    called, at = time.monotonic(), datetime.now(UTC)
    result = site.tasks.add.apply_async((1,), countdown=0.5)
    state = result.state
    # Where only now the time is over, nobody was slow but this test.
    assert state == "PENDING" or time.monotonic() - called >= 0.5
    assert site.get(result) == 2
    run = site.run(result)
    if run is not None and run.started_at is not None:
        assert run.started_at - at >= timedelta(seconds=0.5)
    assert time.monotonic() - called >= 0.4


@pytest.mark.parametrize("naive", [False, True], ids=["aware", "naive"])
def test_eta(site: Site, *, naive: bool) -> None:
    """Behaviour: `eta` keeps a task back until a time, in the app's zone where it names none.
    Kept by: the run's due time; nothing is in the broker before.
    """
    eta = datetime.now(UTC) + timedelta(seconds=0.3)
    result = site.tasks.add.apply_async((1,), eta=eta.replace(tzinfo=None) if naive else eta)
    assert site.get(result) == 2
    run = site.run(result)
    assert run is None or run.started_at is None or run.started_at >= eta


def test_expires(site: Site) -> None:
    """Behaviour: a task that has expired is not executed, and its result says that it was revoked.
    Kept by: the message keeps its time; the run is cancelled.
    """
    result = site.tasks.add.apply_async((1,), expires=datetime.now(UTC) - timedelta(seconds=5))
    with pytest.raises(TaskRevokedError):
        site.get(result)
    run = site.run(result, "cancelled")
    if run is not None:
        assert site.dispatcher.get_events(run.run_id)[-1].data == {"reason": "expired"}
    assert site.noted("add") == []


def test_expires_that_is_far(site: Site) -> None:
    """Behaviour: a task that expires later is executed as any other.
    Kept by: the run's time of expiry.
    """
    result = site.tasks.add.apply_async((1,), expires=600)
    assert site.get(result) == 2
    site.run(result)


def test_queue(site: Site) -> None:
    """Behaviour: `queue` sends a task to a queue.
    Kept by: the message keeps it; it is the run's lane.
    """
    queue = site.place.lanes()["background"]
    result = site.tasks.request.apply_async(queue=queue)
    assert site.get(result)["delivery_info"]["routing_key"] == queue
    run = site.run(result)
    assert run is None or run.spec.lane == queue


def test_routing(site: Site) -> None:
    """Behaviour: `task_routes` sends a task to a queue.
    Kept by: the caller's router is asked at the call, and the message keeps what it says.
    """
    queue = site.place.lanes()["background"]
    with site.settings(task_routes={f"{site.mode}.request": {"queue": queue, "priority": 3}}):
        result = site.tasks.request.delay()
    info = site.get(result)["delivery_info"]
    assert (info["routing_key"], info["priority"]) == (queue, 3)
    run = site.run(result)
    assert run is None or run.spec.lane == queue


def test_exchange_and_routing_key(site: Site) -> None:
    """Behaviour: `exchange` and `routing_key` address a queue's binding.
    Kept by: the message keeps them.
    """
    queue = f"{site.place.prefix}celery"
    result = site.tasks.request.apply_async(exchange=queue, routing_key=queue)
    assert site.get(result)["task"] == f"{site.mode}.request"
    site.run(result)


def test_priority(site: Site) -> None:
    """Behaviour: `priority` is the broker's number.
    Kept by: the message keeps it; the run has the priority of that urgency.
    """
    result = site.tasks.request.apply_async(priority=0)
    assert site.get(result)["delivery_info"]["priority"] == 0
    run = site.run(result)
    lowest = "slow" if site.place.broker.startswith("amqp") else "realtime"
    assert run is None or run.spec.priority == lowest


def test_headers(site: Site) -> None:
    """Behaviour: a task sees the headers of its call.
    Kept by: the message keeps them, beside one of the shim's own.
    """
    result = site.tasks.request.apply_async(headers={"tenant": "seven", "n": 1})
    assert site.get(result)["headers"] == {"tenant": "seven", "n": 1}
    site.run(result)


@pytest.mark.parametrize("form", ["uuid", "text"])
def test_task_id(site: Site, form: str) -> None:
    """Behaviour: `task_id` is the task's id, of whatever form.
    Kept by: it is the run's; where it is no uuid, the run has one made of it and names it in its metadata.
    """
    task_id = str(uuid4()) if form == "uuid" else f"nightly {token_hex(4)}"
    result = site.tasks.request.apply_async(task_id=task_id)
    assert (result.id, site.get(result)["id"]) == (task_id, task_id)
    site.sent(result)
    run = site.run(result)
    if run is not None:
        assert run.external_ref == task_id
        assert (run.run_id == task_id) == (form == "uuid")


def test_one_task_id_for_two_calls(site: Site) -> None:
    """Behaviour: two calls under one id are two executions.
    Kept by: a run each; the second names the id in its metadata.
    """
    task_id = str(uuid4())
    results = [site.tasks.add.apply_async((x,), task_id=task_id) for x in (1, 2)]
    assert {site.get(result) for result in results} <= {2, 3}
    until(lambda: len(site.noted("add")) == 2, "It is not executed twice", site.worker)
    site.sent(results[0], count=2)


def test_link(site: Site) -> None:
    """Behaviour: `link` sends a task with the result.
    Kept by: the message keeps it, with an id, so that it is the same call however often the message is published.
    """
    tasks = site.tasks
    result = tasks.add.apply_async((1,), link=[tasks.add.s(100), tasks.plain.s("linked")])
    assert site.get(result) == 2
    until(lambda: site.noted("plain"), "The link is not called", site.worker)
    assert site.noted("plain") == [("plain", [2, "linked"])]
    run = site.run(result)
    if run is not None:
        until(lambda: [run.status for run in site.runs_of("add")] == ["completed"] * 2, "No link", site.worker)
        assert [(run.spec.parent_run_id, run.result) for run in site.runs_of("add")] == [(None, 2), (run.run_id, 102)]


def test_link_error(site: Site) -> None:
    """Behaviour: `link_error` sends a task with the id of the one that failed.
    Kept by: the message keeps it; the run is marked as failed afterwards.
    """
    result = site.tasks.fail.apply_async(("bad",), link_error=site.tasks.errback.s())
    with pytest.raises(ValueError, match="bad"):
        site.get(result)
    until(lambda: site.noted("errback"), "The errback is not called", site.worker)
    assert site.noted("errback") == [("plain", result.id)]
    run = site.run(result, "failed")
    if run is not None:
        assert (run.error, run.error_type) == ("bad", "ValueError")
        assert site.events(result) == ["created", "started", "failed"]


def test_ignore_result(site: Site) -> None:
    """Behaviour: with `ignore_result` no result is stored.
    Kept by: the message keeps it; the run has its result all the same.
    """
    result = site.tasks.add.apply_async((1,), ignore_result=True)
    until(lambda: site.noted("add"), "It is not executed", site.worker)
    assert (result.get(), result.ignored) == (None, True)
    run = site.run(result)
    assert run is None or run.result == 2


def test_soft_time_limit(site: Site) -> None:
    """Behaviour: a soft time limit, the task's or the call's, raises SoftTimeLimitExceeded in the body.
    Kept by: Celery's own; the message keeps the call's.
    """
    # Of both processes: the limit runs from before one has made its first connection.
    for slept in [site.tasks.sleep.delay(0.5) for _ in range(4)]:
        site.get(slept)
    result = site.tasks.limited.delay(60)
    assert site.get(result) == "stopped"
    site.run(result)


def test_time_limit(site: Site) -> None:
    """Behaviour: a hard time limit kills the process, and the result is TimeLimitExceeded.
    Kept by: Celery's own; its main process marks the run as failed, and nobody tries it again.
    """
    # Of both processes: the limit runs from before one has made its first connection.
    for slept in [site.tasks.sleep.delay(0.5) for _ in range(4)]:
        site.get(slept)
    result = site.tasks.sleep.apply_async((60,), time_limit=6)
    with pytest.raises(TimeLimitExceeded):
        site.get(result)
    run = site.run(result, "failed")
    assert run is None or run.error_type == "TimeLimitExceeded"


def test_shadow_and_argsrepr(site: Site) -> None:
    """Behaviour: `shadow` and `argsrepr` change what monitors show.
    Kept by: the message keeps them.
    """
    result = site.tasks.request.apply_async(("secret",), shadow="another name", argsrepr="hidden")
    assert site.get(result)["shadow"] == "another name"
    site.run(result)


def test_the_types_that_celery_sends(site: Site) -> None:
    """Behaviour: dates, times, decimals and uuids come to the body as what they are.
    Kept by: the message is Celery's own JSON; in the run's params they are text.
    """
    given = {"day": date(2026, 2, 28), "share": Decimal("0.10"), "key": UUID(int=7), "big": 1e300, "nul": "a\0b"[0]}
    result = site.tasks.echo.delay(*given.values(), **given)
    assert repr(site.get(result)) == repr([list(given.values()), given])
    run = site.run(result)
    if run is not None:
        assert {name: run.spec.params[name] for name in ("day", "share")} == {"day": "2026-02-28", "share": "0.10"}


def test_a_wrong_call(site: Site) -> None:
    """Behaviour: arguments that do not fit the signature are a TypeError at the call.
    Kept by: Celery's own check, before anything is stored.
    """
    with pytest.raises(TypeError):
        site.tasks.add.delay()
    assert site.runs_of("add") == []


def test_a_result_that_is_no_json(site: Site) -> None:
    """Behaviour: the caller has whatever the result serializer can carry.
    Kept by: Celery's own; the run has it as plain JSON, or an event that says of which type it was.
    """
    result = site.tasks.unstorable.delay()
    assert site.get(result) == {"at": datetime(2026, 1, 2)}  # noqa: DTZ001 - as people have them
    run = site.run(result)
    assert run is None or run.result == {"at": "2026-01-02T00:00:00"}


@pytest.mark.parametrize(
    ("args", "options", "field", "taken"),
    [
        (({1, 2},), {}, "x", False),
        ((1, object()), {}, "y", False),
        ((float("nan"),), {}, "x", True),
        ((1,), {"headers": {"a": object()}}, "headers", False),
        ((1,), {"taskset_id": "s"}, "taskset_id", True),
    ],
    ids=["a set", "an object", "no number", "a header", "an unknown option"],
)
def test_what_cannot_be_carried(site: Site, args: Any, options: Any, field: str, taken: bool) -> None:  # noqa: FBT001
    """Behaviour: what Celery cannot serialize is an error at the call.
    Kept by: so is what cannot be stored as JSON, or an unknown option, by name; legacy mode takes what Celery takes.
    """
    if site.dispatches:
        with pytest.raises(InvalidSpecError, match=field) as caught:
            site.tasks.add.apply_async(args, **options)
        assert caught.value.field == field
        assert "object at 0x" not in str(caught.value)
    elif taken:
        assert str(site.get(site.tasks.add.apply_async(args, **options))) == str(args[0] + 1)
    else:
        # With AMQP headers are no JSON, and what it cannot write is an error of its own.
        with site.app.connection_for_write() as connection:
            errors = (EncodeError, TypeError, *connection.connection_errors)
        with pytest.raises(errors, match=r"not JSON serializable|not handled by amqp"):
            site.tasks.add.apply_async(args, **options)
    assert len(site.noted("add")) == (taken and not site.dispatches)
    assert site.runs_of("add") == []


def test_a_live_connection(site: Site) -> None:
    """Behaviour: `connection` and `producer` publish over a connection of the caller's.
    Kept by: they are refused by name at the call, since a call is stored; legacy mode takes them.
    """
    with site.app.connection_for_write() as connection, site.app.amqp.Producer(connection) as producer:
        for name, live in (("connection", connection), ("producer", producer)):
            if site.dispatches:
                with pytest.raises(InvalidSpecError, match=name):
                    site.tasks.add.apply_async((1,), **{name: live})
            else:
                assert site.get(site.tasks.add.apply_async((1,), **{name: live})) == 2
