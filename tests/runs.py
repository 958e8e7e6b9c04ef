"""Runs in PostgreSQL for tests of what is done about them: made through the ledger, or as rows of any kind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from click.testing import CliRunner, Result
from psycopg import sql
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

from spine_migrate.cli import main
from spine_migrate.execution import SyncDispatcher
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.runs import RunRecord, RunStatus
from tests.database import Database

NOW = datetime.now(UTC)


class Accepting:
    """An executor that takes every run and does nothing."""

    name = "accepting"

    def submit(self, run: RunRecord) -> str:
        return run.run_id

    def cancel(self, external_ref: str) -> bool:  # noqa: ARG002 - the protocol's
        return True

    def get_status(self, external_ref: str) -> RunStatus | None:  # noqa: ARG002 - the protocol's
        return None


@contextmanager
def dispatching(url: str, schema: str | None = None) -> Iterator[SyncDispatcher]:
    with ConnectionPool(url, min_size=1) as pool:
        yield SyncDispatcher(Accepting(), PostgresLedger(pool, schema))


def cli(database: Database, *words: str, given: str | None = None) -> Result:
    return CliRunner().invoke(main, [*words, "--target", database.url], input=given)


def told(result: Result) -> Any:
    """The JSON on stdout of a command that went well."""
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def key(number: int) -> UUID:
    return UUID(int=number)


def add_run(database: Database, number: int, *, days: float = 100, handed: bool = True, **columns: Any) -> None:
    """A run that was created and ended ``days`` ago, with two events, and a handoff where the runtime made it."""
    at = NOW - timedelta(days=days)
    values = {
        "run_id": key(number),
        "kind": "task",
        "name": f"run {number}",
        "status": "completed",
        "created_at": at,
        "completed_at": at,
        **{name: Jsonb(value) if isinstance(value, dict) else value for name, value in columns.items()},
    }
    with database.connect() as connection:
        connection.execute(
            sql.SQL("INSERT INTO runs ({}) VALUES ({})").format(
                sql.SQL(", ").join(map(sql.Identifier, values)), sql.SQL(", ").join(map(sql.Placeholder, values))
            ),
            values,
        )
        connection.execute(
            "INSERT INTO run_events (run_id, event_type) SELECT %s, unnest(ARRAY['created', 'completed'])",
            (key(number),),
        )
        if handed:
            connection.execute(
                "INSERT INTO run_handoff (run_id, lane, waiting, due_at, retry_delay_seconds, retries_left)"
                " VALUES (%s, 'default', false, now(), 60, 0)",
                (key(number),),
            )


def numbers(database: Database) -> set[int]:
    """The runs that are there; what belongs to others is not."""
    with database.connect() as connection:
        left = {row[0] for row in connection.execute("SELECT run_id FROM runs")}
        for table in ("run_events", "run_handoff"):
            query = sql.SQL("SELECT DISTINCT run_id FROM {}").format(sql.Identifier(table))
            assert {row[0] for row in connection.execute(query)} <= left
    return {one.int for one in left}
