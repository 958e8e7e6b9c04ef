"""Claims, leases, fences and times, on every ledger."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from spine_migrate.execution import InvalidSpecError, RunRecord, RunStatus, TransitionError, WorkSpec
from spine_migrate.execution.ledgers.protocol import Delivery
from tests.ledgers import Timed, kinds, refused, status


def test_who_lost_a_claim_marks_nothing(timed: Timed) -> None:
    """Its lease ran out while it slept; another worker has the run now."""
    ledger, run_id = timed.ledger, timed.made()
    old = ledger.claim(run_id, "old", lease_seconds=10)
    timed.forward(11)
    assert [run.run_id for run in ledger.reap(10, backoff_seconds=0)] == [run_id]
    late: list[Callable[[], object]] = [
        lambda: ledger.renew(run_id, old.fence, lease_seconds=60),
        lambda: ledger.complete(run_id, 1, fence=old.fence),
        lambda: ledger.fail(run_id, "no", None, fence=old.fence),
        lambda: ledger.fail(run_id, "no", None, dead=True, fence=old.fence),
        lambda: ledger.try_again(run_id, "no", None, in_seconds=0, fence=old.fence),
        lambda: ledger.cancel(run_id, "x", fence=old.fence),
    ]
    for act in late:
        refused(timed, run_id, act, "the claim of this worker is lost")
    new = ledger.claim(run_id, "new", lease_seconds=60)
    assert new.fence > old.fence
    for act in late:
        refused(timed, run_id, act, "the claim of this worker is lost")
    ledger.complete(run_id, 1, fence=new.fence)
    for act in late:
        refused(timed, run_id, act, "the claim of this worker is lost")


def test_fences_grow_over_all_runs(timed: Timed) -> None:
    fences = [timed.ledger.claim(timed.made(), "w", lease_seconds=None).fence for _ in range(3)]
    assert fences == sorted(set(fences))


def test_a_lease_lasts_as_long_as_it_is_renewed(timed: Timed) -> None:
    ledger, run_id = timed.ledger, timed.made()
    claim = ledger.claim(run_id, "w", lease_seconds=600)
    for _ in range(3):
        timed.forward(540)
        assert ledger.renew(run_id, claim.fence, lease_seconds=600) is False
        assert ledger.reap(10, backoff_seconds=0) == []
    timed.forward(660)
    # Late, but nobody has taken it away.
    ledger.renew(run_id, claim.fence, lease_seconds=600)
    assert ledger.reap(10, backoff_seconds=0) == []


def test_without_a_lease_nobody_takes_it_away(timed: Timed) -> None:
    ledger, run_id = timed.ledger, timed.made()
    ledger.claim(run_id, "reported", lease_seconds=None)
    timed.forward(1e9)
    assert ledger.reap(10, backoff_seconds=0) == []
    assert ledger.cancel(run_id, "x").status is RunStatus.CANCELLED


def test_a_worker_that_has_a_lease_is_asked_to_stop(timed: Timed) -> None:
    ledger, run_id = timed.ledger, timed.made()
    claim = ledger.claim(run_id, "w", lease_seconds=60)
    assert ledger.cancel(run_id, "not wanted") == claim.run
    assert kinds(timed, run_id) == ["created", "started"]
    assert ledger.renew(run_id, claim.fence, lease_seconds=60) is True
    run = ledger.cancel(run_id, "stopped", fence=claim.fence)
    assert (run.status, run.completed_at is None) == ("cancelled", False)
    assert ledger.events(run_id)[-1].data == {"reason": "stopped"}


def test_a_worker_that_is_asked_to_stop_may_be_done_first(timed: Timed) -> None:
    ledger, run_id = timed.ledger, timed.made()
    claim = ledger.claim(run_id, "w", lease_seconds=60)
    ledger.cancel(run_id, "not wanted")
    assert ledger.complete(run_id, 1, fence=claim.fence).status is RunStatus.COMPLETED


def test_a_run_that_was_asked_to_stop_is_not_tried_again(timed: Timed) -> None:
    """Whoever cancelled it was told that it will be cancelled."""
    ledger, run_id = timed.ledger, timed.made()
    claim = ledger.claim(run_id, "w", lease_seconds=60)
    ledger.cancel(run_id, "not wanted")
    again = lambda: ledger.try_again(run_id, "no", None, in_seconds=0, fence=claim.fence)  # noqa: E731
    refused(timed, run_id, again, "it is to be cancelled")
    assert ledger.cancel(run_id, "stopped", fence=claim.fence).status is RunStatus.CANCELLED


def test_a_request_to_stop_is_not_for_a_later_claim(timed: Timed) -> None:
    ledger, run_id = timed.ledger, timed.made()
    claim = ledger.claim(run_id, "w", lease_seconds=60)
    ledger.cancel(run_id, "not wanted")
    ledger.fail(run_id, "no", None, dead=True, fence=claim.fence)
    ledger.reprocess(run_id)
    claim = ledger.claim(run_id, "w", lease_seconds=60)
    assert ledger.renew(run_id, claim.fence, lease_seconds=60) is False


def test_a_run_of_the_future_is_not_started_before(timed: Timed) -> None:
    ledger = timed.ledger
    delivery = Delivery(due_at=timed.now() + timedelta(seconds=100), timeout_seconds=2.5)
    run_id = ledger.create(RunRecord(WorkSpec("task", "work")), delivery).run_id
    refused(timed, run_id, lambda: ledger.claim(run_id, "w", lease_seconds=1), "it is not due yet")
    timed.forward(101)
    assert ledger.claim(run_id, "w", lease_seconds=1).run.timeout_seconds == 2.5


def test_a_run_is_claimed_for_its_attempt(timed: Timed) -> None:
    """By whoever names it: a message may be older than the run."""
    ledger = timed.ledger
    run_id = timed.made()
    refused(timed, run_id, lambda: ledger.claim(run_id, "w", lease_seconds=60, attempt=2), "it is in another attempt")
    fence = ledger.claim(run_id, "w", lease_seconds=60, attempt=1).fence
    ledger.try_again(run_id, "no", None, in_seconds=0, fence=fence)
    refused(timed, run_id, lambda: ledger.claim(run_id, "w", lease_seconds=60, attempt=1), "it is in another attempt")
    assert ledger.claim(run_id, "w", lease_seconds=60, attempt=2).run.attempt == 2


def test_a_run_is_ended_in_the_attempt_that_is_named(timed: Timed) -> None:
    """By somebody who has no fence: he may have heard late of what became of the attempt before."""
    ledger, why = timed.ledger, "it is in another attempt"
    run_id = timed.made()
    fence = ledger.claim(run_id, "w", lease_seconds=60).fence
    ledger.try_again(run_id, "no", None, in_seconds=0, fence=fence)
    refused(timed, run_id, lambda: ledger.fail(run_id, "lost", None, dead=True, attempt=1), why)
    ledger.claim(run_id, "w", lease_seconds=60)
    refused(timed, run_id, lambda: ledger.complete(run_id, 1, attempt=1), why)
    assert ledger.complete(run_id, 2, attempt=2).result == 2


def test_a_run_carries_its_message_to_everyone_who_publishes_or_executes_it(timed: Timed) -> None:
    message = {"task": "old.name", "args": [1, {"é": None}]}
    ledger = timed.ledger
    made = ledger.create(RunRecord(WorkSpec("task", "work", max_retries=1)), Delivery(message=message))
    run_id = made.run_id
    (published,) = ledger.publishable(1, again_in_seconds=1)
    ledger.mark_queued(run_id, "ref", "e", claim_within_seconds=1)
    timed.forward(2)
    (again,) = ledger.unclaimed(1, again_in_seconds=60)
    claimed = ledger.claim(run_id, "w", lease_seconds=1).run
    timed.forward(2)
    (reaped,) = ledger.reap(1, backoff_seconds=0)
    ledger.claim(run_id, "w", lease_seconds=60)
    dead = ledger.fail(run_id, "no", None, dead=True)
    records = (made, published, again, claimed, reaped, dead, ledger.reprocess(run_id), ledger.get(run_id))
    assert [run and run.message for run in records] == [message] * len(records)


def test_a_run_that_is_tried_again_may_have_another_message(timed: Timed) -> None:
    """Which the reaper's own attempts keep."""
    ledger = timed.ledger
    run_id = ledger.create(RunRecord(WorkSpec("task", "work")), Delivery(message={"first": 1})).run_id
    claim = ledger.claim(run_id, "w", lease_seconds=1)
    again = ledger.try_again(run_id, "no", None, in_seconds=0, fence=claim.fence, message={"second": [2]})
    (published,) = ledger.publishable(1, again_in_seconds=1)
    claimed = ledger.claim(run_id, "w", lease_seconds=1).run
    timed.forward(2)
    (reaped,) = ledger.reap(1, backoff_seconds=0)
    records = (again, published, claimed, reaped, ledger.get(run_id))
    assert [run and run.message for run in records] == [{"second": [2]}] * len(records)
    with pytest.raises(InvalidSpecError, match="message"):
        ledger.try_again(run_id, "no", None, in_seconds=0, message={"link": object()})


