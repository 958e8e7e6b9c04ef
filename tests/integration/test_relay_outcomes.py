"""Runs that somebody executed without claiming them are marked with what came of them, and not published again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.execution import BackendError, RunStatus, SyncDispatcher
from spine_migrate.execution.events import EventType
from spine_migrate.execution.executors.protocol import Outcome
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.ledgers.protocol import Ending
from spine_migrate.execution.relay import Pass, Relay
from tests.database import Database
from tests.relays import Bench, Knowing, benches


@pytest.fixture(params=["memory", "postgres"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    yield from benches(request)


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ((RunStatus.COMPLETED, {"a": 1}), RunStatus.COMPLETED, {"a": 1}),
        ((RunStatus.COMPLETED, object()), RunStatus.COMPLETED, None),
        ((RunStatus.FAILED, ValueError("no")), RunStatus.FAILED, "no"),
        ((RunStatus.CANCELLED, "revoked"), RunStatus.CANCELLED, None),
    ],
)
def test_what_a_worker_that_does_not_claim_has_executed_is_marked(
    bench: Bench, given: tuple[RunStatus, Any], status: RunStatus, said: object
) -> None:
    bench.postbox = Knowing()
    run_id, other = (bench.dispatcher.submit_task("work") for _ in range(2))
    relay = bench.relay(claim_within_seconds=100)
    relay.run_once()
    bench.forward(101)
    bench.postbox.outcomes[run_id] = Outcome(*given, datetime.now(UTC) + timedelta(days=1))
    assert relay.run_once() == Pass(published_again=1, ended_elsewhere=1)
    assert bench.postbox.sent.count(run_id) == 1
    assert bench.postbox.sent.count(other) == 2
    run = bench.ledger.get(run_id)
    assert run is not None
    assert run.status is status
    assert (run.error if status is RunStatus.FAILED else run.result) == said
    alerts = [event.data for event in bench.ledger.events(run_id) if event.event_type == EventType.ALERT_TRIGGERED]
    assert len(alerts) == 1
    assert "did not claim" in alerts[0]["executing"]


def test_what_came_of_something_else_under_an_id_says_nothing(bench: Bench) -> None:
    """It ended before the run was there, or it is that of an attempt before."""
    bench.postbox = Knowing()
    early, tried = (bench.dispatcher.submit_task("work") for _ in range(2))
    bench.postbox.outcomes[early] = Outcome(RunStatus.COMPLETED, 1, datetime(2025, 1, 1, tzinfo=UTC))
    bench.postbox.outcomes[tried] = Outcome(RunStatus.FAILED, ValueError(), datetime.now(UTC) + timedelta(days=1))
    claim = bench.ledger.claim(tried, "worker", lease_seconds=60)
    bench.ledger.try_again(tried, "no", None, in_seconds=0, fence=claim.fence)
    relay = bench.relay(claim_within_seconds=100)
    assert relay.run_once() == Pass(published=2)
    bench.forward(101)
    assert relay.run_once() == Pass(published_again=2)


def test_while_nobody_can_say_what_became_of_it_a_run_is_published_again(bench: Bench) -> None:
    """It must not wait for a result backend; a worker that claims does not execute it twice."""
    bench.postbox = Knowing()
    run_id = bench.dispatcher.submit_task("work")
    relay = bench.relay(claim_within_seconds=100)
    relay.run_once()
    bench.forward(101)
    bench.postbox.away = 1
    assert relay.run_once() == Pass(published_again=1)
    assert bench.status(run_id) is RunStatus.QUEUED


def test_what_cannot_be_read_of_one_does_not_hold_up_the_others(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.postbox = Knowing()
    ended, unreadable = (bench.dispatcher.submit_task("work") for _ in range(2))
    relay = bench.relay(claim_within_seconds=100)
    relay.run_once()
    bench.forward(101)
    bench.postbox.unreadable.add(unreadable)
    bench.postbox.outcomes[ended] = Outcome(RunStatus.COMPLETED, 1, datetime.now(UTC) + timedelta(days=1))
    assert relay.run_once() == Pass(published_again=1, ended_elsewhere=1)
    assert f"The run {unreadable} is published again" in caplog.text
    assert "secret" not in caplog.text


def test_who_was_faster_than_the_mark_keeps_the_run(bench: Bench) -> None:
    run_id = bench.dispatcher.submit_task("work")
    run = bench.ledger.get(run_id)
    assert run is not None
    bench.ledger.claim(run_id, "worker", lease_seconds=60)
    assert not bench.ledger.end_unclaimed(run, Ending(RunStatus.COMPLETED, 1), worker="one", why="so")
    assert bench.status(run_id) is RunStatus.RUNNING


def test_a_mark_is_made_whole_or_not_at_all(database: Database) -> None:
    """A run that was claimed for it, and nothing more, would be reaped, and executed once more."""
    database.arrange(schema.upgrade)
    with ConnectionPool(database.url, min_size=1, max_size=2) as pool:
        ledger, postbox = PostgresLedger(pool), Knowing()
        run_id = SyncDispatcher(postbox, ledger, publish=False).submit_task("work")
        relay = Relay(ledger, postbox, claim_within_seconds=0)
        relay.run_once()
        postbox.outcomes[run_id] = Outcome(RunStatus.COMPLETED, 1, datetime.now(UTC) + timedelta(days=1))
        with database.connect() as connection:
            connection.execute(_FAILOVER)
        with pytest.raises(BackendError, match="going away"):
            relay.run_once()
        run = ledger.get(run_id)
        assert run is not None
        assert (run.status, run.started_at) == (RunStatus.QUEUED, None)


_FAILOVER = """
    CREATE FUNCTION go_away() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE 'going away' USING ERRCODE = 'admin_shutdown'; END $$;
    CREATE TRIGGER go_away BEFORE UPDATE ON runs FOR EACH ROW WHEN (NEW.status = 'completed')
        EXECUTE FUNCTION go_away();
"""
