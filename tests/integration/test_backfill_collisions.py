"""Collisions with what is on the target already, and refusals by the target. Nothing there is ever overwritten."""

from __future__ import annotations

from typing import LiteralString

import pytest

from spine_migrate.errors import Refused
from tests.database import Database
from tests.legacy import Legacy, build, differences, uuid

CREW = pytest.mark.parametrize(("workers", "batch_rows"), [(1, None), (1, 1), (1, 7), (2, 7)])
FEED = "f0000000-0000-4000-8000-00000000000f"


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def held(legacy: Legacy) -> dict[str, str]:
    return {key: reason for key, reason, *_ in legacy.quarantine()}


def forget_the_ledger(legacy: Legacy) -> None:
    """As if the tool's own schema had been lost: rows are there, nobody knows who moved them."""
    legacy.execute("DELETE FROM spine_migrate.migration")


@CREW
def test_a_key_taken_by_a_row_that_is_not_ours(legacy: Legacy, workers: int, batch_rows: int | None) -> None:
    legacy.many_executions(60)
    legacy.execute(
        "INSERT INTO runs (run_id, kind, name, status) VALUES (%s, 'task', 'of the application', 'failed')", uuid(30)
    )
    before = legacy.rows("SELECT runs.*::text FROM runs")

    outcome = legacy.move(workers=workers, batch_rows=batch_rows)

    assert (outcome.moved, outcome.quarantined) == (59, {"key_taken": 1})
    assert legacy.rows("SELECT runs.*::text FROM runs WHERE run_id = %s", uuid(30)) == before
    (kept,) = legacy.rows(
        "SELECT source_key, colliding_row ->> 'name', source_row ->> 'pipeline_name' FROM spine_migrate.quarantine"
    )
    assert kept == (uuid(30), "of the application", "ingest")
    legacy.prove()


@CREW
def test_rows_that_are_ours_and_equal_are_adopted(legacy: Legacy, workers: int, batch_rows: int | None) -> None:
    legacy.many_executions(30)
    legacy.executions(31, parent_execution_id=uuid(1), error_type="x" * 200, retry_count=None)
    legacy.executions(32, parent_execution_id=uuid(999))
    legacy.move()
    forget_the_ledger(legacy)
    legacy.many_executions(30, first=100)

    outcome = legacy.move(workers=workers, batch_rows=batch_rows)

    assert (outcome.moved, outcome.adopted, outcome.quarantined) == (30, 32, {})
    legacy.prove()


@CREW
def test_rows_that_are_ours_but_changed_are_left_alone(legacy: Legacy, workers: int, batch_rows: int | None) -> None:
    legacy.many_executions(20)
    legacy.move()
    forget_the_ledger(legacy)
    legacy.execute("UPDATE runs SET status = 'failed', error = 'changed since' WHERE run_id = %s", uuid(7))

    outcome = legacy.move(workers=workers, batch_rows=batch_rows)

    assert (outcome.moved, outcome.adopted, outcome.quarantined) == (0, 19, {"key_taken": 1})
    assert legacy.rows("SELECT status, error FROM runs WHERE run_id = %s", uuid(7)) == [("failed", "changed since")]


@CREW
def test_an_idempotency_key_that_the_target_has(legacy: Legacy, workers: int, batch_rows: int | None) -> None:
    legacy.execute("INSERT INTO runs (run_id, kind, name, idempotency_key) VALUES (%s, 'task', 'mine', 'k')", uuid(900))
    legacy.many_executions(20)
    legacy.executions(21, idempotency_key="k")
    legacy.many_executions(20, first=22)

    outcome = legacy.move(workers=workers, batch_rows=batch_rows)

    assert outcome.moved == 40
    assert legacy.quarantine() == [(uuid(21), "unique_conflict", None, "23505", "uq_idempotency")]
    assert legacy.value("SELECT colliding_row ->> 'run_id' FROM spine_migrate.quarantine") == uuid(900)
    legacy.prove()


@CREW
def test_contenders_in_one_batch_and_across_batches(legacy: Legacy, workers: int, batch_rows: int | None) -> None:
    for number in range(1, 41):
        legacy.executions(number, idempotency_key=f"key {number % 10}")
        legacy.executions(100 + number, status="queued", feed_id=FEED if number % 2 else None)

    outcome = legacy.move(workers=workers, batch_rows=batch_rows)

    assert outcome.quarantined == {"unique_conflict": 30 + 19}
    assert legacy.value("SELECT count(DISTINCT idempotency_key) FROM runs") == 10
    assert legacy.value("SELECT count(*) FROM runs WHERE metadata ->> 'entity_id' = %s", FEED) == 1
    legacy.prove()


def test_a_row_that_loses_to_the_target_leaves_its_place_to_the_next(legacy: Legacy) -> None:
    """1 and 2 want one feed, and 1 has a key that the target has: 1 cannot move, so 2 must."""
    legacy.execute("INSERT INTO runs (run_id, kind, name, idempotency_key) VALUES (%s, 'task', 'mine', 'k')", uuid(900))
    legacy.execute("DROP INDEX ix_executions_one_active_per_feed")
    legacy.executions(1, idempotency_key="k", feed_id=FEED, status="queued")
    legacy.executions(2, feed_id=FEED, status="queued")

    outcome = legacy.move()

    assert held(legacy) == {uuid(1): "unique_conflict"}
    assert outcome.moved == 1
    legacy.prove()


