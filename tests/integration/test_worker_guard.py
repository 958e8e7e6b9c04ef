"""A worker has the lock on a run's entity while it executes the run, whatever becomes of either."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spine_migrate.execution import (
    BackendError,
    HandlerRegistry,
    RunRecord,
    RunStatus,
    TaskContext,
    task_spec,
)
from spine_migrate.execution.guards.memory import MemoryGuard
from spine_migrate.execution.guards.protocol import Held
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.worker import Worker
from tests.guards import guard_of
from tests.redis_server import RedisServer
from tests.waiting import LONGEST

FEED = ("feed", "7")
ABOUT_FEED = {"entity_type": "feed", "entity_id": "7"}
LONG = 600.0


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 20, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class Watched(MemoryGuard):
    """Counts renewals; ``on_acquire`` is called before each acquisition. No time passes, so nothing expires because a
    test is slow.
    """

    def __init__(self) -> None:
        super().__init__(clock=lambda: 0.0)
        self.renewed = threading.Semaphore(0)
        self.acquisitions = 0
        self.on_acquire: Callable[[], object] = lambda: None

    def acquire(self, entity_type: str, entity_id: str, *, holder: str, ttl_seconds: float) -> int | None:
        self.acquisitions += 1
        self.on_acquire()
        return super().acquire(entity_type, entity_id, holder=holder, ttl_seconds=ttl_seconds)

    def renew(self, entity_type: str, entity_id: str, *, fence: int, ttl_seconds: float) -> bool:
        still = super().renew(entity_type, entity_id, fence=fence, ttl_seconds=ttl_seconds)
        self.renewed.release()
        return still


class Bench:
    """A ledger, a guard and a worker for handlers of the task ``x``."""

    def __init__(self, handler: Callable[..., Any], *, lease_seconds: float = 60.0) -> None:
        self.clock = Clock()
        self.ledger = MemoryLedger(self.clock)
        self.guard = Watched()
        registry = HandlerRegistry()
        registry.register("task", "x", handler)
        self.worker = Worker(self.ledger, registry, lease_seconds, guard=self.guard)

    def submit(self, metadata: dict[str, Any] = ABOUT_FEED, **fields: Any) -> str:
        return self.ledger.create(RunRecord(task_spec("x", {}, metadata=metadata, **fields))).run_id

    def run(self, run_id: str) -> RunRecord:
        found = self.ledger.get(run_id)
        assert found is not None
        return found

    def last_event(self, run_id: str) -> tuple[str, dict[str, Any]]:
        event = self.ledger.events(run_id)[-1]
        return event.event_type, event.data


def test_the_handler_has_the_lock_and_whoever_sees_the_end_can_have_it() -> None:
    seen: list[tuple[Held | None, int | None]] = []
    bench = Bench(lambda _, context: seen.append((bench.guard.held(*FEED), context.entity_fence)))
    run_id = bench.submit()
    held_at_mark: list[Held | None] = []
    complete = bench.ledger.complete

    def marking(*given: Any, **more: Any) -> RunRecord:
        held_at_mark.append(bench.guard.held(*FEED))
        return complete(*given, **more)

    bench.ledger.complete = marking  # type: ignore[method-assign]
    done = bench.worker.execute(run_id)
    assert done is not None
    assert done.status == RunStatus.COMPLETED
    ((held, fence),) = seen
    assert fence is not None
    assert held == Held(run_id, fence)
    assert held_at_mark == [None]


def test_a_run_that_does_not_get_the_lock_waits_and_nothing_of_it_is_used_up() -> None:
    bench = Bench(lambda _: "done")
    run_id = bench.submit(max_retries=1)
    fence = bench.guard.acquire(*FEED, holder="a script", ttl_seconds=LONG)
    assert fence is not None
    for _ in range(5):
        assert bench.worker.execute(run_id) is None
        run = bench.run(run_id)
        assert (run.status, run.attempt, run.error) == (RunStatus.PENDING, 1, None)
        kind, data = bench.last_event(run_id)
        assert kind == "postponed"
        assert data["why"] == "The feed 7 is locked by a script."
        assert 15 <= data["in_seconds"] <= 30
        assert bench.ledger.publishable(10, again_in_seconds=60) == []
        bench.clock.now += timedelta(seconds=31)
        assert [due.run_id for due in bench.ledger.publishable(10, again_in_seconds=60)] == [run_id]
    bench.guard.release(*FEED, fence=fence)
    done = bench.worker.execute(run_id)
    assert done is not None
    assert (done.status, done.result, done.attempt) == (RunStatus.COMPLETED, "done", 1)


def test_a_guard_that_is_away_postpones_too_and_only_runs_about_entities(redis_server: RedisServer) -> None:
    bench = Bench(lambda _: "done")
    with guard_of(redis_server.url) as guard:
        redis_server.kill()
        worker = Worker(bench.ledger, bench.worker.registry, guard=guard)
        run_id, other = bench.submit(), bench.submit({"entity_type": "feed"})
        assert worker.execute(run_id) is None
        kind, data = bench.last_event(run_id)
        assert kind == "postponed"
        assert "The guard cannot be reached" in data["why"]
        done = worker.execute(other)
        assert done is not None
        assert done.status == RunStatus.COMPLETED


def test_a_guard_that_goes_away_while_the_handler_works_costs_nothing(redis_server: RedisServer) -> None:
    def handler(_: object, context: TaskContext) -> int | None:
        redis_server.kill()
        return context.entity_fence

    bench = Bench(handler)
    with guard_of(redis_server.url) as guard:
        done = Worker(bench.ledger, bench.worker.registry, guard=guard).execute(bench.submit())
    assert done is not None
    assert done.status == RunStatus.COMPLETED
    assert done.result > 0


def test_the_lock_is_renewed_for_as_long_as_the_handler_works() -> None:
    def handler(_: object, context: TaskContext) -> None:
        for _ in range(6):
            assert bench.guard.renewed.acquire(timeout=60)
        assert not context.cancelled.is_set()
        assert context.entity_fence is not None
        assert bench.guard.held(*FEED) == Held(context.run_id, context.entity_fence)

    bench = Bench(handler, lease_seconds=0.3)
    done = bench.worker.execute(bench.submit())
    assert done is not None
    assert (done.status, done.error) == (RunStatus.COMPLETED, None)


def test_a_handler_whose_lock_is_taken_is_told_and_its_result_does_not_count() -> None:
    def handler(_: object, context: TaskContext) -> str:
        assert context.entity_fence is not None
        assert bench.guard.release(*FEED, fence=context.entity_fence)
        assert bench.guard.acquire(*FEED, holder="another", ttl_seconds=LONG) is not None
        assert context.cancelled.wait(60)
        return "not to be believed"

    bench = Bench(handler, lease_seconds=0.3)
    dispatched: list[Any] = []
    run = bench.worker.execute(bench.submit(), before_mark=dispatched.append)
    assert run is not None
    assert (run.status, run.error_type, run.result, run.attempt) == (RunStatus.PENDING, "LockLost", None, 2)
    assert dispatched == []
    held = bench.guard.held(*FEED)
    assert held is not None
    assert held.holder == "another"


def test_a_lock_that_could_not_be_renewed_in_time_counts_as_lost_unless_it_still_is_ours() -> None:
    """The guard is away for longer than the lock lasts; what decides is what it says at the end."""
    away = threading.Event()

    class Away(Watched):
        def renew(self, entity_type: str, entity_id: str, *, fence: int, ttl_seconds: float) -> bool:
            if away.is_set():
                self.renewed.release()
                raise BackendError("The guard cannot be reached.")
            return super().renew(entity_type, entity_id, fence=fence, ttl_seconds=ttl_seconds)

    def handler(params: dict[str, Any], context: TaskContext) -> str:
        away.set()
        assert context.cancelled.wait(60)
        if params["back"]:
            away.clear()
        return "done"

    bench = Bench(handler, lease_seconds=0.3)
    bench.guard = Away()
    worker = Worker(bench.ledger, bench.worker.registry, 0.3, guard=bench.guard)
    outcomes = {}
    for back in (True, False):
        away.clear()
        spec = task_spec("x", {"back": back}, metadata=ABOUT_FEED)
        run = worker.execute(bench.ledger.create(RunRecord(spec)).run_id)
        assert run is not None
        outcomes[back] = (run.status, run.error_type)
    assert outcomes == {True: (RunStatus.COMPLETED, None), False: (RunStatus.PENDING, "LockLost")}


def test_a_second_attempt_takes_the_lock_over_and_the_first_cannot_end_it() -> None:
    bench = Bench(lambda _: None)
    run_id = bench.submit()
    first = bench.worker.begin(run_id)
    assert first is not None
    bench.clock.now += timedelta(seconds=61)
    assert [run.status for run in bench.ledger.reap(10, backoff_seconds=0)] == [RunStatus.PENDING]
    second = bench.worker.begin(run_id)
    assert second is not None
    fences = first.context.entity_fence, second.context.entity_fence
    assert fences[0] is not None
    assert fences[1] is not None
    assert fences[0] < fences[1]
    with first:
        assert first.complete("late") is None
    assert bench.guard.held(*FEED) == Held(run_id, fences[1])
    with second:
        done = second.complete("in time")
    assert done is not None
    assert (done.status, done.result) == (RunStatus.COMPLETED, "in time")
    assert bench.guard.held(*FEED) is None


def test_a_run_that_is_delivered_twice_leaves_the_lock_of_the_first_delivery_alone() -> None:
    bench = Bench(lambda _: None)
    run_id = bench.submit()
    first = bench.worker.begin(run_id)
    assert first is not None
    with first:
        before = bench.guard.held(*FEED)
        assert bench.worker.begin(run_id) is None
        assert bench.guard.held(*FEED) == before is not None
        assert bench.guard.acquisitions == 1


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_a_handler_that_fails_leaves_no_lock(error: BaseException) -> None:
    def handler(_: object) -> None:
        raise error

    bench = Bench(handler)
    run_id = bench.submit()
    if isinstance(error, SystemExit):
        with pytest.raises(SystemExit):
            bench.worker.execute(run_id)
    else:
        bench.worker.execute(run_id)
    assert bench.run(run_id).status == RunStatus.PENDING
    assert bench.guard.acquisitions == 1
    assert bench.guard.held(*FEED) is None


def test_a_run_that_is_cancelled_while_it_asks_for_the_lock_is_cancelled() -> None:
    bench = Bench(lambda _: None)
    run_id = bench.submit()
    bench.guard.acquire(*FEED, holder="a script", ttl_seconds=LONG)
    bench.guard.on_acquire = lambda: bench.ledger.cancel(run_id, "asked for")
    assert bench.worker.execute(run_id) is None
    assert bench.run(run_id).status == RunStatus.CANCELLED


def test_a_handler_whose_claim_is_lost_keeps_the_lock_until_it_has_ended() -> None:
    kept: list[Held | None] = []

    def handler(_: object, context: TaskContext) -> None:
        bench.ledger.fail(context.run_id, "an operator gave it up", None)
        assert context.cancelled.wait(60)
        while bench.guard.renewed.acquire(blocking=False):
            pass
        for _ in range(4):
            assert bench.guard.renewed.acquire(timeout=LONGEST)
        kept.append(bench.guard.held(*FEED))

    bench = Bench(handler, lease_seconds=0.3)
    run_id = bench.submit()
    assert bench.worker.execute(run_id) is None
    # Told here: what a handler raises is its run's outcome, and this one has none.
    assert [held.holder for held in kept if held is not None] == [run_id]
    run = bench.run(run_id)
    assert (run.status, run.error) == (RunStatus.FAILED, "an operator gave it up")
    assert bench.guard.held(*FEED) is None
