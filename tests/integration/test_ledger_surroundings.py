"""Servers, tables and connections that are not as one would wish."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.errors import ConfigurationError
from spine_migrate.execution import BackendError, RunRecord, WorkSpec
from spine_migrate.execution.executors.celery import CeleryExecutor
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.relay import Relay
from tests.conftest import StartServer
from tests.database import Database
from tests.ledgers import Timed, pool_of, status
from tests.runs import Accepting


def new(**fields: Any) -> RunRecord:
    return RunRecord(WorkSpec("task", "work", **fields))


def _read(ledger: Ledger, run_id: str) -> object:
    return ledger.get(run_id)


def _claimed(ledger: Ledger, run_id: str) -> object:
    return ledger.claim(run_id, "w", lease_seconds=60)


def _taken(ledger: Ledger, _: str) -> object:
    return ledger.publishable(1, again_in_seconds=30)


@pytest.mark.parametrize("act", [_read, _claimed, _taken])
def test_a_column_that_is_added_to_runs_disturbs_nobody(
    database: Database, act: Callable[[Ledger, str], object]
) -> None:
    """A prepared statement whose result has another shape is refused, on that connection for as long as it lives."""
    database.arrange(schema.upgrade)
    with ConnectionPool(database.url, min_size=1, max_size=1) as pool:
        ledger = PostgresLedger(pool)
        run_ids = [run.run_id for run in ledger.create_many([new() for _ in range(21)])]
        for run_id in run_ids[:20]:
            act(ledger, run_id)
        with database.connect() as connection:
            connection.execute("ALTER TABLE runs ADD COLUMN team text")
        act(ledger, run_ids[20])


def test_the_relay_outlives_a_standby_in_the_place_of_the_primary(start_server: StartServer) -> None:
    with start_server() as server, pool_of(server.url()) as pool:
        with psycopg.connect(server.url()) as connection:
            ((folder,),) = connection.execute("SHOW data_directory").fetchall()
        server.stop()
        signal = Path(folder) / "standby.signal"
        signal.touch()
        os.chown(signal, signal.parent.stat().st_uid, signal.parent.stat().st_gid)
        server.start()
        pool.check()
        ledger = PostgresLedger(pool)
        with pytest.raises(BackendError, match=r"during recovery|read-only"):
            Relay(ledger, Accepting()).run_once()
        with pytest.raises(BackendError, match=r"during recovery|read-only"):
            ledger.create_many([new()])


def test_a_priority_of_a_migrated_run_stops_no_relay(ledger_pool: ConnectionPool[Any], postgres: Timed) -> None:
    with ledger_pool.connection() as connection:
        ((old,),) = connection.execute(
            "INSERT INTO runs (run_id, kind, name, status, priority, created_at)"
            " VALUES (gen_random_uuid(), 'task', 'work', 'dead_lettered', 'urgent', now()) RETURNING run_id::text"
        ).fetchall()
    postgres.ledger.reprocess(old)
    other = postgres.made()
    Relay(postgres.ledger, CeleryExecutor(Celery(broker="memory://", set_as_current=False))).run_once()
    assert status(postgres, other) == "queued"


@pytest.mark.parametrize("encoding", ["latin1", "sql_ascii"])
def test_a_pool_with_an_encoding_that_does_not_hold_every_text(
    ledger_pool: ConnectionPool[Any], postgres: Timed, encoding: str
) -> None:
    run = postgres.ledger.create(new(params={"name": "é"}))
    with (
        ConnectionPool(str(ledger_pool.conninfo), min_size=1, kwargs={"client_encoding": encoding}) as pool,
        pytest.raises(ConfigurationError, match=f"UTF8, and this one has {encoding.upper()}"),
    ):
        PostgresLedger(pool).claim(run.run_id, "w", lease_seconds=60)
    assert status(postgres, run.run_id) == "pending"
