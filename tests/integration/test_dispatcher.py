"""The dispatcher, on both ledgers: what is submitted, refused and listed."""

from __future__ import annotations

import math
from contextlib import closing
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from spine_migrate.execution import (
    BackendError,
    BackpressureError,
    ConcurrencyError,
    EventType,
    HandlerRegistry,
    InvalidSpecError,
    PipelineNotFoundError,
    RunStatus,
    SyncDispatcher,
    WorkSpec,
    pipeline_spec,
    step_spec,
)
from spine_migrate.execution.executors.memory import MemoryExecutor
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.relay import Relay
from tests.carrier import Carrier, found, types
from tests.database import Database


def test_the_form_of_capture_spine(dispatcher: SyncDispatcher) -> None:
    run_id = dispatcher.submit("feed_processing", {"feed_id": 7}, lane="background", trigger_source="schedule")
    spec = found(dispatcher, run_id).spec
    assert (spec.kind, spec.name, spec.params) == ("pipeline", "feed_processing", {"feed_id": 7})
    assert (spec.lane, spec.trigger_source, spec.priority) == ("background", "schedule", "normal")


def test_a_spec_says_it_all(dispatcher: SyncDispatcher) -> None:
    with pytest.raises(TypeError, match="A WorkSpec says it all"):
        dispatcher.submit(pipeline_spec("x"), {"a": 1})
    with pytest.raises(TypeError, match="A WorkSpec says it all"):
        dispatcher.submit(pipeline_spec("x"), lane="other")
    with pytest.raises(TypeError, match="colour"):
        dispatcher.submit("x", {}, colour="red")


@pytest.mark.parametrize("kind", ["task", "pipeline", "workflow", "step"])
def test_each_kind_with_its_options(dispatcher: SyncDispatcher, kind: str) -> None:
    submit = getattr(dispatcher, f"submit_{kind}")
    run = found(dispatcher, submit("x", {"a": 1}, priority="high", tags={"team": "otc"}, correlation_id="c"))
    assert (run.spec.kind, run.spec.params, run.spec.priority) == (kind, {"a": 1}, "high")
    assert (run.tags, run.spec.correlation_id) == ({"team": "otc"}, "c")
    assert (run.status, run.executor_name, run.external_ref) == (RunStatus.QUEUED, "carrier", f"ref-{run.run_id}")


@pytest.mark.parametrize("how", ["submit_step", "step_spec"])
@pytest.mark.parametrize(
    ("given", "stored"),
    [({}, "parent"), ({"correlation_id": None}, "parent"), ({"correlation_id": "own"}, "own")],
    ids=["default", "none", "own"],
)
def test_a_step_is_correlated_with_its_parent(
    dispatcher: SyncDispatcher, how: str, given: dict[str, Any], stored: str
) -> None:
    parent = dispatcher.submit_workflow("w")
    if how == "submit_step":
        step = dispatcher.submit_step("s", parent_run_id=parent, **given)
    else:
        step = dispatcher.submit(step_spec("s", parent_run_id=parent, **given))
    spec = found(dispatcher, step).spec
    assert spec.parent_run_id == parent
    assert spec.correlation_id == (parent if stored == "parent" else stored)


