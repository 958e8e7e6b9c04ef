"""Many runs at once, in every ledger: all of them or none, each as ``create`` would store it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from spine_migrate.execution import (
    BackpressureError,
    ConcurrencyError,
    InvalidSpecError,
    RunRecord,
    WorkSpec,
)
from spine_migrate.execution.ledgers.protocol import Delivery
from tests.ledgers import Timed, kinds

FEED = {"entity_type": "feed", "entity_id": "7"}
#: More than are sent to the server together.
MANY = 1_203


def runs(count: int, **fields: Any) -> list[RunRecord]:
    return [RunRecord(WorkSpec("task", f"work {number}", {"n": number}, **fields)) for number in range(count)]


def test_many_are_stored_in_their_order(timed: Timed) -> None:
    given = runs(MANY)
    stored = timed.ledger.create_many(given, Delivery(timeout_seconds=5, message={"m": 1}))
    assert [run.run_id for run in stored] == [run.run_id for run in given]
    assert timed.ledger.get_many([run.run_id for run in given]) == stored
    assert {(run.timeout_seconds, str(run.message)) for run in stored} == {(5, "{'m': 1}")}
    assert kinds(timed, stored[-1].run_id) == ["created"]
    assert len(timed.ledger.publishable(MANY + 1, again_in_seconds=1)) == MANY


def test_none_are_stored_of_none(timed: Timed) -> None:
    assert timed.ledger.create_many([]) == []


def test_a_run_may_name_one_before_it(timed: Timed) -> None:
    parent = RunRecord(WorkSpec("workflow", "all"))
    child = RunRecord(WorkSpec("step", "one", parent_run_id=parent.run_id))
    assert [run.run_id for run in timed.ledger.create_many([parent, child])] == [parent.run_id, child.run_id]


def test_a_timeout_of_its_own_is_kept_where_none_is_given_for_all(timed: Timed) -> None:
    (plain, special) = runs(2)
    stored = timed.ledger.create_many([plain, replace(special, timeout_seconds=3, message={"own": True})])
    assert [(run.timeout_seconds, run.message) for run in stored] == [(None, None), (3, {"own": True})]


def test_one_key_is_one_run_among_many_and_before_them(timed: Timed) -> None:
    first = timed.made(idempotency_key="known", lane="bulk")
    keys = ["a", "known", "b", "a", None]
    given = [RunRecord(WorkSpec("task", "work", idempotency_key=key, lane="bulk")) for key in keys]
    stored = timed.ledger.create_many(given, lane_bound=4)
    ids = [run.run_id for run in stored]
    assert ids == [given[0].run_id, first, given[2].run_id, given[0].run_id, given[4].run_id]
    assert len(timed.ledger.list_runs()) == 4


def new(**fields: Any) -> RunRecord:
    return RunRecord(WorkSpec("task", "work", **fields))


def busy(timed: Timed) -> RunRecord:
    timed.made(metadata=FEED)
    return RunRecord(WorkSpec("task", "work", metadata=FEED))


def twice(timed: Timed) -> RunRecord:
    return RunRecord(WorkSpec("task", "work"), run_id=timed.made())


def orphan(_: Timed) -> RunRecord:
    return RunRecord(WorkSpec("step", "work", parent_run_id=str(uuid4())))


def odd(_: Timed) -> RunRecord:
    return RunRecord(WorkSpec("task", "work", priority="some"))


@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (busy, ConcurrencyError, "feed 7 has an active run"),
        (twice, InvalidSpecError, "There is a run .* already"),
        (orphan, InvalidSpecError, "parent_run_id names the run .*, which does not exist"),
        (odd, InvalidSpecError, "priority must be one of"),
    ],
)
def test_one_at_fault_means_none(
    timed: Timed, bad: Callable[[Timed], RunRecord], error: type[Exception], says: str
) -> None:
    fault = bad(timed)
    before = len(timed.ledger.list_runs(limit=MANY))
    given = runs(700)
    with pytest.raises(error, match=says):
        timed.ledger.create_many([*given[:600], fault, *given[600:]])
    assert len(timed.ledger.list_runs(limit=MANY)) == before
    assert len(timed.ledger.create_many(given)) == 700


def test_a_lane_has_room_for_all_or_takes_none(timed: Timed) -> None:
    timed.made(lane="bulk")
    timed.made(idempotency_key="known", lane="bulk")
    again = RunRecord(WorkSpec("task", "work", idempotency_key="known", lane="bulk"))
    with pytest.raises(BackpressureError):
        timed.ledger.create_many([again, *runs(3, lane="bulk")], lane_bound=4)
    timed.ledger.create_many([again, *runs(2, lane="bulk"), *runs(4, lane="other")], lane_bound=4)


def test_many_published_runs_wait_or_were_faster(timed: Timed) -> None:
    ledger = timed.ledger
    given = runs(6)
    ledger.create_many(given)
    pending, queued, running, done, retried, purged = given
    ledger.mark_queued(queued.run_id, "before", "other", claim_within_seconds=1)
    ledger.claim(running.run_id, "w", lease_seconds=60)
    ledger.claim(done.run_id, "w", lease_seconds=60)
    ledger.complete(done.run_id, None)
    claim = ledger.claim(retried.run_id, "w", lease_seconds=60)
    ledger.try_again(retried.run_id, "no", None, in_seconds=0, fence=claim.fence)
    published = [(run, f"ref {number}") for number, run in enumerate(given[:5])]
    published.append((replace(purged, run_id=str(uuid4())), "ref of nobody"))
    assert ledger.mark_many_queued(published, "celery", claim_within_seconds=600) == 2
    found = ledger.get_many([run.run_id for run in given])
    assert [(str(run.status), run.external_ref) for run in found] == [
        ("queued", "ref 0"),
        ("queued", "ref 1"),
        ("running", "ref 2"),
        ("completed", "ref 3"),
        ("pending", "ref 4"),
        ("pending", None),
    ]
    assert kinds(timed, pending.run_id) == ["created", "queued"]
    assert kinds(timed, queued.run_id) == ["created", "queued"]
    assert kinds(timed, running.run_id) == ["created", "started"]
    assert ledger.mark_many_queued([], "celery", claim_within_seconds=60) == 0
    timed.forward(540)
    assert ledger.unclaimed(10, again_in_seconds=1) == []
    timed.forward(120)
    assert {run.run_id for run in ledger.unclaimed(10, again_in_seconds=1)} == {pending.run_id, queued.run_id}


def both(first: Callable[[], object], second: Callable[[], object]) -> None:
    """At the same moment; raises what either raises."""
    ready = Barrier(2)

    def go(act: Callable[[], object]) -> None:
        ready.wait()
        act()

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(go, first), threads.submit(go, second)]:
            done.result()


@pytest.mark.parametrize("number", range(3))
def test_two_who_submit_the_same_keys_in_another_order(postgres: Timed, number: int) -> None:
    ledger, keys = postgres.ledger, [f"{number}-{key}" for key in range(50)]
    made: dict[bool, list[str]] = {}

    def submit(order: int) -> None:
        made[order == 1] = [
            run.run_id for run in ledger.create_many([new(idempotency_key=key) for key in keys[::order]])
        ]

    both(lambda: submit(1), lambda: submit(-1))
    assert made[True] == made[False][::-1]


@pytest.mark.parametrize("number", range(3))
def test_two_who_have_published_the_same_runs_in_another_order(postgres: Timed, number: int) -> None:
    ledger = postgres.ledger
    runs = ledger.create_many([new(idempotency_key=f"{number}-{key}") for key in range(600)])
    for run in runs:
        ledger.claim(run.run_id, "w", lease_seconds=60)
    published = [(run, "ref") for run in runs]
    both(
        lambda: ledger.mark_many_queued(published, "celery", claim_within_seconds=60),
        lambda: ledger.mark_many_queued(published[::-1], "celery", claim_within_seconds=60),
    )


def test_what_is_checked_comes_before_what_is_in_the_way(timed: Timed) -> None:
    timed.made(metadata=FEED, lane="other")
    with pytest.raises(InvalidSpecError):
        timed.ledger.create_many([new(metadata=FEED), new(priority="some")])
    with pytest.raises(InvalidSpecError, match="parent_run_id"):
        timed.ledger.create_many([new(), new(parent_run_id="no id")], lane_bound=0)
    with pytest.raises(BackpressureError, match="has 0 runs waiting and 3 more are submitted, its bound is 2"):
        timed.ledger.create_many([new(), new(), new(parent_run_id=str(uuid4()))], lane_bound=2)


@pytest.mark.parametrize("autocommit", [False, True])
def test_many_are_part_of_the_callers_transaction(
    ledger_pool: ConnectionPool[Any], postgres: Timed, *, autocommit: bool
) -> None:
    ledger = postgres.ledger
    with psycopg.connect(str(ledger_pool.conninfo), autocommit=autocommit) as caller:
        first = RunRecord(WorkSpec("task", "first", metadata=FEED))
        ledger.create_many([first, *runs(2)], connection=caller)
        assert len(ledger.list_runs()) == (3 if autocommit else 0)
        with pytest.raises(ConcurrencyError):
            ledger.create_many([*runs(2), RunRecord(WorkSpec("task", "second", metadata=FEED))], connection=caller)
        caller.commit()
    assert len(ledger.list_runs()) == 3
