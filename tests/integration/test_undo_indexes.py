"""The indexes that an undo builds for the time it takes, where it was killed and nobody goes on with it."""

from __future__ import annotations

import threading
from typing import LiteralString

import pytest
from psycopg import sql

from spine_migrate.backfill import status, undo
from spine_migrate.backfill.pace import Progress
from spine_migrate.carry import references
from spine_migrate.db import connect
from spine_migrate.mapping.load import load
from spine_migrate.report.status import as_text
from tests.database import Database
from tests.legacy import Legacy, build

INDEXES: LiteralString = "SELECT indexname::text FROM pg_indexes WHERE indexname LIKE 'spine_undo%' ORDER BY 1"
BOTH = [("spine_undo_parent_run_id",), ("spine_undo_retry_of_run_id",)]
NAMED = (
    'left by an undo on "public"."runs": spine_undo_parent_run_id, spine_undo_retry_of_run_id; the next run drops it'
)
LOCK: LiteralString = "SELECT pg_advisory_lock(hashtextextended(%s, 7741))"


def back(legacy: Legacy, *, killed: bool = False) -> None:
    def report(_: Progress) -> None:
        if killed:
            raise InterruptedError

    executions = [load("capture-spine/executions")]
    undo.undo(legacy.url, mappings=executions, options=undo.Options(), stop=threading.Event(), report=report)


def shown(legacy: Legacy) -> str:
    with connect.connect(legacy.url) as connection:
        return as_text(status.look(connection), {})


@pytest.fixture
def left(database: Database, monkeypatch: pytest.MonkeyPatch) -> Legacy:
    """Executions, whose undo has ended without cleaning up; a job that is not moved."""
    monkeypatch.setattr(references, "SMALL_BYTES", 0)
    legacy = build(database)
    legacy.many_executions(50)
    legacy.add("jobs", {"job_type": "job", "status": "done"})
    legacy.move()
    with pytest.raises(InterruptedError):
        back(legacy, killed=True)
    assert legacy.rows(INDEXES) == BOTH
    return legacy


def test_status_names_them_and_a_move_drops_them(left: Legacy) -> None:
    assert NAMED in shown(left)

    assert left.move("jobs").state == "done"

    assert left.rows(INDEXES) == []
    assert "left by an undo" not in shown(left)
    back(left)
    assert left.rows(INDEXES) == []
    assert left.rows("SELECT step FROM spine_migrate.migration ORDER BY migration_id") == [("undone",), ("done",)]


def test_one_that_was_never_finished_is_dropped(left: Legacy) -> None:
    left.execute("DROP INDEX spine_undo_parent_run_id, spine_undo_retry_of_run_id")
    left.execute("INSERT INTO runs (kind, name) VALUES ('task', 'a'), ('task', 'a')")
    with pytest.raises(Exception, match="spine_undo_name"):
        left.execute("CREATE UNIQUE INDEX CONCURRENTLY spine_undo_name ON runs (name)")
    assert left.rows("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid") == [("spine_undo_name",)]

    left.move("jobs")

    assert left.rows(INDEXES) == []


def test_an_offline_load_does_not_keep_them(left: Legacy) -> None:
    left.execute("TRUNCATE runs CASCADE")

    assert left.move("jobs", offline=True).state == "done"

    assert left.rows("SELECT object FROM spine_migrate.deferred_ddl WHERE object LIKE 'spine_undo%%'") == []
    assert left.rows(INDEXES) == []


def test_they_stay_while_the_undo_is_at_work(left: Legacy) -> None:
    with left.connect() as other:
        other.execute(LOCK, ['capture-spine/executions|"public"."executions"|"public"."runs"'])
        assert "left by an undo" not in shown(left)

        assert left.move("jobs").state == "done"

        assert left.rows(INDEXES) == BOTH


def test_a_reader_in_a_transaction_holds_up_no_move(left: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connect.SETTINGS, "lock_timeout", "50ms")
    with left.connect() as reader, reader.transaction():
        reader.execute("SELECT FROM runs")

        assert left.move("jobs").state == "done"

    assert NAMED.partition(",")[0] in shown(left)
    left.move("jobs")
    assert left.rows(INDEXES) == []


def test_a_column_with_a_name_as_long_as_can_be(left: Legacy) -> None:
    """The server cuts names off at 63 bytes, and an index of that name would not be found again."""
    back(left)
    column = "ü" * 31
    for statement in (
        "ALTER TABLE runs DROP CONSTRAINT runs_parent_run_id_fkey",
        "ALTER TABLE runs ADD {} uuid REFERENCES runs",
    ):
        left.execute(sql.SQL(statement).format(sql.Identifier(column)))
    left.move()
    oid = left.value("SELECT 'runs'::regclass::oid")
    with connect.connect(left.url) as connection:
        (ours,) = (one for one in references.references(connection, oid) if one.columns == [column])
    left.execute(sql.SQL("CREATE INDEX {} ON runs (status)").format(sql.Identifier(ours.index.table)))

    back(left)

    assert left.rows(INDEXES) == []
    assert left.value("SELECT count(*) FROM runs") == 0
