"""A run that the runtime or an application has come to work with is left; no foreign key's action takes their rows."""

from __future__ import annotations

import threading
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg_pool import ConnectionPool

from spine_migrate.backfill import undo, undo_plan
from spine_migrate.db import schema
from spine_migrate.execution.errors import TransitionError
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from tests.database import Database
from tests.legacy import Legacy, build, uuid
from tests.undoing import back, left, runs
from tests.waiting import WAITING, until

HANDED: LiteralString = "SELECT run_id::text FROM run_handoff ORDER BY 1"
ADOPT: LiteralString = (
    "INSERT INTO run_handoff (run_id, lane, due_at, retry_delay_seconds, retries_left, waiting)"
    " SELECT run_id, lane, now(), 60, 0, false FROM runs WHERE run_id = %s"
)


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def test_an_adopted_run_stays_with_its_handoff_and_with_what_it_points_to(legacy: Legacy) -> None:
    legacy.executions(1, parent_execution_id=uuid(2))
    legacy.executions(2, 3)
    legacy.move()
    legacy.execute(ADOPT, uuid(1))
    before = legacy.rows("SELECT r::text FROM runs r WHERE run_id <= %s ORDER BY 1", uuid(2))

    (planned,) = undo_plan.plan(legacy.url)
    (done,) = back(legacy)

    assert (done.state, done.rows, done.left) == ("left", 1, {"referenced": 2}) == ("left", planned.rows, planned.left)
    assert {one.target_key: one.detail for one in done.examples} == {
        uuid(1): '"public"."run_handoff".run_id',
        uuid(2): f'"public"."runs".parent_run_id of {uuid(1)}, which stays',
    }
    assert legacy.rows("SELECT r::text FROM runs r ORDER BY 1") == before
    assert legacy.rows(HANDED) == [(uuid(1),)]

    (let_be,) = back(legacy, leave=True)
    assert (let_be.state, runs(legacy), legacy.rows(HANDED)) == ("undone", [uuid(1), uuid(2)], [(uuid(1),)])


def test_what_the_runtime_has_done_with_a_run_is_the_reason(legacy: Legacy) -> None:
    """It has claimed one, and refused to bring another one back, which it put on record."""
    legacy.executions(1, status="pending")
    legacy.executions(2, 3, status="failed")
    legacy.move()
    with ConnectionPool(legacy.url, min_size=1) as pool:
        ledger = PostgresLedger(pool)
        ledger.claim(uuid(1), "worker", lease_seconds=60)
        with pytest.raises(TransitionError):
            ledger.reprocess(uuid(2))

    assert left(legacy) == {uuid(1): "changed", uuid(2): "has_foreign_events"}
    assert legacy.rows(HANDED) == [(uuid(1),), (uuid(2),)]


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "SET DEFAULT", "NO ACTION"])
def test_a_row_that_comes_after_the_judgement_keeps_its_run(
    legacy: Legacy, monkeypatch: pytest.MonkeyPatch, action: LiteralString
) -> None:
    """Whatever its foreign key would do to it."""
    monkeypatch.setattr(undo, "BLOCKS", 1)
    legacy.many_executions(300)
    legacy.move()
    foreign_key = sql.SQL("CREATE TABLE bills (run_id uuid REFERENCES runs ON DELETE {})").format(sql.SQL(action))
    legacy.execute(foreign_key)
    come: list[bool] = []

    def report(_: object) -> None:
        if not come:
            come.append(True)
            legacy.execute("INSERT INTO bills VALUES (%s)", uuid(300))
            legacy.execute(ADOPT, uuid(299))

    (result,) = back(legacy, report=report)

    assert (result.rows, result.left, runs(legacy)) == (298, {"referenced": 2}, [uuid(299), uuid(300)])
    assert legacy.rows("SELECT run_id::text FROM bills") == [(uuid(300),)]
    assert legacy.rows(HANDED) == [(uuid(299),)]


def test_an_adoption_under_way_is_waited_for(legacy: Legacy) -> None:
    """It commits while the batch waits for the row: after the batch's snapshot, before its deletion."""
    legacy.executions(1, 2)
    legacy.move()
    waits: LiteralString = WAITING + " AND a.query LIKE 'DELETE FROM%'"
    with psycopg.connect(legacy.url) as other:
        other.execute(ADOPT, (uuid(1),))

        def commit_when_it_waits() -> None:
            until(lambda: legacy.rows(waits), "the batch does not wait")
            other.commit()

        watcher = threading.Thread(target=commit_when_it_waits)
        watcher.start()
        (result,) = back(legacy)
        watcher.join()

    assert (result.rows, result.left, runs(legacy)) == (1, {"referenced": 1}, [uuid(1)])
    assert legacy.rows(HANDED) == [(uuid(1),)]


def test_a_database_without_the_runtime_moves_and_undoes_as_before(legacy: Legacy) -> None:
    schema.downgrade(legacy.url, revision="spine_0003")
    legacy.executions(1, 2)
    assert legacy.move().state == "done"
    (result,) = back(legacy)
    assert (result.state, result.rows, runs(legacy)) == ("undone", 2, [])
    assert legacy.move(offline=True).state == "done"
