"""Ledgers for tests, each with a time that goes by when the test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.execution import EventType, RunRecord, RunStatus, TransitionError, WorkSpec
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.ledgers.protocol import Ledger

#: Needs every kind of care that a name can need.
AWKWARD_SCHEMA = "Ru\"n's 100%s"

_AGE = """
    UPDATE {schema}.run_handoff
       SET next_at = next_at - %(by)s, due_at = due_at - %(by)s, expires_at = expires_at - %(by)s;
    UPDATE {schema}.runs
       SET created_at = created_at - %(by)s, started_at = started_at - %(by)s, completed_at = completed_at - %(by)s;
    UPDATE {schema}.run_events SET timestamp = timestamp - %(by)s;
"""


@dataclass(frozen=True)
class Timed:
    """``forward`` lets so many seconds go by, ``now`` tells the ledger's time."""

    ledger: Ledger
    forward: Callable[[float], None]
    now: Callable[[], datetime]

    def made(self, name: str = "work", **fields: Any) -> str:
        """The id of a new task."""
        return self.ledger.create(RunRecord(WorkSpec("task", name, **fields))).run_id


def in_memory() -> Timed:
    """Two looks at its clock are a microsecond apart, as real ones are at least."""
    time = [datetime(2026, 1, 1, tzinfo=UTC)]

    def clock() -> datetime:
        time[0] += timedelta(microseconds=1)
        return time[0]

    def forward(seconds: float) -> None:
        time[0] += timedelta(seconds=seconds)

    return Timed(MemoryLedger(clock), forward, clock)


def in_postgres(pool: ConnectionPool[Any], schema_name: str | None = None) -> Timed:
    """All that the ledger holds gets older, instead of anybody waiting."""
    names = {"schema": sql.Identifier((schema_name or "public").replace("%", "%%"))}
    age = [sql.SQL(statement).format(**names) for statement in _AGE.split(";")[:-1]]

    def forward(seconds: float) -> None:
        with pool.connection() as connection:
            for statement in age:
                connection.execute(statement, {"by": timedelta(seconds=seconds)})

    return Timed(PostgresLedger(pool, schema_name), forward, lambda: datetime.now(UTC))


def kinds(timed: Timed, run_id: str) -> list[str]:
    """The types of a run's events, in order."""
    return [str(event.event_type) for event in timed.ledger.events(run_id)]


def status(timed: Timed, run_id: str) -> RunStatus:
    run = timed.ledger.get(run_id)
    assert run is not None
    return run.status


def refused(timed: Timed, run_id: str, act: Callable[[], object], why: str) -> None:
    """It raises, changes nothing, and leaves one event that says what was wanted."""
    before, told = timed.ledger.get(run_id), timed.ledger.events(run_id)
    assert before is not None
    with pytest.raises(TransitionError, match=why) as caught:
        act()
    assert (caught.value.run_id, caught.value.status) == (run_id, before.status)
    assert timed.ledger.get(run_id) == before
    *same, last = timed.ledger.events(run_id)
    assert same == told
    assert last.event_type == EventType.TRANSITION_REFUSED
    assert last.source == "ledger"
    assert last.data["status"] == str(before.status)
    assert last.data["wanted"] == caught.value.wanted
    assert str(last.data["why"]) in str(caught.value)


def brought_to(timed: Timed, wanted: RunStatus, **fields: Any) -> str:
    ledger, run_id = timed.ledger, timed.made(**fields)
    if wanted is RunStatus.QUEUED:
        ledger.mark_queued(run_id, "ref", "celery", claim_within_seconds=60)
    elif wanted is RunStatus.CANCELLED:
        ledger.cancel(run_id, "not wanted")
    elif wanted is not RunStatus.PENDING:
        claim = ledger.claim(run_id, "w", lease_seconds=60)
        if wanted is RunStatus.COMPLETED:
            ledger.complete(run_id, 1, fence=claim.fence)
        elif wanted in (RunStatus.FAILED, RunStatus.DEAD_LETTERED):
            ledger.fail(run_id, "no", "E", dead=wanted is RunStatus.DEAD_LETTERED, fence=claim.fence)
    assert status(timed, run_id) is wanted
    return run_id


@contextmanager
def pool_of(url: str, schema_name: str | None = None, **options: Any) -> Iterator[ConnectionPool[Any]]:
    """Connections to a database in which the runtime's tables are made."""
    schema.upgrade(url, target_schema=schema_name)
    with ConnectionPool(url, min_size=1, max_size=4, timeout=20, **options) as pool:
        yield pool


def emptied(pool: ConnectionPool[Any], schema_name: str | None = None) -> None:
    name = sql.Identifier(schema_name or "public")
    with pool.connection() as connection:
        connection.execute(sql.SQL("DELETE FROM {}.run_events").format(name))
        connection.execute(sql.SQL("DELETE FROM {}.runs").format(name))


def rows(connection: psycopg.Connection[Any], query: str, **values: object) -> list[tuple[Any, ...]]:
    with connection.cursor(row_factory=psycopg.rows.tuple_row) as cursor:
        return cursor.execute(query.encode(), values).fetchall()
