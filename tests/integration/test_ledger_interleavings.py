"""Two sessions at one run: what a statement does that had to wait for another one, which its snapshot did not show.

The first change is made in a transaction that stays open; the second one starts, waits, and goes on once the first is
committed. Or it does not wait at all, where it must not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from spine_migrate.execution import (
    ConcurrencyError,
    RunEvent,
    RunRecord,
    RunStatus,
    TransitionError,
    WorkSpec,
)
from spine_migrate.execution.ledgers import carrying
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.sessions import execute, queries
from tests.ledgers import Timed, kinds, status

Pool = ConnectionPool[Any]
Connection = psycopg.Connection[Any]

FEED = {"entity_type": "feed", "entity_id": "7"}

# What a change to pending needs beside its run.
TRIED: dict[str, Any] = {"error": "no", "error_type": None, "publish_in": 0.0, "message": None}


@pytest.fixture
def first(ledger_pool: Pool) -> Iterator[Connection]:
    """The session whose transaction stays open."""
    with psycopg.connect(str(ledger_pool.conninfo)) as connection:
        yield connection
        connection.rollback()


def change(connection: Connection, name: str, **values: object) -> None:
    """One of the ledger's own statements, not committed yet."""
    assert execute(connection, queries("ledger", None)[name], values).rowcount == 1


def after(first: Connection, act: Callable[[], Any], *, commit: bool = True) -> Any:
    """What ``act`` gives that has to wait for the open transaction."""
    with (
        psycopg.connect(first.info.dsn, password=first.info.password, autocommit=True) as watch,
        ThreadPoolExecutor(1) as other,
    ):
        future: Future[Any] = other.submit(act)
        while not watch.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))", [first.info.backend_pid]
        ).fetchall()[0][0]:
            assert not future.done(), f"it did not wait: {future.result()!r}"
        first.commit() if commit else first.rollback()
        return future.result()


def refusal(act: Callable[[], object]) -> TransitionError:
    with pytest.raises(TransitionError) as caught:
        act()
    return caught.value


CLAIM = {"worker": "first", "lease": 60.0, "attempt": None}


def test_two_claims(postgres: Timed, first: Connection) -> None:
    run_id = postgres.made()
    change(first, "claim", run_id=run_id, **CLAIM)
    error = after(first, lambda: refusal(lambda: postgres.ledger.claim(run_id, "second", lease_seconds=60)))
    assert (error.status, error.wanted) == ("running", "running")
    started, told = postgres.ledger.events(run_id)[1:]
    assert (started.event_type, started.data["worker"]) == ("started", "first")
    assert told.event_type == "transition_refused"


def test_two_claims_where_the_default_is_repeatable_read(ledger_pool: Pool, postgres: Timed, first: Connection) -> None:
    """The one that had to wait starts over, and is refused as in READ COMMITTED."""
    run_id = postgres.made()
    change(first, "claim", run_id=run_id, **CLAIM)
    options = {"options": "-c default_transaction_isolation=serializable"}
    with ConnectionPool(str(ledger_pool.conninfo), min_size=1, kwargs=options) as pool:
        ledger = PostgresLedger(pool)
        error = after(first, lambda: refusal(lambda: ledger.claim(run_id, "second", lease_seconds=60)))
    assert error.status == "running"
    assert kinds(postgres, run_id) == ["created", "started", "transition_refused"]


@pytest.mark.parametrize("late", ["complete", "renew", "fail"])
def test_a_mark_that_waited_for_the_reaper(postgres: Timed, first: Connection, late: str) -> None:
    ledger, run_id = postgres.ledger, postgres.made()
    fence = ledger.claim(run_id, "w", lease_seconds=60).fence
    change(first, "try_again", run_id=run_id, fence=fence, in_seconds=0.0, **TRIED)
    acts: dict[str, Callable[[], object]] = {
        "complete": lambda: ledger.complete(run_id, 1, fence=fence),
        "renew": lambda: ledger.renew(run_id, fence, lease_seconds=60),
        "fail": lambda: ledger.fail(run_id, "no", None, fence=fence),
    }
    error = after(first, lambda: refusal(acts[late]))
    assert "the claim of this worker is lost" in str(error)
    assert status(postgres, run_id) is RunStatus.PENDING