def test_whoever_tries_again_himself_is_not_overtaken_by_the_relay(timed: Timed) -> None:
    ledger, run_id = timed.ledger, timed.made()
    claim = ledger.claim(run_id, "w", lease_seconds=60)
    ledger.try_again(run_id, "no", None, in_seconds=0, publish_in_seconds=30, fence=claim.fence)
    assert ledger.publishable(1, again_in_seconds=1) == []
    again = ledger.claim(run_id, "w", lease_seconds=60)
    ledger.try_again(run_id, "no", None, in_seconds=-30, publish_in_seconds=30, fence=again.fence)
    assert [run.attempt for run in ledger.publishable(1, again_in_seconds=1)] == [3]


@pytest.mark.parametrize("many", [True, False])
def test_a_run_that_was_given_back_before_it_was_marked_is_published_when_it_is_due(
    timed: Timed, *, many: bool
) -> None:
    """A worker was faster than the submitter, found the entity locked, and has taken the only message with it."""
    ledger, run = timed.ledger, timed.ledger.create(RunRecord(WorkSpec("task", "work")))
    claim = ledger.claim(run.run_id, "w", lease_seconds=60)
    ledger.postpone(run.run_id, "its entity is locked", in_seconds=30, fence=claim.fence)
    if many:
        ledger.mark_many_queued([(run, "ref")], "celery", claim_within_seconds=300)
    else:
        ledger.mark_queued(run.run_id, "ref", "celery", claim_within_seconds=300, attempt=run.attempt)
    assert status(timed, run.run_id) == "pending"
    timed.forward(31)
    assert [one.run_id for one in ledger.publishable(1, again_in_seconds=30)] == [run.run_id]


