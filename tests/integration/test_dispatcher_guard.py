"""A dispatcher with a guard refuses runs about what is locked, and the executors hold the lock while they execute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.execution import (
    ConcurrencyError,
    Dispatcher,
    HandlerRegistry,
    RunStatus,
    SyncDispatcher,
    TaskContext,
    task_spec,
)
from spine_migrate.execution.executors.local import LocalExecutor
from spine_migrate.execution.executors.memory import MemoryExecutor
from spine_migrate.execution.guards.memory import MemoryGuard
from spine_migrate.execution.guards.postgres import PostgresGuard
from spine_migrate.execution.guards.protocol import ConcurrencyGuard
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from tests.database import Database
from tests.guards import guard_of
from tests.redis_server import RedisServer

FEED = ("feed", "7")
ABOUT_FEED = {"entity_type": "feed", "entity_id": "7"}
LONG = 600.0


class Bench:
    def __init__(self, ledger: Any, guard: ConcurrencyGuard) -> None:
        self.guard = guard
        self.registry = HandlerRegistry()
        self.executor = MemoryExecutor(ledger, self.registry)
        self.dispatcher = SyncDispatcher(self.executor, ledger, self.registry, guard)

    def lock(self, holder: str = "a script") -> int:
        fence = self.guard.acquire(*FEED, holder=holder, ttl_seconds=LONG)
        assert fence is not None
        return fence


@pytest.fixture(params=["memory", "postgres"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with ExitStack() as opened:
        if request.param == "memory":
            yield Bench(MemoryLedger(), MemoryGuard())
            return
        database: Database = request.getfixturevalue("database")
        database.arrange(schema.upgrade)
        pool = opened.enter_context(ConnectionPool(database.url, min_size=1, max_size=4))
        yield Bench(PostgresLedger(pool), PostgresGuard(pool))


def test_the_executor_has_the_lock_while_it_executes_and_not_before(bench: Bench) -> None:
    held = []
    bench.registry.register("task", "x", lambda _: held.append(bench.guard.held(*FEED)))
    run_id = bench.dispatcher.submit_task("x", metadata=ABOUT_FEED)
    assert bench.guard.held(*FEED) is None
    assert [run.status for run in bench.executor.run_all()] == [RunStatus.COMPLETED]
    ((during),) = held
    assert during is not None
    assert during.holder == run_id
    assert bench.guard.held(*FEED) is None
    assert bench.dispatcher.submit_task("x", metadata=ABOUT_FEED) != run_id


def test_a_run_about_what_is_locked_is_not_stored(bench: Bench) -> None:
    fence = bench.lock()
    with pytest.raises(ConcurrencyError, match=r"^The feed 7 is locked by a script\.$") as refused:
        bench.dispatcher.submit_task("x", metadata=ABOUT_FEED)
    assert refused.value.run_id is None
    assert bench.dispatcher.list_runs() == []
    assert bench.executor.submitted == []
    for other in ({}, {"entity_type": "feed"}, {"entity_type": "feed", "entity_id": 8}):
        bench.dispatcher.submit_task("x", metadata=other)
    bench.guard.release(*FEED, fence=fence)
    assert bench.dispatcher.submit_task("x", metadata=ABOUT_FEED)


def test_a_run_that_has_the_lock_is_named(bench: Bench) -> None:
    other = str(uuid4())
    bench.lock(other)
    with pytest.raises(ConcurrencyError) as refused:
        bench.dispatcher.submit_task("x", metadata={**ABOUT_FEED, "entity_id": 7})
    assert refused.value.run_id == other


def test_a_second_active_run_is_refused_by_the_ledger_with_the_first_named(bench: Bench) -> None:
    first = bench.dispatcher.submit_task("x", metadata=ABOUT_FEED)
    with pytest.raises(ConcurrencyError, match="has an active run") as refused:
        bench.dispatcher.submit_task("x", metadata=ABOUT_FEED)
    assert refused.value.run_id == first


def test_a_key_that_was_submitted_gives_its_run_although_the_entity_is_locked(bench: Bench) -> None:
    first = bench.dispatcher.submit_task("x", metadata=ABOUT_FEED, idempotency_key="k")
    bench.lock()
    assert bench.dispatcher.submit_task("x", metadata=ABOUT_FEED, idempotency_key="k") == first
    assert len(bench.executor.submitted) == 1
    with pytest.raises(ConcurrencyError):
        bench.dispatcher.submit_task("x", metadata=ABOUT_FEED, idempotency_key="another")


def test_a_run_whose_entity_is_locked_after_it_was_submitted_waits_and_can_be_cancelled(bench: Bench) -> None:
    bench.registry.register("task", "x", lambda _, context: context.entity_fence)
    run_id = bench.dispatcher.submit_task("x", metadata=ABOUT_FEED)
    fence = bench.lock()
    assert bench.executor.run_all() == []
    events = [event.event_type for event in bench.dispatcher.get_events(run_id)]
    assert events[:4] == ["created", "queued", "started", "postponed"]
    # Again, where this took so long that it was due.
    assert set(events[4:]) <= {"started", "postponed"}
    run = bench.dispatcher.get_run(run_id)
    assert run is not None
    assert (run.status, run.attempt) == (RunStatus.PENDING, 1)
    assert bench.dispatcher.cancel(run_id)
    held = bench.guard.held(*FEED)
    assert held is not None
    assert held.fence == fence


def test_a_retry_of_what_is_locked_is_refused(bench: Bench) -> None:
    run_id = bench.dispatcher.submit_task("x", metadata=ABOUT_FEED)
    bench.dispatcher.mark_failed(run_id, "no")
    fence = bench.lock()
    with pytest.raises(ConcurrencyError):
        bench.dispatcher.retry(run_id)
    assert [run.run_id for run in bench.dispatcher.list_runs()] == [run_id]
    bench.guard.release(*FEED, fence=fence)
    assert bench.dispatcher.retry(run_id) != run_id


def test_a_refusal_leaves_the_callers_transaction_usable(database: Database) -> None:
    database.arrange(schema.upgrade)
    with ConnectionPool(database.url, min_size=1, max_size=4) as pool, database.connect() as caller:
        bench = Bench(PostgresLedger(pool), PostgresGuard(pool))
        fence = bench.lock()
        caller.execute("CREATE TABLE kept (a int)")
        with pytest.raises(ConcurrencyError):
            bench.dispatcher.submit_task("x", metadata=ABOUT_FEED, idempotency_key="k", connection=caller)
        bench.guard.release(*FEED, fence=fence)
        mine = bench.dispatcher.submit_task("x", metadata=ABOUT_FEED, idempotency_key="k", connection=caller)
        bench.lock()
        again = bench.dispatcher.submit_task("x", metadata=ABOUT_FEED, idempotency_key="k", connection=caller)
        assert again == mine
        caller.commit()
        with database.connect() as other:
            assert other.execute("SELECT (SELECT count(*) FROM kept), count(*) FROM runs").fetchone() == (0, 1)


def test_a_guard_that_is_away_does_not_keep_work_from_being_submitted(redis_server: RedisServer) -> None:
    with guard_of(redis_server.url) as guard:
        redis_server.kill()
        bench = Bench(MemoryLedger(), guard)
        bench.registry.register("task", "x", lambda _: None)
        run_id = bench.dispatcher.submit_task("x", metadata=ABOUT_FEED)
        assert bench.executor.run_all() == []
    assert bench.dispatcher.get_events(run_id)[-1].event_type == "postponed"


def test_an_executor_keeps_the_guard_that_it_has() -> None:
    own, of_dispatcher = MemoryGuard(), MemoryGuard()
    executor = MemoryExecutor(guard=own)
    SyncDispatcher(executor, concurrency=of_dispatcher)
    assert executor.guard is own


def fence_of(_: dict[str, Any], context: TaskContext) -> int | None:
    return context.entity_fence


@pytest.mark.parametrize("processes", [False, True])
def test_a_local_executor_gives_its_handlers_the_fence(processes: bool) -> None:  # noqa: FBT001 a parameter of the test
    registry, guard = HandlerRegistry(), MemoryGuard()
    registry.register("task", "x", fence_of)
    before = guard.acquire(*FEED, holder="before", ttl_seconds=LONG)
    assert before is not None
    guard.release(*FEED, fence=before)
    with LocalExecutor(None, registry, workers=1, processes=processes) as executor:
        dispatcher = SyncDispatcher(executor, registry=registry, concurrency=guard)
        run_id = dispatcher.submit_task("x", metadata=ABOUT_FEED)
        end = time.monotonic() + 60
        while (run := dispatcher.get_run(run_id)) is None or run.status != RunStatus.COMPLETED:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert run.result == before + 1
    assert guard.held(*FEED) is None


async def _submit(dispatcher: Dispatcher) -> str:
    return await dispatcher.submit(task_spec("x", {}, metadata=ABOUT_FEED))


def test_the_awaitable_dispatcher_has_the_same_guard() -> None:
    guard = MemoryGuard()
    dispatcher = Dispatcher(MemoryExecutor(), concurrency=guard)
    guard.acquire(*FEED, holder="a script", ttl_seconds=LONG)
    with pytest.raises(ConcurrencyError):
        asyncio.run(_submit(dispatcher))
