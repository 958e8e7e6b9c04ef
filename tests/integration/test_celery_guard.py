"""A Celery worker executes a run while it has the lock on its entity."""

from __future__ import annotations

from psycopg_pool import ConnectionPool

from spine_migrate.execution import RunStatus, WorkSpec
from spine_migrate.execution.guards.postgres import PostgresGuard
from spine_migrate.execution.relay import Relay
from tests.celery_worker import final, prepared, until
from tests.database import Database

FEED = ("feed", "7")


def test_a_run_waits_for_the_lock_and_has_it_then(database: Database, redis_url: str) -> None:
    place = prepared(database, redis_url)
    with (
        place.worker(processes=1) as worker,
        place.dispatcher() as dispatcher,
        ConnectionPool(place.url, min_size=1) as pool,
    ):
        guard = PostgresGuard(pool)
        fence = guard.acquire(*FEED, holder="a script", ttl_seconds=600)
        assert fence is not None
        spec = WorkSpec("task", "fenced", metadata={"entity_type": "feed", "entity_id": "7"}, max_retries=0)
        run_id = dispatcher.submit(spec)
        relay = Relay(dispatcher.ledger, dispatcher.executor, claim_within_seconds=10)

        def postponed() -> bool:
            relay.run_once()
            return [event.event_type for event in dispatcher.get_events(run_id)].count("postponed") > 1

        until(postponed, "the run is not given back", worker)
        assert place.executions(run_id) == 0
        assert guard.release(*FEED, fence=fence)
        run = final(dispatcher, run_id, worker, relay)
        assert (run.status, run.attempt) == (RunStatus.COMPLETED, 1)
        assert run.result > fence
        assert place.executions(run_id) == 1
        assert guard.held(*FEED) is None