def test_a_message_that_is_not_json_is_refused() -> None:
    with pytest.raises(InvalidSpecError, match="message"):
        Delivery(message={"link": object()})


@pytest.mark.parametrize("queued", [False, True])
def test_a_run_that_expired_is_cancelled(timed: Timed, *, queued: bool) -> None:
    ledger = timed.ledger
    delivery = Delivery(expires_at=timed.now() + timedelta(seconds=100))
    run_id = ledger.create(RunRecord(WorkSpec("task", "work")), delivery).run_id
    if queued:
        ledger.mark_queued(run_id, "ref", "e", claim_within_seconds=1)
    timed.forward(101)
    with pytest.raises(TransitionError, match="it has expired") as caught:
        ledger.claim(run_id, "w", lease_seconds=1)
    assert caught.value.status == RunStatus.CANCELLED
    *_, ended, told = ledger.events(run_id)
    assert (ended.event_type, ended.data) == ("cancelled", {"reason": "expired"})
    assert (told.event_type, told.data["why"]) == ("transition_refused", "it has expired")
    run = ledger.get(run_id)
    assert run is not None
    assert (run.status, run.started_at, run.completed_at) == ("cancelled", None, ended.timestamp)
    assert ledger.publishable(10, again_in_seconds=1) == ledger.unclaimed(10, again_in_seconds=1) == []


def test_a_run_that_has_started_does_not_expire(timed: Timed) -> None:
    ledger = timed.ledger
    delivery = Delivery(expires_at=timed.now() + timedelta(seconds=100))
    run_id = ledger.create(RunRecord(WorkSpec("task", "work")), delivery).run_id
    claim = ledger.claim(run_id, "w", lease_seconds=1000)
    timed.forward(101)
    assert ledger.complete(run_id, 1, fence=claim.fence).status is RunStatus.COMPLETED


def test_what_is_due_is_published_in_turn(timed: Timed) -> None:
    ledger, now = timed.ledger, timed.now()

    def made(seconds: float, grace: float = 0.0) -> str:
        delivery = Delivery(due_at=now + timedelta(seconds=seconds), publish_in_seconds=grace)
        return ledger.create(RunRecord(WorkSpec("task", "work")), delivery).run_id

    last, first, second, graced = made(500), made(100), made(200), made(50, grace=5000)
    running = timed.made()
    ledger.claim(running, "w", lease_seconds=10_000)
    assert ledger.publishable(10, again_in_seconds=6000) == []
    timed.forward(600)
    assert [run.run_id for run in ledger.publishable(2, again_in_seconds=6000)] == [first, second]
    (taken,) = ledger.publishable(10, again_in_seconds=6000)
    assert taken == ledger.get(last)
    assert ledger.publishable(10, again_in_seconds=6000) == []
    timed.forward(5000)
    assert [run.run_id for run in ledger.publishable(10, again_in_seconds=6000)] == [graced]
    assert kinds(timed, first) == ["created"]


