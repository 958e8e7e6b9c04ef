"""Runs that a migration moved: they have no handoff, and NULL and infinity where the tables allow them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from psycopg import sql
from psycopg_pool import ConnectionPool

from spine_migrate.execution import RunRecord, RunStatus, TransitionError, WorkSpec
from spine_migrate.execution.runs import UNKNOWN, record_of
from spine_migrate.mapping import to_run_record
from tests.integration.test_mapping_cli import ROW
from tests.ledgers import Timed, kinds

Pool = ConnectionPool[Any]

#: Every column that may be NULL is.
BARE = (
    "params", "priority", "lane", "attempt", "max_retries", "trigger_source", "metadata", "tags", "created_at"
)  # fmt: skip


def moved(pool: Pool, **columns: object) -> str:
    """A row as another hand than the runtime's inserted it."""
    row = {"run_id": str(uuid4()), "kind": "pipeline", "name": "ingest", **dict.fromkeys(BARE), **columns}
    query = sql.SQL("INSERT INTO runs ({}) VALUES ({})").format(
        sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(map(sql.Placeholder, row))
    )
    with pool.connection() as connection:
        connection.execute(query, row)
    return str(row["run_id"])


def test_what_is_null_has_the_columns_default(ledger_pool: Pool, postgres: Timed) -> None:
    run_id = moved(ledger_pool, status="completed")
    run = postgres.ledger.get(run_id)
    wanted = RunRecord(WorkSpec("pipeline", "ingest"), run_id, RunStatus.COMPLETED, created_at=UNKNOWN)
    assert run == wanted
    assert postgres.ledger.list_runs() == [wanted.summary()]
    assert postgres.ledger.events(run_id) == []
    assert run.to_dict()["created_at"] == "1970-01-01T00:00:00+00:00"


def test_the_first_moment_that_is_known_stands_for_its_creation(ledger_pool: Pool, postgres: Timed) -> None:
    at = datetime(2020, 1, 1, tzinfo=UTC)
    for columns in ({"started_at": at}, {"completed_at": at}):
        run = postgres.ledger.get(moved(ledger_pool, status="failed", **columns))
        assert run is not None
        assert run.created_at == at


def test_an_infinite_time_does_not_hide_a_page(ledger_pool: Pool, postgres: Timed) -> None:
    ended = moved(ledger_pool, status="failed", created_at="-infinity", completed_at="infinity")
    run = postgres.ledger.get(ended)
    assert run is not None
    assert (run.created_at, run.completed_at) == (
        datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    )  # fmt: skip
    assert [one.run_id for one in postgres.ledger.list_runs()] == [ended]


@pytest.mark.parametrize("status", ["pending", "queued"])
def test_one_that_waits_is_left_alone_by_the_relay_and_can_be_claimed(
    ledger_pool: Pool, postgres: Timed, status: str
) -> None:
    ledger, run_id = postgres.ledger, moved(ledger_pool, status=status)
    assert ledger.publishable(10, again_in_seconds=1) == ledger.unclaimed(10, again_in_seconds=1) == []
    assert ledger.mark_queued(run_id, "ref", "e", claim_within_seconds=60)
    claim = ledger.claim(run_id, "w", lease_seconds=-1)
    assert (claim.retries_left, claim.run.external_ref, claim.run.attempt) == (3, "ref", 1)
    assert [run.attempt for run in ledger.reap(10, backoff_seconds=-1)] == [2]
    assert ledger.claim(run_id, "w", lease_seconds=60).retries_left == 2


def test_one_that_ran_has_no_lease_and_can_be_marked(ledger_pool: Pool, postgres: Timed) -> None:
    ledger, run_id = postgres.ledger, moved(ledger_pool, status="running", max_retries=0, attempt=5)
    assert ledger.reap(10, backoff_seconds=0) == []
    with pytest.raises(TransitionError, match="the state machine has no such step"):
        ledger.claim(run_id, "w", lease_seconds=60)
    assert ledger.complete(run_id, 1).status is RunStatus.COMPLETED
    assert kinds(postgres, run_id) == ["transition_refused", "completed"]


def test_a_dead_letter_is_reprocessed(ledger_pool: Pool, postgres: Timed) -> None:
    ledger, run_id = postgres.ledger, moved(ledger_pool, status="dead_lettered")
    assert ledger.reprocess(run_id).attempt == 2
    assert [run.run_id for run in ledger.publishable(10, again_in_seconds=1)] == [run_id]
    assert ledger.claim(run_id, "w", lease_seconds=60).retries_left == 3


def test_a_legacy_row_as_a_record() -> None:
    """Seed 001, phase 1, in two steps: the columns that the mapping gives, and the record of them."""
    record = record_of(to_run_record(ROW))
    assert (record.run_id, record.spec.kind, record.spec.name) == (str(ROW["execution_id"]), "pipeline", "ingest")
    assert (record.spec.params, record.spec.metadata["entity_id"]) == (ROW["params"], str(ROW["feed_id"]))
    assert (record.status, record.created_at, record.attempt) == ("running", ROW["created_at"], 1)