_NOBODY = "00000000-0000-4000-8000-000000000000"
_BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"kind": "job"}, "kind", "kind must be one of task, pipeline, workflow, step, not 'job'."),
    ({"kind": None}, "kind", "kind must be one of task, pipeline, workflow, step, not None."),
    ({"name": ""}, "name", "A run needs a name, and it is empty."),
    ({"name": "x" * 101}, "name", "name has 101 characters, the ledger holds 100."),
    ({"name": 7}, "name", "name must be text, not int."),
    ({"name": "a\0b"}, "name", "name has a NUL character, which PostgreSQL cannot store."),
    ({"params": []}, "params", "params must be a dict, not list."),
    ({"params": {"a": {1}}}, "params", "params cannot be written as JSON: Object of type set is not"),
    ({"params": {"a": float("nan")}}, "params", "params cannot be written as JSON: Out of range float"),
    ({"params": {"a": "\ud800"}}, "params", "params has half of a surrogate pair, which is no character."),
    ({"metadata": None}, "metadata", "metadata must be a dict, not NoneType."),
    ({"priority": "urgent"}, "priority", "priority must be one of realtime, high, normal, low, slow, not 'urgent'."),
    ({"lane": ""}, "lane", "A run needs a lane, and it is empty."),
    ({"lane": "x" * 51}, "lane", "lane has 51 characters, the ledger holds 50."),
    ({"trigger_source": None}, "trigger_source", "trigger_source must be text, not NoneType."),
    ({"idempotency_key": "x" * 256}, "idempotency_key", "idempotency_key has 256 characters, the ledger holds 255."),
    ({"correlation_id": 7}, "correlation_id", "correlation_id must be text, not int."),
    ({"max_retries": -1}, "max_retries", "max_retries must be a whole number from 0 to 2147483647, not -1."),
    ({"max_retries": True}, "max_retries", "max_retries must be a whole number from 0 to 2147483647, not True."),
    ({"retry_delay_seconds": math.inf}, "retry_delay_seconds", "retry_delay_seconds must be a number from 0, not inf."),
    ({"retry_delay_seconds": "60"}, "retry_delay_seconds", "retry_delay_seconds must be a number from 0, not '60'."),
    ({"parent_run_id": _NOBODY}, "parent_run_id", f"parent_run_id names the run {_NOBODY}, which does not exist."),
    ({"parent_run_id": "nobody"}, "parent_run_id", "parent_run_id names the run nobody, which does not exist."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "field", "sentence"), _BAD, ids=[f"{number}-{bad[1]}" for number, bad in enumerate(_BAD)]
)
def test_a_spec_that_cannot_be_a_run_is_refused_in_a_sentence(
    dispatcher: SyncDispatcher, carrier: Carrier, fields: dict[str, Any], field: str, sentence: str
) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        dispatcher.submit(WorkSpec(**{"kind": "task", "name": "x", **fields}))
    assert caught.value.field == field
    assert str(caught.value).startswith(sentence.removesuffix("."))
    assert carrier.taken == []


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"due_at": datetime(2026, 1, 1)}, "due_at"),  # noqa: DTZ001 it is about that
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": "60"}, "timeout_seconds"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds"),
        ({"tags": {"a": {1}}}, "tags"),
    ],
)
def test_options_that_cannot_be_kept(dispatcher: SyncDispatcher, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        dispatcher.submit("x", {}, **options)
    assert caught.value.field == field


def test_a_handler_must_be_there_where_that_is_asked_for(carrier: Carrier, ledger: Ledger) -> None:
    registry = HandlerRegistry()
    registry.register("task", "x", lambda _: None)
    dispatcher = SyncDispatcher(carrier, ledger, registry, check_handlers=True)
    dispatcher.submit_task("x")
    with pytest.raises(PipelineNotFoundError, match="There is no task named 'y'; registered are x"):
        dispatcher.submit_task("y")
    assert len(carrier.taken) == 1


def test_an_executor_that_fails_leaves_the_run_to_the_relay(
    dispatcher: SyncDispatcher, carrier: Carrier, ledger: Ledger
) -> None:
    carrier.fault = BackendError("The broker does not answer.")
    run_id = dispatcher.submit("x", {})
    assert found(dispatcher, run_id).status is RunStatus.PENDING
    alert = dispatcher.get_events(run_id)[-1]
    assert (alert.event_type, alert.data) == (EventType.ALERT_TRIGGERED, {"publishing": "The broker does not answer."})
    carrier.fault = None
    claim = ledger.claim(run_id, "by hand", lease_seconds=-1)
    assert claim.run.run_id == run_id
    reaped = Relay(ledger, carrier, backoff_seconds=0)
    reaped.run_once()
    assert run_id in carrier.taken
    assert found(dispatcher, run_id).status is RunStatus.QUEUED


def test_a_run_that_is_left_to_the_relay_is_published_by_it(carrier: Carrier, ledger: Ledger) -> None:
    dispatcher = SyncDispatcher(carrier, ledger, publish=False)
    run_id = dispatcher.submit("x", {})
    assert (carrier.taken, found(dispatcher, run_id).status) == ([], RunStatus.PENDING)
    Relay(ledger, carrier).run_once()
    assert run_id in carrier.taken
    assert found(dispatcher, run_id).external_ref == f"ref-{run_id}"


def test_a_run_that_is_due_later_is_not_published_by_its_submitter(
    dispatcher: SyncDispatcher, carrier: Carrier
) -> None:
    run_id = dispatcher.submit("x", {}, due_at=datetime.now(UTC) + timedelta(hours=1))
    Relay(dispatcher.ledger, carrier).run_once()
    assert run_id not in carrier.taken
    assert found(dispatcher, run_id).status is RunStatus.PENDING


def test_a_lane_has_its_bound(carrier: Carrier, ledger: Ledger) -> None:
    lane = token_hex(4)
    dispatcher = SyncDispatcher(carrier, ledger, lane_bound=2)
    dispatcher.submit("x", {}, lane=lane)
    dispatcher.submit("x", {}, lane=lane)
    with pytest.raises(BackpressureError) as caught:
        dispatcher.submit("x", {}, lane=lane)
    assert (caught.value.lane, caught.value.waiting, caught.value.bound) == (lane, 2, 2)
    dispatcher.submit("x", {}, lane=token_hex(4))


def test_one_active_run_of_an_entity(dispatcher: SyncDispatcher) -> None:
    about = {"entity_type": "feed", "entity_id": token_hex(4)}
    first = dispatcher.submit("x", {}, metadata=about)
    with pytest.raises(ConcurrencyError) as caught:
        dispatcher.submit("x", {}, metadata=about)
    assert caught.value.run_id == first
    assert dispatcher.cancel(first)
    dispatcher.submit("x", {}, metadata=about)


def test_children_are_of_one_parent_and_paged(dispatcher: SyncDispatcher) -> None:
    parent, other = dispatcher.submit_workflow("w"), dispatcher.submit_workflow("w")
    steps = [dispatcher.submit_step("s", {"n": n}, parent_run_id=parent) for n in range(3)]
    dispatcher.submit_step("s", parent_run_id=other)
    assert {run.run_id for run in dispatcher.get_children(parent)} == set(steps)
    pages = [dispatcher.get_children(parent, limit=2), dispatcher.get_children(parent, limit=2, offset=2)]
    assert [len(page) for page in pages] == [2, 1]
    assert {run.run_id for page in pages for run in page} == set(steps)
    assert dispatcher.get_children(steps[0]) == []
    assert dispatcher.get_children("nobody") == []


def test_what_is_listed_is_narrowed_by_each_filter(dispatcher: SyncDispatcher) -> None:
    name, lane = token_hex(4), token_hex(4)
    run_id = dispatcher.submit_task(name, lane=lane, tags={"team": "otc"})
    other = dispatcher.submit_pipeline(name)
    start = found(dispatcher, run_id).created_at

    def listed(**filters: Any) -> set[str]:
        return {run.run_id for run in dispatcher.list_runs(name=name, **filters)}

    assert listed() == {run_id, other}
    for only in ({"kind": "task"}, {"lane": lane}, {"tag": "team"}, {"tag": "team=otc"}):
        assert listed(**only) == {run_id}, only
    assert listed(status="queued", since=start) == {run_id, other}
    assert listed(status=RunStatus.COMPLETED) == listed(until=start) == listed(tag="team=other") == set()
    with pytest.raises(ValueError, match="'lost' is not a valid RunStatus"):
        dispatcher.list_runs(status="lost")


def test_many_runs_are_submitted_together(dispatcher: SyncDispatcher, carrier: Carrier) -> None:
    key = token_hex(8)
    first = dispatcher.submit("x", {}, idempotency_key=key)
    specs = [pipeline_spec("x", {"n": number}) for number in range(5)]
    again = pipeline_spec("x", {}, idempotency_key=key)
    ids = dispatcher.submit_many([*specs, again, specs[0]], tags={"batch": 1}, timeout_seconds=4)
    assert ids[5] == first
    assert len({*ids}) == 7
    runs = dispatcher.get_runs([*ids[:5], ids[6]])
    assert [run.spec.params for run in runs] == [{"n": number} for number in (0, 1, 2, 3, 4, 0)]
    assert {(run.status, run.timeout_seconds, str(run.tags)) for run in runs} == {("queued", 4, "{'batch': 1}")}
    assert carrier.taken == [first, *ids[:5], ids[6]]


def test_of_many_runs_that_cannot_be_published_the_rest_is_left_to_the_relay(
    dispatcher: SyncDispatcher, carrier: Carrier
) -> None:
    carrier.fault = BackendError("The broker does not answer.")
    ids = dispatcher.submit_many(pipeline_spec("x", {"n": number}) for number in range(5))
    assert {run.status for run in dispatcher.get_runs(ids)} == {RunStatus.PENDING}
    alerts = [types(dispatcher, run_id).count(EventType.ALERT_TRIGGERED) for run_id in ids]
    assert alerts == [1, 1, 1, 0, 0]


def test_one_of_many_at_fault_means_that_none_is_stored_or_published(
    dispatcher: SyncDispatcher, carrier: Carrier
) -> None:
    name = token_hex(8)
    with pytest.raises(InvalidSpecError):
        dispatcher.submit_many([pipeline_spec(name), pipeline_spec(name, lane="")])
    assert dispatcher.list_runs(name=name) == []
    assert carrier.taken == []


def test_a_dispatcher_without_a_ledger_has_its_executors() -> None:
    executor = MemoryExecutor()
    assert SyncDispatcher(executor).ledger is executor.ledger
    assert isinstance(SyncDispatcher(Carrier()).ledger, MemoryLedger)
    own = MemoryLedger()
    assert SyncDispatcher(executor, own).ledger is own


def test_a_run_in_the_callers_transaction(place: Database, carrier: Carrier) -> None:
    """It vanishes with the caller's data, or comes with it, and the relay publishes it."""
    with ConnectionPool(place.url, min_size=1, max_size=2) as pool, closing(psycopg.connect(place.url)) as caller:
        dispatcher = SyncDispatcher(carrier, PostgresLedger(pool))
        lost = dispatcher.submit("x", {}, connection=caller)
        assert dispatcher.get_run(lost) is None
        caller.rollback()
        kept = dispatcher.submit("x", {}, connection=caller)
        caller.commit()
        assert dispatcher.get_run(lost) is None
        assert found(dispatcher, kept).status is RunStatus.PENDING
        assert carrier.taken == []
        Relay(dispatcher.ledger, carrier).run_once()
        assert kept in carrier.taken
        assert lost not in carrier.taken


def test_memory_has_no_transaction_to_join(carrier: Carrier) -> None:
    with pytest.raises(TypeError, match="MemoryLedger has no transactions to join"):
        SyncDispatcher(carrier).submit("x", {}, connection=object())