def test_a_cancellation_that_waited_for_a_claim_asks_the_worker(postgres: Timed, first: Connection) -> None:
    ledger, run_id = postgres.ledger, postgres.made()
    change(first, "claim", run_id=run_id, **CLAIM)
    run = after(first, lambda: ledger.cancel(run_id, "not wanted"))
    assert run == ledger.get(run_id)
    assert run.status is RunStatus.RUNNING
    assert kinds(postgres, run_id) == ["created", "started"]


def test_a_cancellation_that_waited_for_the_end(postgres: Timed, first: Connection) -> None:
    ledger, run_id = postgres.ledger, postgres.made()
    fence = ledger.claim(run_id, "w", lease_seconds=60).fence
    change(
        first, "finish", run_id=run_id, status="completed", sources=["running"], fence=fence, attempt=None,
        result=Jsonb(1), error=None, error_type=None, data=Jsonb({}),
    )  # fmt: skip
    assert after(first, lambda: refusal(lambda: ledger.cancel(run_id, "x"))).status == "completed"
    assert status(postgres, run_id) is RunStatus.COMPLETED


def test_a_renewal_that_waited_for_a_cancellation_hears_of_it(postgres: Timed, first: Connection) -> None:
    ledger, run_id = postgres.ledger, postgres.made()
    fence = ledger.claim(run_id, "w", lease_seconds=60).fence
    change(first, "cancel", run_id=run_id, fence=None, reason="x")
    assert after(first, lambda: ledger.renew(run_id, fence, lease_seconds=60)) is True


def test_publishing_that_waited_for_a_claim(postgres: Timed, first: Connection) -> None:
    ledger, run_id = postgres.ledger, postgres.made()
    change(first, "claim", run_id=run_id, **CLAIM)
    assert after(first, lambda: ledger.mark_queued(run_id, "late", "e", claim_within_seconds=60)) is False
    run = ledger.get(run_id)
    assert run is not None
    assert (run.status, run.external_ref) == ("running", "late")


@pytest.mark.parametrize("ends", [True, False])
def test_publishing_while_a_worker_marks_its_run(
    postgres: Timed, first: Connection, monkeypatch: pytest.MonkeyPatch, *, ends: bool
) -> None:
    """Who carried it is noted once that is over; where it does not end, it is not waited for."""
    ledger, run_id, other = postgres.ledger, postgres.made(), postgres.made()
    runs = [run for run in map(ledger.get, (run_id, other)) if run is not None]
    for one in (run_id, other):
        ledger.claim(one, "w", lease_seconds=60)
    first.execute("UPDATE runs SET tags = '{}' WHERE run_id = %s", [run_id])
    monkeypatch.setattr(carrying, "sleep", lambda _: first.commit() if ends else None)
    assert ledger.mark_many_queued([(run, f"ref-{run.run_id}") for run in runs], "e", claim_within_seconds=60) == 0
    found = [run.external_ref for run in map(ledger.get, (run_id, other)) if run is not None]
    assert found == [f"ref-{run_id}" if ends else None, f"ref-{other}"]


def test_a_claim_that_its_snapshot_did_not_allow(postgres: Timed, first: Connection) -> None:
    """Running when the statement began, and pending once the other has committed: what is true then counts."""
    ledger, run_id = postgres.ledger, postgres.made()
    old = ledger.claim(run_id, "w", lease_seconds=60)
    change(first, "try_again", run_id=run_id, fence=old.fence, in_seconds=-1.0, **TRIED)
    claim = after(first, lambda: ledger.claim(run_id, "second", lease_seconds=60))
    assert claim.run.attempt == 2
    assert claim.fence > old.fence
    assert "transition_refused" not in kinds(postgres, run_id)


