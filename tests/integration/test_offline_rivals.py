"""Rows that others write into the target while an offline load has its indexes away: ours give way, theirs stay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from spine_migrate.errors import Refused
from tests import legacy
from tests.database import Database

_FEED = "f0000000-0000-4000-8000-000000000001"


def _rivals(old: legacy.Legacy) -> list[tuple[object, ...]]:
    return old.rows("SELECT name FROM runs WHERE metadata->>'migrated_from' IS DISTINCT FROM %s ORDER BY name",
                    "capture-spine/executions")  # fmt: skip


def test_rows_of_others_keep_their_place_when_the_indexes_are_built(database: Database) -> None:
    old = legacy.build(database.url)
    old.executions(1, idempotency_key="once")
    old.executions(2, status="running", feed_id=_FEED)
    old.executions(3)
    assert old.move(offline=True, limit=2, batch_rows=2).state == "limit"
    old.execute("INSERT INTO runs (kind, name, idempotency_key) VALUES ('task', 'application', 'once')")
    old.execute(
        "INSERT INTO runs (kind, name, status, metadata) VALUES ('task', 'job', 'running',"
        " jsonb_build_object('entity_type', 'feed', 'entity_id', %s::text))",
        _FEED,
    )
    outcome = old.move()
    assert (outcome.state, outcome.moved, outcome.quarantined) == ("done", 1, {"unique_conflict": 2})
    assert _rivals(old) == [("application",), ("job",)]
    taken = [(legacy.uuid(1), "uq_idempotency"), (legacy.uuid(2), "ix_runs_one_active_per_entity")]
    assert [(row[0], row[4]) for row in old.quarantine()] == taken


def test_a_key_that_stands_twice_is_moved_again_with_care(database: Database) -> None:
    """A row changed after its move is scanned twice, and somebody else takes a key, while no index watches."""
    old = legacy.build(database.url)
    old.executions(1, 2, 3, 4)
    assert old.move(offline=True, limit=2, batch_rows=2).state == "limit"
    old.execute("UPDATE executions SET error = 'changed' WHERE execution_id = %s", legacy.uuid(1))
    old.execute("INSERT INTO runs (run_id, kind, name) VALUES (%s, 'task', 'application')", legacy.uuid(4))
    outcome = old.move()
    assert (outcome.state, outcome.moved, outcome.quarantined) == ("done", 3, {"key_taken": 1})
    assert old.rows("SELECT name FROM runs WHERE run_id = %s", legacy.uuid(4)) == [("application",)]
    assert old.rows("SELECT error FROM runs WHERE run_id = %s", legacy.uuid(1)) == [("changed",)]


def test_an_online_move_waits_for_the_indexes(database: Database) -> None:
    old = legacy.build(database.url)
    old.executions(1, 2, 3)
    assert old.move(offline=True, limit=2, batch_rows=2).state == "limit"
    old.add("jobs", {"job_type": "job", "status": "done"})
    with pytest.raises(Refused, match="are away for the offline load of capture-spine/executions"):
        old.move("jobs")
    assert old.move().state == "done"
    assert old.move("jobs").state == "done"


@pytest.mark.parametrize(
    "set_something",
    [
        "COMMENT ON INDEX ix_runs_one_active_per_entity IS 'mind this'",
        "COMMENT ON CONSTRAINT uq_idempotency ON runs IS 'mind this'",
        "ALTER TABLE runs CLUSTER ON runs_pkey",
        "ALTER INDEX ix_runs_one_active_per_entity ALTER COLUMN 1 SET STATISTICS 500",
    ],
)
def test_what_a_rebuilt_index_would_lose_is_refused(database: Database, set_something: str) -> None:
    old = legacy.build(database.url)
    old.executions(1)
    old.execute(set_something)
    with pytest.raises(Refused, match="would lose what is set on"):
        old.move(offline=True)
    assert old.move().state == "done"


def test_one_mapping_serves_one_source_for_one_target(database: Database) -> None:
    """The origin mark names the mapping; with two sources neither compare nor undo could tell their rows apart."""
    old = legacy.build(database.url)
    old.executions(1)
    assert old.move().state == "done"
    old.execute("CREATE SCHEMA other")
    old.execute("CREATE TABLE other.executions (LIKE executions INCLUDING ALL)")
    elsewhere = replace(old, source_schema="other")
    with pytest.raises(Refused, match="give this source a copy of the mapping"):
        elsewhere.move()
