"""Whether whoever stores a run waits until PostgreSQL has it where a crash does not reach it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from celery import Celery
from psycopg_pool import ConnectionPool

from spine_migrate.execution import RunRecord, task_spec
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_shims import configure
from spine_shims.configuration import configuration, reset
from tests.conftest import StartServer
from tests.database import patient
from tests.ledgers import Timed, pool_of
from tests.patience import have_patience
from tests.waiting import LONGEST, until

_WAITING = "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


def test_only_who_says_so_does_not_wait(start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A synchronous standby that never comes makes every commit wait that is waited for."""
    with (
        start_server() as server,
        pool_of(server.url()) as pool,
        ThreadPoolExecutor() as threads,
        psycopg.connect(server.url(), autocommit=True) as admin,
    ):
        ledger, lax = PostgresLedger(pool), PostgresLedger(pool, wait_for_disk=False)
        _standby(admin, "nobody")
        waiting: list[Future[RunRecord]] = []

        def waits() -> bool:
            # The setting may take a moment to reach every process.
            if not waiting or waiting[-1].done():
                waiting.append(threads.submit(ledger.create, _run()))
            return admin.execute(_WAITING).rowcount == 1

        try:
            until(waits, "Nobody waits.")
            have_patience(monkeypatch)
            configure(patient(server.url()), wait_for_disk=False)
            of_shims = configuration().ledger(Celery(set_as_current=False))
            reset()
            one = threads.submit(lax.create, _run()).result(LONGEST)
            many = threads.submit(lax.create_many, [_run(), _run()]).result(LONGEST)
            called = threads.submit(of_shims.create, _run()).result(LONGEST)
            assert not waiting[-1].done()
            claimed = threads.submit(lax.claim, one.run_id, "worker", lease_seconds=60)
            until(lambda: admin.execute(_WAITING).rowcount == 2, "The claim is not waited for.")
        finally:
            _standby(admin, "")
        assert claimed.result(LONGEST).run.run_id == one.run_id
        stored = [waiting[-1].result(LONGEST), one, *many, called]
        assert len(ledger.get_many([run.run_id for run in stored])) == 5


def test_the_callers_transaction_is_waited_for(ledger_pool: ConnectionPool[Any], postgres: Timed) -> None:
    with ledger_pool.connection() as connection:
        PostgresLedger(ledger_pool, wait_for_disk=False).create(_run(), connection=connection)
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)


def _run() -> RunRecord:
    return RunRecord(task_spec("work"))


def _standby(admin: psycopg.Connection[Any], name: str) -> None:
    admin.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'".encode())
    admin.execute("SELECT pg_reload_conf()")