@pytest.mark.parametrize(
    ("column", "value", "allowed"), [("tags", Jsonb({"seen": 1}), True), ("status", "cancelled", False)]
)
def test_an_application_that_updates_runs_by_itself(
    postgres: Timed, first: Connection, column: str, value: object, *, allowed: bool
) -> None:
    ledger, run_id = postgres.ledger, postgres.made()
    change_to = psycopg.sql.SQL("UPDATE runs SET {} = %s WHERE run_id = %s").format(psycopg.sql.Identifier(column))
    first.execute(change_to, [value, run_id])
    assert ledger.publishable(10, again_in_seconds=60) == []
    if allowed:
        claim = after(first, lambda: ledger.claim(run_id, "w", lease_seconds=60))
        assert claim.run.tags == {"seen": 1}
        assert claim.run == ledger.get(run_id)
    else:
        error = after(first, lambda: refusal(lambda: ledger.claim(run_id, "w", lease_seconds=60)))
        assert error.status == "cancelled"


def test_the_relay_waits_for_nobody(postgres: Timed, first: Connection) -> None:
    """Neither for a change of the ledger, nor for an application's: what is locked is left for the next time."""
    ledger = postgres.ledger
    published, free, claimed, updated = (postgres.made() for _ in range(4))
    for run_id in (claimed, updated):
        ledger.claim(run_id, "w", lease_seconds=10)
    postgres.forward(11)
    change(first, "mark_queued", run_id=published, external_ref="r", executor_name="e", claim_within=0.0, attempt=None)
    first.execute("UPDATE runs SET tags = '{}' WHERE run_id = %s", [updated])
    assert [run.run_id for run in ledger.publishable(10, again_in_seconds=60)] == [free]
    assert [run.run_id for run in ledger.reap(10, backoff_seconds=60)] == [claimed]
    first.commit()
    assert [run.run_id for run in ledger.reap(10, backoff_seconds=60)] == [updated]


@pytest.mark.parametrize("name", ["take", "expired_leases"])
def test_two_relays_share_the_work(postgres: Timed, first: Connection, name: str) -> None:
    ledger, run_ids = postgres.ledger, {postgres.made() for _ in range(4)}
    if name == "expired_leases":
        for run_id in run_ids:
            ledger.claim(run_id, "w", lease_seconds=10)
        postgres.forward(11)
    values = {"status": "pending", "limit": 2, "again_in": 60.0}
    taken = {row["run_id"] for row in execute(first, queries("ledger", None)[name], values)}
    rest = ledger.reap(10, backoff_seconds=1) if name != "take" else ledger.publishable(10, again_in_seconds=60)
    assert len(taken) == len(rest) == 2
    assert taken | {run.run_id for run in rest} == run_ids


def test_an_open_transaction_that_names_a_run_holds_nobody_up(
    ledger_pool: Pool, postgres: Timed, first: Connection
) -> None:
    """A child and an event of it: their foreign keys lock the run's key until the application commits."""
    run_id = postgres.made()
    with ConnectionPool(ledger_pool.conninfo, min_size=1, kwargs={"options": "-c lock_timeout=5s"}) as pool:
        ledger = PostgresLedger(pool)
        ledger.create(RunRecord(WorkSpec("step", "child", parent_run_id=run_id)), connection=first)
        ledger.record(RunEvent(run_id, "progress"), connection=first)
        assert len(ledger.publishable(10, again_in_seconds=0)) == 1
        assert ledger.mark_queued(run_id, "r", "e", claim_within_seconds=0)
        assert len(ledger.unclaimed(10, again_in_seconds=0)) == 1
        fence = ledger.claim(run_id, "w", lease_seconds=-1).fence
        ledger.renew(run_id, fence, lease_seconds=-1)
        assert [run.status for run in ledger.reap(10, backoff_seconds=-1)] == ["pending"]
        fence = ledger.claim(run_id, "w", lease_seconds=60).fence
        ledger.cancel(run_id, "x")
        ledger.fail(run_id, "no", None, dead=True, fence=fence)
        ledger.reprocess(run_id)
        ledger.cancel(run_id, "x")
    first.commit()
    assert kinds(postgres, run_id)[-1] == "cancelled"
    assert "progress" in kinds(postgres, run_id)


