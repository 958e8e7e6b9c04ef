"""Undo removes exactly what was moved, leaves what something else has touched, and says why."""

from __future__ import annotations

import threading
from typing import LiteralString

import pytest
from psycopg import sql

from spine_migrate.backfill import undo, undo_plan
from spine_migrate.backfill.pace import Progress
from spine_migrate.db import schema
from spine_migrate.demo.generate import generate
from spine_migrate.errors import Refused
from tests.database import Database
from tests.legacy import Legacy, build, prove, uuid
from tests.undoing import back, left, runs

EVENT = "INSERT INTO execution_events (event_id, execution_id, event_type) VALUES (%s, %s, 'created')"
ENTITIES = ("executions", "execution_events", "jobs")
TARGET: LiteralString = (
    "SELECT (SELECT md5(string_agg(r::text, '' ORDER BY run_id)) FROM runs r),"
    " (SELECT md5(string_agg(e::text, '' ORDER BY event_id)) FROM run_events e),"
    " (SELECT count(*) FROM runs), (SELECT count(*) FROM run_events)"
)


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


@pytest.fixture
def history(database: Database) -> Legacy:
    """The demonstration, moved."""
    with database.connect() as connection:
        generate(connection, executions=1200, jobs=300, seed=5)
    database.arrange(schema.upgrade)
    moved = Legacy(database.url)
    for entity in ENTITIES:
        moved.move(entity)
    return moved