@CREW
def test_a_unique_index_of_the_users_own(legacy: Legacy, workers: int, batch_rows: int | None) -> None:
    legacy.execute("CREATE UNIQUE INDEX \"one % per 'ref'\" ON runs (lower(external_ref)) WHERE status = 'completed'")
    for number in range(1, 21):
        legacy.executions(number, backend_task_id=("Task %s" if number % 2 else "TASK %s") % (number // 4))

    outcome = legacy.move(workers=workers, batch_rows=batch_rows)

    assert outcome.moved == 6
    assert {constraint for *_, constraint in legacy.quarantine()} == {"one % per 'ref'"}
    legacy.prove()


@CREW
def test_a_deferred_unique_constraint_fails_at_commit_and_is_found(
    legacy: Legacy, workers: int, batch_rows: int | None
) -> None:
    legacy.execute("ALTER TABLE runs ADD CONSTRAINT uq_ref UNIQUE (external_ref) DEFERRABLE INITIALLY DEFERRED")
    for number in range(1, 21):
        legacy.executions(number, backend_task_id=f"task {number % 5}")

    outcome = legacy.move(workers=workers, batch_rows=batch_rows)

    assert (outcome.moved, outcome.quarantined) == (5, {"unique_conflict": 15})
    legacy.prove()


@CREW
def test_a_check_on_the_target_is_found_by_halving_and_the_neighbours_move(
    legacy: Legacy, workers: int, batch_rows: int | None
) -> None:
    legacy.execute("ALTER TABLE runs ADD CONSTRAINT no_plague CHECK (name <> 'plague')")
    legacy.many_executions(100)
    legacy.executions(101, 102, pipeline_name="plague")
    legacy.many_executions(100, first=200)

    outcome = legacy.move(workers=workers, batch_rows=batch_rows)

    assert outcome.moved == 200
    assert [row[1:] for row in legacy.quarantine()] == [("server_refused", None, "23514", "no_plague")] * 2
    assert held(legacy).keys() == {uuid(101), uuid(102)}
    legacy.prove()


@CREW
def test_an_exclusion_constraint(legacy: Legacy, workers: int, batch_rows: int | None) -> None:
    legacy.execute("ALTER TABLE runs ADD CONSTRAINT alone EXCLUDE (external_ref WITH =)")
    legacy.executions(*range(1, 13), backend_task_id="the same")
    legacy.many_executions(10, first=50)

    outcome = legacy.move(workers=workers, batch_rows=batch_rows)

    assert (outcome.moved, outcome.quarantined) == (11, {"server_refused": 11})
    assert {state for _, _, _, state, _ in legacy.quarantine()} == {"23P01"}
    legacy.prove()


def trigger(legacy: Legacy, body: LiteralString) -> None:
    legacy.execute(
        "CREATE FUNCTION on_run() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN " + body + " RETURN NEW; END $$"
    )
    legacy.execute("CREATE TRIGGER on_run BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION on_run()")


@pytest.mark.parametrize("sqlstate", ["23514", "22000", "22P02", "P0001"])
def test_a_trigger_that_refuses_one_row(legacy: Legacy, sqlstate: LiteralString) -> None:
    trigger(legacy, f"IF NEW.name = 'bad' THEN RAISE 'not here' USING ERRCODE = '{sqlstate}'; END IF;")
    legacy.many_executions(50)
    legacy.executions(60, pipeline_name="bad")
    legacy.many_executions(50, first=100)

    outcome = legacy.move(batch_rows=16)

    assert outcome.moved == 100
    assert legacy.quarantine() == [(uuid(60), "server_refused", None, sqlstate, None)]
    legacy.prove()


@pytest.mark.parametrize("batch_rows", [None, 10])
def test_a_trigger_that_takes_a_row_away_stops_the_run(legacy: Legacy, batch_rows: int | None) -> None:
    trigger(legacy, "IF NEW.name = 'bad' THEN RETURN NULL; END IF;")
    legacy.many_executions(25)
    legacy.executions(60, pipeline_name="bad")

    with pytest.raises(Refused, match="trigger or rule") as refused:
        legacy.move(batch_rows=batch_rows)

    assert refused.value.precondition == "rows-swallowed"
    moved = legacy.value("SELECT sum(rows_moved) FROM spine_migrate.checkpoint")
    assert moved == legacy.value("SELECT count(*) FROM runs") == (20 if batch_rows else 0)
    legacy.execute("DROP TRIGGER on_run ON runs")
    assert legacy.move().state == "done"
    legacy.prove()


def test_a_trigger_that_alters_rows_is_no_business_of_the_move_but_is_seen(legacy: Legacy) -> None:
    """The engine carries what the mapping says; that the target changes it on the way is for compare to tell."""
    trigger(legacy, "NEW.name := upper(NEW.name);")
    legacy.executions(1)

    assert legacy.move().moved == 1
    with legacy.connect() as connection:
        assert [key for key, *_ in differences(connection, "executions")] == [uuid(1)]


def test_columns_of_the_target_that_no_rule_produces_have_their_default(legacy: Legacy) -> None:
    legacy.execute(
        "ALTER TABLE runs ADD COLUMN tenant text NOT NULL DEFAULT 'main', ADD COLUMN ticket bigserial,"
        " ADD COLUMN brief text GENERATED ALWAYS AS (left(name, 2)) STORED"
    )
    legacy.many_executions(5)

    legacy.move(batch_rows=2)

    assert legacy.rows("SELECT DISTINCT tenant, brief FROM runs") == [("main", "in")]
    assert legacy.rows("SELECT count(DISTINCT ticket) FROM runs") == [(5,)]