@pytest.mark.parametrize("metadata", [{}, FEED], ids=["key", "key and entity"])
@pytest.mark.parametrize("commit", [True, False])
def test_a_key_that_another_transaction_is_about_to_take(
    postgres: Timed, first: Connection, metadata: dict[str, Any], *, commit: bool
) -> None:
    spec = WorkSpec("task", "work", idempotency_key="k", metadata=metadata)
    one, other = RunRecord(spec), RunRecord(spec)
    postgres.ledger.create(one, connection=first)
    stored = after(first, lambda: postgres.ledger.create(other), commit=commit)
    assert stored.run_id == (one if commit else other).run_id
    assert [run.run_id for run in postgres.ledger.list_runs()] == [stored.run_id]
    assert kinds(postgres, stored.run_id) == ["created"]


@pytest.mark.parametrize("commit", [True, False])
def test_an_entity_that_another_transaction_is_about_to_take(
    postgres: Timed, first: Connection, *, commit: bool
) -> None:
    one, other = (RunRecord(WorkSpec("task", "work", metadata=FEED)) for _ in range(2))
    postgres.ledger.create(one, connection=first)
    if commit:
        with pytest.raises(ConcurrencyError) as caught:
            after(first, lambda: postgres.ledger.create(other))
        assert caught.value.run_id == one.run_id
    else:
        assert after(first, lambda: postgres.ledger.create(other), commit=False).run_id == other.run_id


def test_a_dead_letter_whose_entity_another_transaction_is_about_to_take(postgres: Timed, first: Connection) -> None:
    run_id = postgres.made(metadata=FEED)
    postgres.ledger.fail(run_id, "no", None, dead=True)
    other = postgres.ledger.create(RunRecord(WorkSpec("task", "work", metadata=FEED)), connection=first)
    with pytest.raises(ConcurrencyError) as caught:
        after(first, lambda: postgres.ledger.reprocess(run_id))
    assert caught.value.run_id == other.run_id
    assert status(postgres, run_id) is RunStatus.DEAD_LETTERED


def test_all_at_once_never_wait_in_a_circle(postgres: Timed) -> None:
    """A deadlock would end one of them with BackendError."""
    ledger, run_ids = postgres.ledger, [postgres.made(max_retries=1000) for _ in range(2)]
    barrier = threading.Barrier(4)
    acts: list[Callable[[str], object]] = [
        lambda run_id: ledger.claim(run_id, "w", lease_seconds=-1),
        lambda run_id: ledger.mark_queued(run_id, "r", "e", claim_within_seconds=0),
        lambda run_id: ledger.try_again(run_id, "no", None, in_seconds=-1),
        lambda _: ledger.reap(10, backoff_seconds=-1),
        lambda _: ledger.publishable(10, again_in_seconds=0),
        lambda _: ledger.unclaimed(10, again_in_seconds=0),
    ]

    def work(number: int) -> int:
        barrier.wait()
        done = 0
        for turn in range(60):
            try:
                acts[(turn + number) % len(acts)](run_ids[turn * (number + 1) % 2])
                done += 1
            except TransitionError:
                continue
        return done

    with ThreadPoolExecutor(4) as threads:
        assert min(threads.map(work, range(4))) > 0
    for run_id in run_ids:
        events = ledger.events(run_id)
        running = False
        for event in events:
            if event.event_type == "started":
                assert not running
                running = True
            elif event.event_type == "retry_scheduled":
                assert running
                running = False
