"""One contract, every ledger: what each method does, and what it refuses, with the event that says so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from spine_migrate.execution import (
    BackpressureError,
    ConcurrencyError,
    EventType,
    ExecutionNotFoundError,
    InvalidSpecError,
    RunEvent,
    RunRecord,
    RunStatus,
    WorkSpec,
    step_spec,
)
from spine_migrate.execution.ledgers.protocol import Ledger, RunFilter
from tests.ledgers import Timed, brought_to, kinds, refused, status

# Of no run. Not drawn by chance, since the test's name has it and every worker of xdist must collect the same names.
NOBODY = "6f6b1c1e-0b1a-4c55-9d0f-3a4b5c6d7e8f"

FEED = {"entity_type": "feed", "entity_id": "7"}


def test_a_run_is_stored_as_it_was_asked_for(timed: Timed) -> None:
    parent, first = timed.made(), timed.made()
    spec = WorkSpec(
        "step", "load", {"a": [1, None, {"b": "é"}]}, "key", "corr", "high", "bulk", parent, "cron", FEED, 5, 7.5
    )
    given = RunRecord(spec, attempt=3, retry_of_run_id=first, tags={"team": "x"})
    stored = timed.ledger.create(given)
    found = timed.ledger.get(given.run_id)
    assert found == stored == replace(given, created_at=stored.created_at)
    assert stored.created_at.utcoffset() == timedelta(0)
    assert kinds(timed, given.run_id) == ["created"]
    assert timed.ledger.get_many([first, str(uuid4()), "no id", parent.upper()]) == [
        timed.ledger.get(first),
        timed.ledger.get(parent),
    ]


def test_a_record_is_a_copy(timed: Timed) -> None:
    given = RunRecord(WorkSpec("task", "work", {"a": [1]}))
    stored = timed.ledger.create(given)
    given.spec.params["a"].append(2)
    stored.spec.params["a"].append(3)
    found = timed.ledger.get(given.run_id)
    assert found is not None
    assert found.spec.params == {"a": [1]}


def test_what_create_gives_is_what_is_stored(timed: Timed) -> None:
    numbers = {"large": 1e23, "small": 1e-7, "whole": 5.0, "nothing": -0.0, "int": 10**30}
    stored = timed.ledger.create(RunRecord(WorkSpec("task", "work", numbers)))
    assert repr(stored.spec.params) == repr({**numbers, "large": 10**23, "nothing": stored.spec.params["nothing"]})
    assert timed.ledger.get(stored.run_id) == stored


@pytest.mark.parametrize(
    ("field", "value"), [("timeout_seconds", 10**400), ("timeout_seconds", True), ("attempt", 10**12), ("attempt", 0)]
)
def test_numbers_that_no_column_holds_are_refused(timed: Timed, field: str, value: Any) -> None:
    with pytest.raises(InvalidSpecError) as caught:
        timed.ledger.create(replace(RunRecord(WorkSpec("task", "work")), **{field: value}))
    assert caught.value.field == field


def test_an_id_may_be_a_uuid_object(timed: Timed) -> None:
    parent = timed.made()
    as_object: Any = UUID(parent)
    child = timed.ledger.create(RunRecord(step_spec("s", parent_run_id=as_object)))
    assert (child.spec.parent_run_id, child.spec.correlation_id) == (parent, parent)
    assert [one.run_id for one in timed.ledger.list_runs(RunFilter(parent_run_id=as_object))] == [child.run_id]


def test_one_key_is_one_run(timed: Timed) -> None:
    first = timed.made(idempotency_key="k")
    second = timed.ledger.create(RunRecord(WorkSpec("task", "other", idempotency_key="k")), lane_bound=0)
    assert second == timed.ledger.get(first)
    brought = timed.ledger.cancel(first, "x")
    assert timed.ledger.create(RunRecord(WorkSpec("task", "other", idempotency_key="k"))) == brought
    assert len(timed.ledger.list_runs()) == 1


def test_one_key_is_one_run_of_an_entity_that_is_busy(timed: Timed) -> None:
    first = timed.made(idempotency_key="k", metadata=FEED)
    assert timed.made(idempotency_key="k", metadata=FEED) == first


@pytest.mark.parametrize("active", [RunStatus.PENDING, RunStatus.QUEUED, RunStatus.RUNNING])
def test_an_entity_has_one_active_run(timed: Timed, active: RunStatus) -> None:
    first = brought_to(timed, active, metadata=FEED)
    with pytest.raises(ConcurrencyError, match="feed 7 has an active run already") as caught:
        timed.made(metadata={**FEED, "entity_id": 7})
    assert caught.value.run_id == first
    timed.made(metadata={**FEED, "entity_id": "8"})
    timed.made(metadata={"entity_type": "feed"})
    timed.ledger.fail(first, "no", None)
    timed.made(metadata=FEED)


def test_a_lane_has_room_for_so_many(timed: Timed) -> None:
    ledger = timed.ledger
    waiting = [timed.made(lane="bulk") for _ in range(2)]
    timed.made(lane="other")

    def more() -> str:
        return ledger.create(RunRecord(WorkSpec("task", "work", lane="bulk")), lane_bound=2).run_id

    with pytest.raises(BackpressureError) as caught:
        more()
    assert (caught.value.lane, caught.value.waiting, caught.value.bound) == ("bulk", 2, 2)
    claim = ledger.claim(waiting[0], "w", lease_seconds=60)
    added = more()
    ledger.try_again(waiting[0], "no", None, in_seconds=0, fence=claim.fence)
    ledger.cancel(added, "x")
    with pytest.raises(BackpressureError):
        more()
    ledger.cancel(waiting[1], "x")
    more()


@pytest.mark.parametrize("other", [NOBODY, "no id", "urn:uuid:12345678-1234-5678-1234-567812345678"])
def test_what_a_run_names_must_exist(timed: Timed, other: str) -> None:
    for run in (RunRecord(WorkSpec("step", "s", parent_run_id=other)), RunRecord(WorkSpec("task", "t"))):
        field = "parent_run_id" if run.spec.parent_run_id else "retry_of_run_id"
        run.retry_of_run_id = None if run.spec.parent_run_id else other
        with pytest.raises(InvalidSpecError, match=rf"{field} names the run {other}, which does not exist\.") as caught:
            timed.ledger.create(run)
        assert caught.value.field == field
    assert timed.ledger.list_runs() == []


def test_a_run_is_created_once(timed: Timed) -> None:
    run = RunRecord(WorkSpec("task", "work"))
    timed.ledger.create(run)
    with pytest.raises(InvalidSpecError, match=f"There is a run {run.run_id} already"):
        timed.ledger.create(run)
    with pytest.raises(InvalidSpecError, match="run_id must be a uuid"):
        timed.ledger.create(replace(run, run_id="7"))


@pytest.mark.parametrize("run_id", [NOBODY, "", "no id", "{12345678-1234-5678-1234-567812345678}", "\0"])
def test_an_unknown_run(timed: Timed, run_id: str) -> None:
    ledger = timed.ledger
    assert ledger.get(run_id) is None
    assert ledger.list_runs(RunFilter(parent_run_id=run_id)) == []
    acts: list[Callable[[Ledger], object]] = [
        lambda ledger: ledger.events(run_id),
        lambda ledger: ledger.record(RunEvent(run_id, EventType.PROGRESS)),
        lambda ledger: ledger.mark_queued(run_id, "ref", "e", claim_within_seconds=1),
        lambda ledger: ledger.claim(run_id, "w", lease_seconds=1),
        lambda ledger: ledger.renew(run_id, 1, lease_seconds=1),
        lambda ledger: ledger.complete(run_id, None),
        lambda ledger: ledger.fail(run_id, "no", None),
        lambda ledger: ledger.try_again(run_id, "no", None, in_seconds=1),
        lambda ledger: ledger.cancel(run_id, "x"),
        lambda ledger: ledger.reprocess(run_id),
    ]
    for act in acts:
        with pytest.raises(ExecutionNotFoundError) as caught:
            act(ledger)
        assert caught.value.run_id == run_id


def test_an_id_is_the_same_in_capitals(timed: Timed) -> None:
    ledger, run_id = timed.ledger, timed.made()
    loud = run_id.upper()
    ledger.record(RunEvent(loud, EventType.PROGRESS))
    ledger.mark_queued(loud, "ref", "e", claim_within_seconds=1)
    claim = ledger.claim(loud, "w", lease_seconds=1)
    ledger.renew(loud, claim.fence, lease_seconds=1)
    assert ledger.complete(loud, None, fence=claim.fence).run_id == run_id
    assert kinds(timed, loud) == ["created", "progress", "queued", "started", "completed"]
    child = timed.made(parent_run_id=loud)
    assert [one.run_id for one in ledger.list_runs(RunFilter(parent_run_id=loud))] == [child]


def test_a_run_that_goes_well(timed: Timed) -> None:
    ledger, run_id = timed.ledger, timed.made(max_retries=2)
    assert ledger.mark_queued(run_id, "ref", "celery", claim_within_seconds=60)
    claim = ledger.claim(run_id, "me", lease_seconds=60)
    assert (claim.run.status, claim.run.external_ref, claim.run.executor_name) == ("running", "ref", "celery")
    assert (claim.retries_left, claim.run.timeout_seconds) == (2, None)
    assert claim.run == ledger.get(run_id)
    done = ledger.complete(run_id, {"rows": 3}, fence=claim.fence)
    assert done == ledger.get(run_id)
    assert (done.status, done.result, done.error, done.attempt) == ("completed", {"rows": 3}, None, 1)
    assert done.duration_seconds is not None
    assert done.duration_seconds > 0
    events = ledger.events(run_id)
    assert [(event.event_type, event.data) for event in events] == [
        ("created", {}),
        ("queued", {"executor": "celery"}),
        ("started", {"worker": "me", "attempt": 1}),
        ("completed", {}),
    ]
    assert {event.source for event in events} == {"ledger"}
    assert len({event.event_id for event in events}) == 4
    assert [event.timestamp for event in events] == sorted({event.timestamp for event in events})
    assert (done.created_at, done.started_at, done.completed_at) == tuple(events[n].timestamp for n in (0, 2, 3))


def test_publishing_twice_is_one_event(timed: Timed) -> None:
    ledger, run_id = timed.ledger, timed.made()
    for reference in ("a", "b"):
        assert ledger.mark_queued(run_id, reference, "e", claim_within_seconds=60)
    run = ledger.claim(run_id, "w", lease_seconds=60).run
    assert run.external_ref == "b"
    assert not ledger.mark_queued(run_id, "c", "e", claim_within_seconds=60)
    assert ledger.get(run_id) == run
    assert kinds(timed, run_id) == ["created", "queued", "started"]


def test_a_run_that_was_given_back_meanwhile_is_not_queued(timed: Timed) -> None:
    """Its worker was faster than its submitter, and nobody has the next attempt in a queue."""
    ledger, run_id = timed.ledger, timed.made()
    fence = ledger.claim(run_id, "w", lease_seconds=60).fence
    ledger.try_again(run_id, "no", None, in_seconds=0, fence=fence)
    assert not ledger.mark_queued(run_id, "ref", "e", claim_within_seconds=60, attempt=1)
    run = ledger.get(run_id)
    assert run is not None
    assert (run.status, run.attempt, run.external_ref) == (RunStatus.PENDING, 2, "ref")
    assert [due.run_id for due in ledger.publishable(10, again_in_seconds=60)] == [run_id]
    assert ledger.mark_queued(run_id, "ref", "e", claim_within_seconds=60, attempt=2)


@pytest.mark.parametrize("ended", [False, True])
def test_who_carried_a_run_is_noted_though_its_worker_was_faster(timed: Timed, *, ended: bool) -> None:
    """Once, and nothing else changes."""
    ledger, run_id = timed.ledger, timed.made()
    fence = ledger.claim(run_id, "w", lease_seconds=60).fence
    if ended:
        ledger.complete(run_id, 1, fence=fence)
    before = ledger.get(run_id)
    assert before is not None
    for reference in ("a", "b"):
        assert not ledger.mark_queued(run_id, reference, f"carrier {reference}", claim_within_seconds=60)
    assert ledger.get(run_id) == replace(before, external_ref="a", executor_name="carrier a")
    assert kinds(timed, run_id) == ["created", "started", *(["completed"] if ended else [])]


@pytest.mark.parametrize("dead", [False, True])
def test_a_failure(timed: Timed, *, dead: bool) -> None:
    ledger, run_id = timed.ledger, timed.made()
    fence = ledger.claim(run_id, "w", lease_seconds=60).fence
    run = ledger.fail(run_id, "it broke", "ValueError", dead=dead, fence=fence)
    wanted = "dead_lettered" if dead else "failed"
    assert (run.status, run.error, run.error_type, run.completed_at is None) == (
        wanted, "it broke", "ValueError", False
    )  # fmt: skip
    last = ledger.events(run_id)[-1]
    assert (last.event_type, last.data) == (wanted, {"error": "it broke", "error_type": "ValueError"})


def test_another_attempt(timed: Timed) -> None:
    ledger, run_id = timed.ledger, timed.made(max_retries=1)
    first = ledger.claim(run_id, "w", lease_seconds=60)
    again = ledger.try_again(run_id, "no", "E", in_seconds=600, fence=first.fence)
    assert (again.status, again.attempt, again.error, again.error_type) == ("pending", 2, "no", "E")
    assert ledger.events(run_id)[-1].data == {"error": "no", "error_type": "E", "attempt": 2, "in_seconds": 600}
    refused(timed, run_id, lambda: ledger.claim(run_id, "w", lease_seconds=60), "it is not due yet")
    timed.forward(601)
    second = ledger.claim(run_id, "w", lease_seconds=60)
    assert (second.run.attempt, second.retries_left) == (2, 0)
    assert second.fence > first.fence
    done = ledger.complete(run_id, None, fence=second.fence)
    assert (done.error, done.error_type) == (None, None)


def test_a_dead_letter_comes_back(timed: Timed) -> None:
    ledger = timed.ledger
    run_id = brought_to(timed, RunStatus.DEAD_LETTERED, max_retries=4, metadata=FEED)
    run = ledger.reprocess(run_id)
    assert (run.status, run.attempt, run.completed_at) == ("pending", 2, None)
    assert ledger.events(run_id)[-1].event_type == EventType.REPROCESSED
    claim = ledger.claim(run_id, "w", lease_seconds=60)
    assert claim.retries_left == 4
    ledger.fail(run_id, "no", None, dead=True, fence=claim.fence)
    other = timed.made(metadata=FEED)
    with pytest.raises(ConcurrencyError) as caught:
        ledger.reprocess(run_id)
    assert caught.value.run_id == other
    assert status(timed, run_id) is RunStatus.DEAD_LETTERED


@pytest.mark.parametrize(
    ("wanted", "sources"),
    [
        ("claim", {"pending", "queued"}),
        ("complete", {"running"}),
        ("fail", {"pending", "queued", "running"}),
        ("dead", {"pending", "queued", "running"}),
        ("try_again", {"running"}),
        ("cancel", {"pending", "queued", "running"}),
        ("reprocess", {"dead_lettered"}),
    ],
)
@pytest.mark.parametrize("source", list(RunStatus))
def test_the_state_machine(timed: Timed, wanted: str, sources: set[str], source: RunStatus) -> None:
    ledger, run_id = timed.ledger, brought_to(timed, source)
    acts: dict[str, Callable[[], object]] = {
        "claim": lambda: ledger.claim(run_id, "w", lease_seconds=60),
        "complete": lambda: ledger.complete(run_id, 1),
        "fail": lambda: ledger.fail(run_id, "no", None),
        "dead": lambda: ledger.fail(run_id, "no", None, dead=True),
        "try_again": lambda: ledger.try_again(run_id, "no", None, in_seconds=0),
        "cancel": lambda: ledger.cancel(run_id, "x"),
        "reprocess": lambda: ledger.reprocess(run_id),
    }
    if source in sources:
        acts[wanted]()
        assert "transition_refused" not in kinds(timed, run_id)
        return
    why = "the state machine has no such step"
    if wanted == "reprocess":
        why = "only a dead letter is reprocessed"
    elif wanted == "try_again" and source is RunStatus.DEAD_LETTERED:
        why = "a dead letter is reprocessed, not tried again"
    refused(timed, run_id, acts[wanted], why)