def test_what_nobody_claims_is_published_again_after_a_while(timed: Timed) -> None:
    ledger, run_id = timed.ledger, timed.made()
    ledger.mark_queued(run_id, "ref", "e", claim_within_seconds=300)
    assert ledger.publishable(10, again_in_seconds=60) == ledger.unclaimed(10, again_in_seconds=60) == []
    timed.forward(301)
    assert ledger.publishable(10, again_in_seconds=60) == []
    assert ledger.unclaimed(10, again_in_seconds=60) == [ledger.get(run_id)]
    ledger.claim(run_id, "w", lease_seconds=1000)
    timed.forward(900)
    assert ledger.unclaimed(10, again_in_seconds=60) == []


def test_the_pause_doubles_six_times(timed: Timed) -> None:
    ledger, run_id = timed.ledger, timed.made()
    for pause in (600, 1200, 2400, 4800, 9600, 19200, 38400, 38400):
        assert [run.run_id for run in ledger.publishable(10, again_in_seconds=600)] == [run_id]
        timed.forward(pause - 100)
        assert ledger.publishable(10, again_in_seconds=600) == []
        timed.forward(101)
    ledger.mark_queued(run_id, "ref", "e", claim_within_seconds=0)
    timed.forward(1)
    ledger.unclaimed(10, again_in_seconds=600)
    timed.forward(38300)
    assert ledger.unclaimed(10, again_in_seconds=600) == []
    claim = ledger.claim(run_id, "w", lease_seconds=60)
    ledger.try_again(run_id, "no", None, in_seconds=0, fence=claim.fence)
    # A claim is what it was published for: the next pause is the first again.
    timed.forward(1)
    assert len(ledger.publishable(10, again_in_seconds=600)) == 1
    timed.forward(601)
    assert len(ledger.publishable(10, again_in_seconds=600)) == 1


def test_expired_leases_are_reaped(timed: Timed) -> None:
    ledger = timed.ledger
    retried, dead, stopped, alive = (timed.made(max_retries=retries) for retries in (1, 0, 1, 0))
    for seconds, run_id in enumerate((retried, dead, stopped), 10):
        ledger.claim(run_id, "w", lease_seconds=seconds)
    ledger.claim(alive, "w", lease_seconds=1000)
    ledger.cancel(stopped, "not wanted")
    timed.forward(20)
    first = ledger.reap(1, backoff_seconds=40)
    reaped = [*first, *ledger.reap(10, backoff_seconds=40)]
    assert len(first) == 1
    assert [run.run_id for run in reaped] == [retried, dead, stopped]
    assert [run.status for run in reaped] == ["pending", "dead_lettered", "cancelled"]
    assert reaped == ledger.get_many([retried, dead, stopped])
    assert {run.error_type for run in reaped[:2]} == {"LeaseExpired"}
    assert ledger.events(retried)[-1].data == {
        "error": "The lease of its worker ran out.",
        "error_type": "LeaseExpired",
        "attempt": 2,
        "in_seconds": 40,
    }
    assert ledger.events(stopped)[-1].data == {"reason": "lease expired"}
    assert ledger.reap(10, backoff_seconds=40) == []
    assert ledger.publishable(10, again_in_seconds=1) == []
    timed.forward(41)
    assert [run.run_id for run in ledger.publishable(10, again_in_seconds=1)] == [retried]


@pytest.mark.parametrize("limit", [-1, 1.5, None, 1 << 63])
def test_a_limit_is_a_number_of_rows(timed: Timed, limit: Any) -> None:
    for act in (
        lambda: timed.ledger.list_runs(limit=limit),
        lambda: timed.ledger.list_runs(offset=limit),
        lambda: timed.ledger.publishable(limit, again_in_seconds=1),
        lambda: timed.ledger.unclaimed(limit, again_in_seconds=1),
        lambda: timed.ledger.reap(limit, backoff_seconds=1),
    ):
        with pytest.raises(InvalidSpecError, match="must be a whole number from 0"):
            act()
