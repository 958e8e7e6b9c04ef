"""Migrations into one target share the indexes by which the applier deletes: built once, and there for the last."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import LiteralString

import pytest
from psycopg import sql

from spine_migrate.backfill.run import Outcome
from spine_migrate.carry.known import chosen, known
from spine_migrate.carry.references import Reference
from spine_migrate.db.connect import PINNED, connect
from spine_migrate.sync.start import stop_capture
from tests.legacy import Legacy, arranged
from tests.syncing import PATIENCE, capture_of, move_live
from tests.waiting import until

BOTH = [("spine_undo_parent_run_id", True), ("spine_undo_retry_of_run_id", True)]
_INDEXES: LiteralString = (
    "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indexrelid::regclass::text ~ '^spine_undo_'"
    " ORDER BY 1"
)
_WAITING: LiteralString = (
    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'spine-migrate'"
    " AND query ~ 'pg_sleep'"
)


@arranged
def legacy(legacy: Legacy) -> None:
    legacy.many_executions(5)
    legacy.add("jobs", {"job_type": "job", "status": "done"})


def test_two_captures_begin_at_once(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second begins when the first has seen that there is no index, and is about to build it."""
    made, begun = Reference.build, list[Future[list[Outcome]]]()

    def build(one: Reference) -> sql.Composed:
        if not begun:
            begun.append(pool.submit(move_live, legacy, "jobs"))
            until(lambda: legacy.rows(_WAITING) or begun[0].done(), "the second neither waits nor ends")
        return made(one)

    monkeypatch.setattr(Reference, "build", build)
    with ThreadPoolExecutor(1) as pool:
        outcomes = [*move_live(legacy, "executions"), *begun[0].result()]

    assert [one.state for one in outcomes] == ["done", "done"]
    assert legacy.rows(_INDEXES) == BOTH


def test_they_stay_for_the_last_capture(legacy: Legacy) -> None:
    move_live(legacy, "executions", "jobs")
    assert legacy.rows(_INDEXES) == BOTH

    _stop(legacy, "jobs")
    assert legacy.rows(_INDEXES) == BOTH

    _stop(legacy, "executions")
    assert legacy.rows(_INDEXES) == []


def _stop(legacy: Legacy, entity: str) -> None:
    found = capture_of(legacy, entity)
    with closing(connect(legacy.url, settings=PINNED)) as session:
        (one,) = [
            known(session, migration) for migration in chosen(session) if migration.migration_id == found.migration_id
        ]
        stop_capture(session, one.tables, found, patience=PATIENCE, stop=threading.Event())