def test_all_is_undone_and_moves_again_identically(history: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links of every kind, cycles and broken ones included, in many batches."""
    monkeypatch.setattr(undo, "BLOCKS", 3)
    before = history.rows(TARGET)
    held: LiteralString = "SELECT source_key, reason FROM spine_migrate.quarantine ORDER BY migration_id, source_key"
    quarantined = history.rows(held)

    results = back(history)

    assert [(one.mapping, one.state, one.left) for one in results] == [
        ("capture-spine/execution_events", "undone", {}),
        ("capture-spine/jobs", "undone", {}),
        ("capture-spine/executions", "undone", {}),
    ]
    assert sum(one.rows for one in results) == sum(before[0][2:])
    assert history.rows(TARGET) == [(None, None, 0, 0)]
    for table in ("quarantine", "link", "checkpoint", "deferred_ddl"):
        assert history.rows(sql.SQL("SELECT * FROM {}").format(sql.Identifier("spine_migrate", table))) == []
    assert history.rows("SELECT DISTINCT step FROM spine_migrate.migration") == [("undone",)]
    assert history.value("SELECT count(*) FROM spine_migrate.audit WHERE action = 'undone'") == 3

    for entity in ENTITIES:
        assert history.move(entity).state == "done"
    assert history.rows(TARGET) == before
    assert history.rows(held) == quarantined
    with history.connect() as connection:
        prove(connection, *ENTITIES)


def test_a_plan_says_what_the_undo_does_and_changes_nothing(history: Legacy) -> None:
    """Runs whose events will be gone by then are among those that go."""
    history.execute(
        "UPDATE runs SET lane = 'touched'"
        " WHERE run_id IN (SELECT DISTINCT run_id FROM run_events ORDER BY run_id LIMIT 3)"
    )
    history.execute(
        "UPDATE run_events SET data = '7' WHERE event_id IN (SELECT event_id FROM run_events JOIN runs USING (run_id)"
        " WHERE lane <> 'touched' ORDER BY event_id LIMIT 2)"
    )
    before = history.rows(TARGET)

    planned = undo_plan.plan(history.url)

    assert history.rows(TARGET) == before
    assert history.rows("SELECT DISTINCT step FROM spine_migrate.migration") == [("done",)]
    done = back(history)
    assert [(one.mapping, one.rows, one.left) for one in planned] == [(one.mapping, one.rows, one.left) for one in done]
    assert done[0].left == {"changed": 2}
    assert done[2].left["changed"] == 3
    assert done[2].left["has_foreign_events"] >= 1


def test_rows_of_others_stay_as_they_are(legacy: Legacy) -> None:
    legacy.executions(1, 2)
    legacy.execute("INSERT INTO runs (run_id, kind, name) VALUES (%s, 'task', 'theirs')", uuid(50))
    legacy.execute("INSERT INTO runs (run_id, kind, name, metadata) VALUES (%s, 'task', 'odd', NULL)", uuid(51))
    legacy.move()

    (result,) = back(legacy)

    assert (result.state, result.rows, runs(legacy)) == ("undone", 2, [uuid(50), uuid(51)])


def test_what_was_touched_is_left_with_the_reason(legacy: Legacy) -> None:
    legacy.executions(*range(1, 9))
    legacy.move()
    legacy.execute("UPDATE runs SET status = 'failed', error = 'x' WHERE run_id = %s", uuid(1))
    legacy.execute("UPDATE runs SET metadata = metadata || '{\"seen\": true}' WHERE run_id = %s", uuid(2))
    legacy.execute("UPDATE runs SET correlation_id = 'c' WHERE run_id = %s", uuid(3))
    legacy.execute("UPDATE executions SET pipeline_name = 'renamed' WHERE execution_id = %s", uuid(4))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(5))
    legacy.execute("UPDATE executions SET retry_count = 2147483647 WHERE execution_id = %s", uuid(6))
    legacy.execute("INSERT INTO run_events (run_id, event_type) VALUES (%s, 'created')", uuid(7))

    (result,) = back(legacy)

    assert result.rows == 1
    assert result.state == "left"
    assert {one.target_key: (one.reason, one.detail) for one in result.examples} == {
        uuid(1): ("changed", "status, error"),
        uuid(2): ("changed", "metadata"),
        uuid(3): ("changed", "a column that no rule writes"),
        uuid(4): ("changed", "name"),
        uuid(5): ("source_gone", None),
        uuid(6): ("changed", "attempt, metadata"),
        uuid(7): ("has_foreign_events", '"public"."run_events".run_id'),
    }
    assert runs(legacy) == [uuid(number) for number in range(1, 8)]
    assert legacy.value("SELECT sum(rows_moved + rows_adopted) FROM spine_migrate.checkpoint") == 7


def test_rows_that_are_left_keep_the_migration_open_until_they_go_or_are_let_be(legacy: Legacy) -> None:
    legacy.executions(1, 2)
    legacy.move()
    legacy.execute("UPDATE runs SET lane = 'touched'")
    step: LiteralString = "SELECT step FROM spine_migrate.migration ORDER BY migration_id"

    assert left(legacy) == {uuid(1): "changed", uuid(2): "changed"}
    assert legacy.rows(step) == [("undoing",)]
    with pytest.raises(Refused) as refused:
        legacy.move()
    assert refused.value.precondition == "undo-unfinished"

    legacy.execute("UPDATE runs SET lane = 'normal' WHERE run_id = %s", uuid(1))
    assert left(legacy) == {uuid(2): "changed"}
    (result,) = back(legacy, leave=True)
    assert (result.state, result.left) == ("undone", {"changed": 1})
    assert legacy.rows(step) == [("undone",)]

    outcome = legacy.move()
    assert (outcome.moved, outcome.quarantined) == (1, {"key_taken": 1})


def test_what_a_row_that_stays_points_to_stays_too(legacy: Legacy) -> None:
    """1 -> 2 -> 3 -> 4: 1 was touched. 5 is pointed to by a run that is not ours; 6 and 7 name each other."""
    for number in range(1, 4):
        legacy.executions(number, parent_execution_id=uuid(number + 1))
    legacy.executions(4)
    legacy.executions(5, retry_of_execution_id=uuid(4))
    legacy.executions(6, parent_execution_id=uuid(7))
    legacy.executions(7, retry_of_execution_id=uuid(6))
    legacy.executions(8, parent_execution_id=uuid(4))
    legacy.move()
    legacy.execute("UPDATE runs SET lane = 'touched' WHERE run_id = %s", uuid(1))
    legacy.execute(
        "INSERT INTO runs (run_id, kind, name, parent_run_id) VALUES (%s, 'task', 'theirs', %s)", uuid(50), uuid(5)
    )
    before = legacy.rows("SELECT r::text FROM runs r WHERE run_id <= %s ORDER BY run_id", uuid(5))

    (result,) = back(legacy)

    assert {one.target_key: one.reason for one in result.examples} == {
        uuid(1): "changed",
        **{uuid(number): "referenced" for number in range(2, 6)},
    }
    assert legacy.rows("SELECT r::text FROM runs r WHERE run_id <= %s ORDER BY run_id", uuid(5)) == before
    assert runs(legacy) == [*(uuid(number) for number in range(1, 6)), uuid(50)]


def test_rows_of_an_application_that_point_to_a_run_are_never_deleted(legacy: Legacy) -> None:
    """ON DELETE CASCADE would take them along."""
    legacy.executions(1, 2)
    legacy.move()
    legacy.execute("CREATE TABLE bills (run_id uuid REFERENCES runs ON DELETE CASCADE)")
    legacy.execute("INSERT INTO bills VALUES (%s), (NULL)", uuid(1))

    assert left(legacy) == {uuid(1): "referenced"}
    assert legacy.value("SELECT count(*) FROM bills") == 2


def test_a_link_that_still_waits_is_no_change(legacy: Legacy) -> None:
    legacy.executions(1, parent_execution_id=uuid(90))
    legacy.executions(2, parent_execution_id=uuid(3))
    legacy.executions(3, status="zombie")
    legacy.executions(4, parent_execution_id=uuid(91))
    legacy.move()
    legacy.execute("DELETE FROM spine_migrate.link WHERE target_key = %s", uuid(4))

    assert left(legacy) == {uuid(4): "changed"}


def test_it_goes_on_where_it_was_stopped(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links that were cut between batches do not count as touched; the ledger counts what is there at every stop."""
    monkeypatch.setattr(undo, "BLOCKS", 1)
    legacy.many_executions(400)
    legacy.execute("""
        UPDATE executions e SET parent_execution_id = o.execution_id, retry_of_execution_id = o.execution_id
          FROM (SELECT execution_id, row_number() OVER (ORDER BY execution_id) AS n FROM executions) AS o
         WHERE o.n = 401 - right(e.execution_id::text, 3)::int
    """)
    legacy.move()
    stops = 0
    while True:
        stop = threading.Event()

        def report(progress: Progress, stop: threading.Event = stop) -> None:
            if progress.rows:
                stop.set()

        (result,) = back(legacy, stop=stop, report=report)
        assert legacy.value("SELECT coalesce(sum(rows_moved), 0) FROM spine_migrate.checkpoint") == len(runs(legacy))
        if result.state == "undone":
            break
        assert (result.state, result.left) == ("interrupted", {})
        stops += 1
    assert stops > 3
    assert runs(legacy) == []


def test_events_go_before_the_runs_they_belong_to(legacy: Legacy) -> None:
    legacy.executions(1, 2)
    legacy.execute(EVENT, uuid(101), uuid(1))
    legacy.execute(EVENT, uuid(102), uuid(2))
    legacy.move()
    legacy.move("execution_events")

    with pytest.raises(Refused) as refused:
        back(legacy, "executions")
    assert refused.value.precondition == "children-first"
    assert legacy.rows("SELECT DISTINCT step FROM spine_migrate.migration") == [("done",)]

    legacy.execute("UPDATE run_events SET data = '{\"seen\": 1}' WHERE event_id = %s", uuid(101))
    assert left(legacy, "execution_events") == {uuid(101): "changed"}
    assert left(legacy, "executions") == {uuid(1): "has_foreign_events"}


def test_an_unfinished_migration_is_undone_too(legacy: Legacy) -> None:
    legacy.many_executions(100)
    legacy.executions(900, status="zombie")
    assert legacy.move(limit=40, batch_rows=10).state == "limit"

    (result,) = back(legacy)

    assert (result.state, result.rows, runs(legacy)) == ("undone", 40, [])
    assert legacy.move().moved == 100
