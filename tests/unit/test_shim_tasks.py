"""How a function becomes a shim, and a call a run; what is executed is executed here, in memory."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from celery import Celery, Task, shared_task
from kombu.entity import Queue

from spine_migrate.errors import ConfigurationError
from spine_migrate.execution import HandlerRegistry, RunRecord, SyncDispatcher
from spine_migrate.execution.errors import ConcurrencyError, InvalidSpecError
from spine_migrate.execution.executors.celery_message import TaskMessage
from spine_migrate.execution.executors.memory import MemoryExecutor
from spine_migrate.execution.jsonable import plain
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_shims import RerouteTask, Route, configure, reroute
from spine_shims.configuration import reset
from spine_shims.modes import Modes
from tests.shims_tasks import QUIET

pytestmark = pytest.mark.filterwarnings(QUIET)


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery(broker="memory://", backend="cache+memory://", set_as_current=True) as made:
        yield made


@pytest.fixture
def dispatcher() -> Iterator[SyncDispatcher]:
    """It publishes nothing, as with a relay."""
    made = SyncDispatcher(MemoryExecutor(MemoryLedger()), registry=HandlerRegistry(), publish=False)
    configure(made, modes=Modes(environment={}))
    yield made
    reset()


def nothing() -> None:
    pass


def more(x: int) -> int:
    return x + 1


def the_run(dispatcher: SyncDispatcher) -> RunRecord:
    (summary,) = dispatcher.list_runs()
    run = dispatcher.get_run(summary.run_id)
    assert run is not None
    return run


def test_a_shim_is_a_task_of_the_app(app: Celery, dispatcher: SyncDispatcher) -> None:
    @reroute("work", app=app, name="old.name", bind=True, shared=False, rate_limit="7/s")
    def work(self: Task, x: int, *, y: int = 2) -> Any:
        """What it did."""
        return self.name, x, y

    assert (work.name, work.rate_limit, work.__doc__) == ("old.name", "7/s", "What it did.")
    assert isinstance(work, RerouteTask)
    assert app.tasks["old.name"] == work
    assert str(inspect.signature(work.run)) == "(x: 'int', *, y: 'int' = 2) -> 'Any'"
    assert work.run(1) == ("old.name", 1, 2)
    assert work(1, y=3) == ("old.name", 1, 3)
    assert the_run(dispatcher).spec.params == {"x": 1, "y": 3}


def test_without_an_app_it_is_shared(dispatcher: SyncDispatcher) -> None:
    """Each app has it, on the base class of its own tasks; nothing is read of any app before."""

    class Theirs(Task):  # type: ignore[misc]  # Celery has no types
        abstract = True
        theirs = True

    @reroute("work", name="tests.shared_by_reroute")
    def work() -> str:
        return "done"

    with Celery(broker="memory://", task_cls=Theirs, set_as_current=True) as one:
        assert work() == "done"
        assert (work.app, work.theirs) == (one, True)
    with Celery(broker="memory://", set_as_current=True) as other:
        assert work.app is other
        assert not hasattr(work, "theirs")


def test_a_route_is_an_option_of_a_task(app: Celery, dispatcher: SyncDispatcher) -> None:
    task = app.task(base=RerouteTask, route=Route("work"), name="old.name", shared=False)(more)
    assert task(1) == 2
    assert the_run(dispatcher).spec.name == "work"


def test_without_a_route_it_is_a_task_as_any(app: Celery) -> None:
    """So that it can be the base class of all tasks of an app; nothing needs to be configured for it."""
    task = app.task(base=RerouteTask, name="any.name", shared=False)(more)
    assert task(1) == 2
    assert task.apply((1,)).get() == 2


def test_a_task_is_not_made_a_shim(app: Celery) -> None:
    """Which would need an app that has been configured, and that two decorators agree."""
    for made in (app.task(shared=False)(nothing), shared_task(name="tests.shared_twice")(nothing)):
        with pytest.raises(ConfigurationError, match=r"takes the place of @app.task"):
            reroute("work")(made)


def test_where_runs_go_has_to_be_said(app: Celery) -> None:
    task = reroute("work", app=app, shared=False)(nothing)
    for call in (task, task.delay, task.apply):
        with pytest.raises(ConfigurationError, match=r"spine_shims\.configure"):
            call()


@pytest.mark.parametrize("options", [{"publish": "direct"}, {"schema": "spine"}, {"wait_for_disk": False}], ids=repr)
def test_what_a_dispatcher_knows_itself_goes_with_a_url(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="go with a URL"):
        configure(SyncDispatcher(MemoryExecutor(MemoryLedger())), **options)


@pytest.mark.parametrize(
    "options",
    [{"kind": "job"}, {"priority": "urgent"}, {"mode": "most"}, {"removal": "2026-Q2"}, {"mode": "shadow"}],
    ids=["kind", "priority", "mode", "removal", "shadow"],
)
def test_a_route_that_makes_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Route("work", **options)


def test_what_a_call_becomes(app: Celery, dispatcher: SyncDispatcher) -> None:
    @reroute(
        "import", app=app, name="old.name", shared=False, kind="workflow", lane={"bulk": "slow-lane"}, priority="high",
        params=lambda key, **rest: {"id": str(key), "rest": rest}, idempotency_key=lambda key, **_: f"import-{key}",
        metadata=lambda key, **_: {"entity_type": "import", "entity_id": key}, lost_worker_retries=7,
    )  # fmt: skip
    def old(key: str, **rest: Any) -> None:
        raise AssertionError("Nothing is executed.")

    first = old.apply_async(("k",), {"day": date(2026, 2, 28)}, queue="bulk")
    run = the_run(dispatcher)
    spec = run.spec
    assert (spec.kind, spec.name, spec.params) == ("workflow", "import", {"id": "k", "rest": {"day": "2026-02-28"}})
    assert (spec.lane, spec.priority, spec.idempotency_key, spec.max_retries) == ("slow-lane", "high", "import-k", 7)
    assert spec.metadata == {"celery_task": "old.name", "entity_type": "import", "entity_id": "k"}
    assert run.message is not None
    message = TaskMessage.of_stored(run.message)
    assert (message.task, message.task_id, message.args) == ("old.name", first.id, ("k",))
    assert message.kwargs == {"day": date(2026, 2, 28)}
    assert message.options["queue"] == "bulk"
    # The same key is the same run, and whoever calls again waits for its result.
    assert old.apply_async(("k",), {"day": date(2026, 3, 1)}).id == first.id
    assert the_run(dispatcher).run_id == first.id


def test_one_active_run_of_an_entity(app: Celery, dispatcher: SyncDispatcher) -> None:
    old = reroute("work", app=app, shared=False, metadata=lambda: {"entity_type": "feed", "entity_id": 7})(nothing)
    old.delay()
    for call in (old.delay, old):
        with pytest.raises(ConcurrencyError):
            call()


@pytest.mark.parametrize(
    ("priority", "expected"),
    [(9, "realtime"), (7, "high"), (5, "normal"), (3, "low"), (1, "slow"), (None, "normal")],
)
def test_the_priority_of_a_run(app: Celery, dispatcher: SyncDispatcher, priority: int | None, expected: str) -> None:
    """By the broker's number; this one's 9 is the most urgent."""
    reroute("work", app=app, shared=False)(nothing).apply_async(priority=priority)
    assert the_run(dispatcher).spec.priority == expected


def test_a_queue_that_cannot_be_carried(app: Celery, dispatcher: SyncDispatcher) -> None:
    """It is named; one that the app has by this name can be."""
    task = reroute("work", app=app, shared=False)(nothing)
    with pytest.raises(InvalidSpecError, match="The queue mine is none of task_queues") as caught:
        task.apply_async(queue=Queue("mine", routing_key="elsewhere"))  # type: ignore[no-untyped-call]  # no types
    assert caught.value.field == "queue"
    task.apply_async(queue=app.amqp.queues["celery"])
    assert the_run(dispatcher).spec.lane == "celery"


@pytest.mark.parametrize(
    "options",
    [{"eta": "tomorrow"}, {"eta": object()}, {"countdown": "soon"}, {"expires": "never"}],
    ids=["eta", "eta of no type", "countdown", "expires"],
)
def test_times_that_are_none(app: Celery, dispatcher: SyncDispatcher, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InvalidSpecError, match=f"The option {name} must be"):
        reroute("work", app=app, shared=False)(nothing).apply_async(**options)


def test_plain_json() -> None:
    given = {"at": datetime(2026, 1, 2), "share": Decimal("0.10"), "key": UUID(int=7), "pair": (1, 2)}  # noqa: DTZ001
    assert plain(given) == {
        "at": "2026-01-02T00:00:00",
        "share": "0.10",
        "key": "00000000-0000-0000-0000-000000000007",
        "pair": [1, 2],
    }
    deep: Any = 1
    for _ in range(150):
        deep = [deep]
    for value in ({1}, object(), float("inf"), "a\0b", deep):
        with pytest.raises(ValueError, match=r"^(cannot be written|has a NUL|is nested more than 100 levels deep)"):
            plain(value)
