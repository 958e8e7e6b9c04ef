"""Runs that were not migrated, seen and written through the view: nothing but what changes is written."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.legacy import uuid
from tests.views import refused

Connection = psycopg.Connection[Any]

_NATIVE: dict[str, object] = {
    "run_id": uuid(7),
    "kind": "pipeline",
    "name": "native",
    "params": Jsonb([1]),
    "priority": "high",
    "correlation_id": "c",
    "executor_name": "celery",
    "status": "suspended",
    "error_type": "T" * 90,
    "attempt": -(2**31),
    "metadata": Jsonb({"entity_type": "doc", "entity_id": "9", "feed_id": 17, "legacy": [1], "mine": {"a": 1.50}}),
    "tags": Jsonb({"t": None}),
}


def _native(connection: Connection, **values: object) -> None:
    row = {**_NATIVE, **values}
    connection.execute(
        sql.SQL("INSERT INTO runs ({}) VALUES ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(sql.Placeholder() * len(row))
        ),
        list(row.values()),
    )


def _runs(connection: Connection) -> list[Any]:
    return connection.execute("SELECT r.*::text FROM runs AS r ORDER BY run_id").fetchall()


def test_an_update_that_changes_nothing_leaves_the_run_as_it_is(application: Connection) -> None:
    """Whoever made it: all that the mapping would write otherwise stays."""
    _native(application)
    before = _runs(application)
    application.execute(
        "UPDATE executions SET pipeline_name = pipeline_name, status = status, feed_id = feed_id,"
        " retry_count = retry_count, params = params, error_type = error_type"
    )
    assert _runs(application) == before


def test_an_update_writes_what_it_changes_and_no_more(application: Connection) -> None:
    _native(application, attempt=3)
    application.execute("UPDATE executions SET retry_count = NULL, lane = 'slow'")
    found = application.execute(
        "SELECT lane, attempt, metadata, status, priority, correlation_id, executor_name, tags, params FROM runs"
    ).fetchone()
    metadata = {"entity_type": "doc", "entity_id": "9", "feed_id": 17, "mine": {"a": 1.5}}
    kept = {**metadata, "legacy": {"retry_count": None}}
    rest = ("suspended", "high", "c", "celery", {"t": None}, [1])
    assert found == ("slow", 1, kept, *rest)
    application.execute("UPDATE executions SET retry_count = 4, feed_id = 'f0000000-0000-4000-8000-000000000001'")
    feed = "f0000000-0000-4000-8000-000000000001"
    fed = {"entity_type": "feed", "entity_id": feed, "feed_id": feed, "mine": {"a": 1.5}}
    assert application.execute("SELECT attempt, metadata FROM runs").fetchone() == (5, fed)
    application.execute("UPDATE executions SET feed_id = NULL")
    assert application.execute("SELECT metadata FROM runs").fetchone() == ({"mine": {"a": 1.5}},)


def test_what_a_legacy_column_cannot_hold_is_null(application: Connection) -> None:
    """One run that somebody wrote otherwise does not make the view fail for all, whatever is asked of it."""
    _native(application, lane="x" * 11)
    row = application.execute("SELECT status, feed_id, retry_count, lane, params FROM executions").fetchone()
    assert row == (None, None, None, None, [1])
    assert application.execute("SELECT FROM executions WHERE feed_id = gen_random_uuid()").fetchall() == []
    assert application.execute("SELECT FROM jobs WHERE job_id = 1").fetchall() == []


def test_runs_without_a_legacy_form_are_not_shown(application: Connection) -> None:
    """Neither another kind, nor a task that was never a job, nor events of either; nothing of theirs can be written."""
    _native(application, kind="task")
    application.execute("INSERT INTO run_events (run_id, event_type) SELECT run_id, 'started' FROM runs")
    for table in ("executions", "jobs", "execution_events"):
        assert application.execute(sql.SQL("SELECT FROM {}").format(sql.Identifier(table))).fetchall() == []
        assert application.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table))).rowcount == 0
    assert application.execute("UPDATE executions SET error = 'e'").rowcount == 0
    assert refused(application, "INSERT INTO executions (execution_id, pipeline_name) VALUES (%s, 'p')", uuid(7))[
        ::2
    ] == ("23505", "runs_pkey")


def test_an_event_belongs_to_a_row_that_is_shown(application: Connection) -> None:
    """A run of another kind takes events, but none through the view: the legacy table had no such row to point to."""
    _native(application, kind="task")
    state, _, _ = refused(
        application, "INSERT INTO execution_events (execution_id, event_type) VALUES (%s, 'started')", uuid(7)
    )
    assert state == "23503"
