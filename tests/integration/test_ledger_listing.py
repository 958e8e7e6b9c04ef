"""Lists and events, on every ledger: filters, pages, order, and values that are hard to keep."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from spine_migrate.execution import EventType, InvalidSpecError, RunEvent, RunRecord, RunStatus, WorkSpec
from spine_migrate.execution.ledgers.protocol import Delivery, RunFilter
from spine_migrate.execution.storable import DEPTH
from tests.ledgers import Timed, kinds

NAIVE = datetime(2026, 1, 1)  # noqa: DTZ001 what is refused


def listed(timed: Timed, **wanted: Any) -> list[str]:
    return [run.name for run in timed.ledger.list_runs(RunFilter(**wanted))]


def test_every_filter_narrows_the_list_down(timed: Timed) -> None:
    ledger = timed.ledger
    parent = timed.made("parent")
    timed.forward(100)
    between = timed.now()
    timed.forward(100)
    child = WorkSpec("step", "child", parent_run_id=parent, lane="bulk")
    tags = {"team": "a", "n": 1, "x=y": "z", "list": ["a"]}
    run_id = ledger.create(RunRecord(child, tags=tags)).run_id
    ledger.cancel(run_id, "x")
    assert listed(timed) == ["child", "parent"]
    (summary,) = ledger.list_runs(RunFilter(kind="step"))
    found = ledger.get(run_id)
    assert found is not None
    assert summary == found.summary()
    for name, value, other in (
        ("kind", "step", "workflow"),
        ("status", RunStatus.CANCELLED, RunStatus.FAILED),
        ("name", "child", "chil"),
        ("parent_run_id", parent, run_id),
        ("lane", "bulk", "BULK"),
        ("tag", "team", "a"),
        ("tag", "team=a", "team=b"),
        ("tag", "n", "n=1"),
        ("tag", "list", "list=a"),
    ):
        assert listed(timed, **{name: value}) == ["child"], (name, value)
        assert listed(timed, **{name: other}) == [], (name, other)
    assert listed(timed, since=between) == listed(timed, until=between + timedelta(1), lane="bulk") == ["child"]
    assert listed(timed, until=between) == listed(timed, kind="task", status=RunStatus.PENDING) == ["parent"]
    assert listed(timed, since=between, until=between) == listed(timed, kind="step", lane="default") == []


def test_since_is_included_and_until_is_not(timed: Timed) -> None:
    run = timed.ledger.get(timed.made())
    assert run is not None
    assert listed(timed, since=run.created_at) == ["work"]
    assert listed(timed, until=run.created_at) == []


@pytest.mark.parametrize("name", ["kind", "name", "lane", "tag"])
@pytest.mark.parametrize("value", ["\0", "\ud800", "'; --", "%s", "%(name)s", "é" * 300])
def test_a_filter_that_no_run_can_match(timed: Timed, name: str, value: str) -> None:
    timed.made()
    assert listed(timed, **{name: value}) == []


def test_pages_are_the_newest_first(timed: Timed) -> None:
    for number in range(5):
        timed.made(str(number))
    pages = [timed.ledger.list_runs(limit=2, offset=offset) for offset in (0, 2, 4, 6)]
    assert [[run.name for run in page] for page in pages] == [["4", "3"], ["2", "1"], ["0"], []]
    assert timed.ledger.list_runs(limit=0) == []


def test_events_stand_in_the_order_of_recording_whatever_the_clocks_say(timed: Timed) -> None:
    """A worker's clock may be behind the server's, or stand still."""
    ledger, run_id = timed.ledger, timed.made()
    wrong = [timedelta(days=-1), timedelta(days=1), timedelta(0), timedelta(0), timedelta(days=-1)]
    now = timed.now()
    events = [RunEvent(run_id, "progress", {"n": n}, timestamp=now + by) for n, by in enumerate(wrong)]
    ledger.record(events[0])
    ledger.claim(run_id, "w", lease_seconds=1)
    for event in events[1:]:
        ledger.record(event)
    ledger.complete(run_id, None)
    told = ledger.events(run_id)
    assert [event.data.get("n") for event in told] == [None, 0, None, 1, 2, 3, 4, None]
    assert [event.timestamp for event in told] == sorted({event.timestamp for event in told})
    assert [event.event_id for event in told if "n" in event.data] == [event.event_id for event in events]


def test_an_event_is_there_once(timed: Timed) -> None:
    run_id = timed.made()
    event = RunEvent(run_id, EventType.PROGRESS, {"n": 1}, source="handler")
    for _ in range(2):
        timed.ledger.record(event)
    assert kinds(timed, run_id) == ["created", "progress"]
    (_, told) = timed.ledger.events(run_id)
    assert (told.run_id, told.event_id, told.event_type, told.data, told.source) == (
        run_id, event.event_id, "progress", {"n": 1}, "handler"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [("event_type", "x" * 51), ("event_type", "\0"), ("source", "x" * 51), ("data", []), ("event_id", "7")],
)
def test_an_event_that_cannot_be_stored(timed: Timed, field: str, value: Any) -> None:
    run_id = timed.made()
    with pytest.raises(InvalidSpecError) as caught:
        timed.ledger.record(RunEvent(**{"run_id": run_id, "event_type": "progress", field: value}))
    assert caught.value.field == field
    assert kinds(timed, run_id) == ["created"]


def nested(depth: int) -> Any:
    value: Any = 1
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        "é ß 漢字 🦔 \u202e \x01 \x7f",
        "a backslash and \\u0000, which is no NUL",
        "%s %(run_id)s {} {{}} ' \" \\",
        {"": None, "🦔": [True, False, 0, -1, 1.5, 10**30, ""]},
        "x" * 1_000_000,
        [],
        {},
        0,
        False,
        None,
        nested(DEPTH - 1),
    ],
    ids=["unicode", "backslash", "placeholders", "keys", "megabyte", "list", "dict", "zero", "false", "null", "deep"],
)
def test_awkward_values_come_back(timed: Timed, value: Any) -> None:
    ledger = timed.ledger
    spec = WorkSpec("task", "work", {"v": value}, metadata={"v": value})
    run_id = ledger.create(RunRecord(spec, tags={"v": value})).run_id
    ledger.record(RunEvent(run_id, "progress", {"v": value}))
    ledger.claim(run_id, "w", lease_seconds=None)
    done = ledger.complete(run_id, value)
    assert done == ledger.get(run_id)
    assert (done.result, done.spec.params, done.spec.metadata, done.tags) == (
        value,
        {"v": value},
        {"v": value},
        {"v": value},
    )
    assert ledger.events(run_id)[1].data == {"v": value}


def test_json_knows_neither_tuples_nor_numbers_as_keys(timed: Timed) -> None:
    run_id = timed.made(params={1: (1, 2)})
    timed.ledger.claim(run_id, "w", lease_seconds=None)
    done = timed.ledger.complete(run_id, (1, {2: None}))
    assert (done.spec.params, done.result) == ({"1": [1, 2]}, [1, {"2": None}])


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        b"x",
        float("nan"),
        float("inf"),
        NAIVE,
        "\0",
        {"\0": 1},
        "\ud800",
        nested(DEPTH + 1),
        nested(5000),
    ],
    ids=["object", "set", "bytes", "nan", "inf", "time", "nul", "nul key", "surrogate", "deep", "deeper"],
)
def test_values_that_cannot_be_stored(timed: Timed, value: Any) -> None:
    ledger = timed.ledger
    for field in ("params", "metadata", "tags"):
        spec = WorkSpec("task", "work")
        run = RunRecord(spec)
        setattr(run if field == "tags" else spec, field, {"v": value})
        with pytest.raises(InvalidSpecError, match=field) as caught:
            ledger.create(run)
        assert caught.value.field == field
    run_id = timed.made()
    ledger.claim(run_id, "w", lease_seconds=None)
    before = ledger.get(run_id)
    with pytest.raises(InvalidSpecError, match=r"^result ") as caught:
        ledger.complete(run_id, value)
    assert caught.value.field == "result"
    assert ledger.get(run_id) == before
    assert kinds(timed, run_id) == ["created", "started"]


@pytest.mark.parametrize("error", ["\0", "bad name \udcff", "é" * 100_000, ""])
def test_a_failure_is_recorded_whatever_its_text(timed: Timed, error: str) -> None:
    ledger, first, second = timed.ledger, timed.made(), timed.made()
    stored = error.replace("\0", "\\x00").replace("\udcff", "\\udcff")
    for run_id in (first, second):
        ledger.claim(run_id, f"worker {error[:1]}", lease_seconds=60)
    failed = ledger.fail(first, error, error * 2)
    again = ledger.try_again(second, error, error * 2, in_seconds=0)
    for run in (failed, again):
        assert (run.error, run.error_type) == (stored, (stored * 2)[:100])
        assert ledger.events(run.run_id)[-1].data["error"] == stored
    ledger.cancel(second, error)
    assert ledger.events(second)[-1].data == {"reason": stored}


def test_references_that_do_not_fit(timed: Timed) -> None:
    run_id = timed.made()
    for reference, name, field in (("x" * 256, "e", "external_ref"), ("x", "e" * 51, "executor_name")):
        with pytest.raises(InvalidSpecError) as caught:
            timed.ledger.mark_queued(run_id, reference, name, claim_within_seconds=1)
        assert caught.value.field == field
    assert timed.ledger.mark_queued(run_id, "é" * 255, "é" * 50, claim_within_seconds=1)


@pytest.mark.parametrize("entity_id", ["x" * 256, {"a": 1}, [1], 1.5])
def test_an_entity_that_no_index_would_hold(timed: Timed, entity_id: Any) -> None:
    with pytest.raises(InvalidSpecError, match="entity_id in metadata must be"):
        timed.made(metadata={"entity_type": "feed", "entity_id": entity_id})
    timed.made(metadata={"entity_type": "feed", "entity_id": "é" * 255})


@pytest.mark.parametrize("field", ["due_at", "expires_at", "since", "until"])
@pytest.mark.parametrize("value", [NAIVE, "2026-01-01", 0])
def test_a_time_has_a_zone(field: str, value: Any) -> None:
    kind = Delivery if field.endswith("_at") else RunFilter
    with pytest.raises(InvalidSpecError, match=f"{field} must be a datetime with a time zone") as caught:
        kind(**{field: value})
    assert caught.value.field == field


def test_a_run_that_nobody_knows_has_no_children(timed: Timed) -> None:
    timed.made()
    assert listed(timed, parent_run_id=str(uuid4())) == []
