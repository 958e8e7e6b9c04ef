"""Undo among changed mappings, rivals, indexes, odd names, and a connection that is lost."""

from __future__ import annotations

import threading
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.backfill import undo
from spine_migrate.backfill.pace import Progress
from spine_migrate.carry import references
from spine_migrate.errors import Interrupted, Refused
from tests.database import Database
from tests.legacy import Legacy, build, uuid
from tests.undoing import back, runs
from tests.waiting import WAITING, until

EVENT = "INSERT INTO execution_events (event_id, execution_id, event_type) VALUES (%s, %s, 'created')"


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def test_a_changed_mapping_is_refused(legacy: Legacy) -> None:
    legacy.executions(1)
    legacy.move()
    legacy.execute("UPDATE spine_migrate.migration SET mapping_digest = 'another'")

    with pytest.raises(Refused) as refused:
        back(legacy)
    assert refused.value.precondition == "mapping-changed"


def test_a_run_at_work_refuses_the_undo(legacy: Legacy) -> None:
    legacy.executions(1)
    legacy.move()
    with psycopg.connect(legacy.url) as other:
        name = 'capture-spine/executions|"public"."executions"|"public"."runs"'
        other.execute("SELECT pg_advisory_lock(hashtextextended(%s, 7741))", (name,))
        with pytest.raises(Refused) as refused:
            back(legacy)
    assert refused.value.precondition == "already-running"
    assert legacy.rows("SELECT step FROM spine_migrate.migration") == [("done",)]


def test_indexes_serve_the_deletion_and_are_gone_after_it(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that a killed command left half built is built anew."""
    monkeypatch.setattr(references, "SMALL_BYTES", 0)
    legacy.many_executions(50)
    legacy.move()
    legacy.execute("CREATE INDEX spine_undo_parent_run_id ON runs (status)")
    indexes: LiteralString = "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'spine_undo%'"
    seen: list[list[tuple[str]]] = []

    (result,) = back(legacy, report=lambda _: seen.append(sorted(legacy.rows(indexes))))

    assert seen[0] == [("spine_undo_parent_run_id",), ("spine_undo_retry_of_run_id",)]
    assert result.indexes == [
        f'CREATE INDEX CONCURRENTLY "spine_undo_{name}" ON "public"."runs" ("{name}") WHERE "{name}" IS NOT NULL'
        for name in ("parent_run_id", "retry_of_run_id")
    ]
    assert legacy.rows(indexes) == []


def test_a_missing_index_of_others_is_named(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is removed before somebody has built it."""
    legacy.executions(1)
    legacy.move()
    legacy.execute("CREATE TABLE bills (run_id uuid REFERENCES runs)")
    legacy.execute("INSERT INTO bills VALUES (NULL)")
    monkeypatch.setattr(references, "SMALL_BYTES", 0)

    with pytest.raises(Refused, match="CREATE INDEX CONCURRENTLY") as refused:
        back(legacy)

    assert refused.value.precondition == "index-missing"
    assert runs(legacy) == [uuid(1)]


def test_a_row_that_comes_to_point_there_meanwhile_is_respected(
    legacy: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It arrives after the rows were judged; the batch fails on it, judges again and goes on."""
    monkeypatch.setattr(undo, "BLOCKS", 1)
    legacy.many_executions(300)
    legacy.move()
    arrived: list[bool] = []

    def report(_: object) -> None:
        if not arrived:
            arrived.append(True)
            legacy.execute("INSERT INTO run_events (run_id, event_type) VALUES (%s, 'created')", uuid(300))

    (result,) = back(legacy, report=report)

    assert (result.rows, result.left, runs(legacy)) == (299, {"has_foreign_events": 1}, [uuid(300)])


def test_a_lost_connection_is_outlived(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was worked out in a temporary table is gone with the session, and worked out again."""
    monkeypatch.setattr(undo, "BLOCKS", 1)
    legacy.many_executions(300)
    legacy.move()
    legacy.execute("UPDATE runs SET lane = 'touched' WHERE run_id = %s", uuid(300))
    killed: list[bool] = []

    def report(progress: Progress) -> None:
        if progress.rows and not killed:
            killed.extend(
                row[0]
                for row in legacy.rows(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND application_name = 'spine-migrate'"
                )
            )

    (result,) = back(legacy, report=report, retry_seconds=30)

    assert len(killed) > 1
    assert (result.rows, result.left) == (299, {"changed": 1})


def test_cancelling_ends_the_batch_in_flight(legacy: Legacy) -> None:
    """It waits for a row that somebody holds; nothing of the batch is done, and the same call goes on."""
    legacy.executions(1, 2)
    legacy.move()
    cancel = threading.Event()
    waits: LiteralString = WAITING + " AND a.query LIKE 'DELETE FROM%'"

    def cancel_when_it_waits() -> None:
        until(lambda: legacy.rows(waits), "the batch does not wait")
        cancel.set()

    watcher = threading.Thread(target=cancel_when_it_waits)
    options, stop = undo.Options(), threading.Event()
    with psycopg.connect(legacy.url) as other:
        other.execute("SELECT FROM runs FOR UPDATE")
        watcher.start()
        with pytest.raises(Interrupted):
            undo.undo(legacy.url, options=options, stop=stop, cancel=cancel, report=lambda _: None)
    watcher.join()
    assert runs(legacy) == [uuid(1), uuid(2)]
    (result,) = back(legacy)
    assert (result.state, result.rows) == ("undone", 2)


def test_odd_names_and_partitions(database: Database) -> None:
    """Schemas that need quoting; a partitioned source."""
    odd = build(database, source_schema='old "%s" {x}', target_schema="new%% 'y'")
    odd.execute("ALTER TABLE executions RENAME TO whole")
    odd.execute("CREATE TABLE executions (LIKE whole INCLUDING DEFAULTS) PARTITION BY HASH (execution_id)")
    odd.execute("ALTER TABLE executions ADD PRIMARY KEY (execution_id)")
    for part in range(3):
        odd.execute(
            sql.SQL("CREATE TABLE {} PARTITION OF executions FOR VALUES WITH (MODULUS 3, REMAINDER {})").format(
                sql.Identifier(f'part "{part}"'), sql.Literal(part)
            )
        )
    odd.many_executions(90)
    odd.move()

    (result,) = back(odd)

    assert (result.state, result.rows, runs(odd)) == ("undone", 90, [])
