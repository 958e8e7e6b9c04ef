"""Rows that others write into the target while an offline load has its indexes away: ours give way, theirs stay."""

from __future__ import annotations

from dataclasses import replace
from typing import LiteralString

import pytest
from psycopg import sql

from spine_migrate.errors import Refused
from tests import legacy
from tests.conftest import StartServer
from tests.database import Database, Role, fresh_database

_FEED = "f0000000-0000-4000-8000-000000000001"


def _rivals(old: legacy.Legacy) -> list[tuple[object, ...]]:
    return old.rows("SELECT name FROM runs WHERE metadata->>'migrated_from' IS DISTINCT FROM %s ORDER BY name",
                    "capture-spine/executions")  # fmt: skip


def test_rows_of_others_keep_their_place_when_the_indexes_are_built(database: Database) -> None:
    old = legacy.build(database)
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
    old = legacy.build(database)
    old.executions(1, 2, 3, 4)
    assert old.move(offline=True, limit=2, batch_rows=2).state == "limit"
    old.execute("UPDATE executions SET error = 'changed' WHERE execution_id = %s", legacy.uuid(1))
    old.execute("INSERT INTO runs (run_id, kind, name) VALUES (%s, 'task', 'application')", legacy.uuid(4))
    outcome = old.move()
    assert (outcome.state, outcome.moved, outcome.quarantined) == ("done", 3, {"key_taken": 1})
    assert old.rows("SELECT name FROM runs WHERE run_id = %s", legacy.uuid(4)) == [("application",)]
    assert old.rows("SELECT error FROM runs WHERE run_id = %s", legacy.uuid(1)) == [("changed",)]


def test_an_online_move_waits_for_the_indexes(database: Database) -> None:
    old = legacy.build(database)
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
    old = legacy.build(database)
    old.executions(1)
    old.execute(set_something)
    with pytest.raises(Refused, match="would lose what is set on"):
        old.move(offline=True)
    assert old.move().state == "done"


def test_one_mapping_serves_one_source_for_one_target(database: Database) -> None:
    """The origin mark names the mapping; with two sources neither compare nor undo could tell their rows apart."""
    old = legacy.build(database)
    old.executions(1)
    assert old.move().state == "done"
    old.execute("CREATE SCHEMA other")
    old.execute("CREATE TABLE other.executions (LIKE executions INCLUDING ALL)")
    elsewhere = replace(old, source_schema="other")
    with pytest.raises(Refused, match="give this source a copy of the mapping"):
        elsewhere.move()


@pytest.mark.parametrize("table", ["executions", "runs"])
def test_a_writer_of_either_table_is_in_its_way(database: Database, table: str) -> None:
    """A reader of the source is not."""
    old = legacy.build(database)
    old.executions(1)
    with old.connect() as other:
        other.execute("BEGIN")
        other.execute(sql.SQL("DELETE FROM {} WHERE false").format(sql.Identifier(table)))
        with pytest.raises(Refused, match="1 other sessions hold locks on"):
            old.move(offline=True)
        other.execute("ROLLBACK")
        other.execute("BEGIN")
        other.execute("SELECT FROM executions")
        assert old.move(offline=True).state == "done"


def test_a_prepared_transaction_is_a_writer(start_server: StartServer) -> None:
    old = legacy.build(start_server(settings={"max_prepared_transactions": "1"}).url())
    old.executions(1)
    with old.connect() as other:
        other.execute("BEGIN")
        other.execute("UPDATE executions SET error = 'prepared'")
        other.execute("PREPARE TRANSACTION 'half way'")
    with pytest.raises(Refused, match="1 other sessions hold locks on"):
        old.move(offline=True)
    old.execute("ROLLBACK PREPARED 'half way'")
    assert old.move(offline=True).state == "done"


def test_a_writer_in_a_copy_of_the_database_is_none(database: Database, server_url: str, owner: Role) -> None:
    """Its tables have the same numbers."""
    old = legacy.build(database)
    old.executions(1)
    numbers: LiteralString = "SELECT 'executions'::regclass::oid, 'runs'::regclass::oid"
    with fresh_database(server_url, f"{database.name}_copy", owner) as copied:
        copy = legacy.build(copied)
        assert copy.rows(numbers) == old.rows(numbers)
        with copy.connect() as other:
            other.execute("BEGIN")
            other.execute("LOCK TABLE executions, runs IN ROW EXCLUSIVE MODE")
            assert old.move(offline=True).state == "done"
