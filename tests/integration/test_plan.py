"""What the plan says of the rows comes true when they are moved."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from spine_migrate.backfill.run import Options, Outcome, run
from spine_migrate.db import schema
from spine_migrate.db.connect import Connection, connect
from spine_migrate.demo.generate import create_legacy, generate
from spine_migrate.mapping.load import load
from spine_migrate.plan.make import make_plan
from spine_migrate.plan.model import Plan, Scan
from tests.database import Database

_RUNS, _EVENTS, _JOBS = "capture-spine/executions", "capture-spine/execution_events", "capture-spine/jobs"


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    database.arrange(schema.upgrade)
    with connect(database.url) as opened:
        yield opened


def _plan(connection: Connection, name: str = _RUNS) -> Plan:
    return make_plan(connection, load(name))


def _move(database: Database, name: str) -> Outcome:
    return run(database.url, load(name), options=Options(), stop=threading.Event(), report=lambda _: None)


def _forecast(plan: Plan) -> dict[tuple[str, str | None], int]:
    assert plan.rows is not None
    found: dict[tuple[str, str | None], int] = {(one.reason, one.field): one.rows for one in plan.rows.rejects}
    if plan.conflicts and (collisions := sum(one.losers + one.taken for one in plan.conflicts)):
        found["unique_conflict", None] = collisions
    return found


def _quarantined(connection: Connection, outcome: Outcome) -> dict[tuple[str, str | None], int]:
    rows = connection.execute(
        "SELECT reason, field, count(*) FROM spine_migrate.quarantine WHERE migration_id = %s GROUP BY 1, 2",
        [outcome.migration_id],
    ).fetchall()
    return {(reason, field): count for reason, field, count in rows}


def test_what_is_forecast_for_the_demo_data_happens(database: Database, connection: Connection) -> None:
    generate(connection, executions=3000, jobs=1000, seed=11)
    # Both before anything has moved, as a dry run of the two does; the jobs come upon what is there by then.
    plans = {name: _plan(connection, name) for name in (_RUNS, _EVENTS)}
    for name in (_RUNS, _EVENTS, _JOBS):
        plan = plans.get(name) or _plan(connection, name)
        outcome = _move(database, name)
        assert plan.rows is not None
        assert plan.rows.total == outcome.source_rows
        assert _forecast(plan) == _quarantined(connection, outcome)
        assert plan.links is not None
        assert sum(link.rows for link in plan.links) == outcome.links.broken
        assert plan.ready


def test_a_plan_after_the_move_finds_it_done(database: Database, connection: Connection) -> None:
    generate(connection, executions=300, jobs=0, seed=11)
    before = _plan(connection)
    outcome = _move(database, _RUNS)
    plan = _plan(connection)
    assert (before.started, plan.started) == (False, True)
    assert plan.keys is not None
    assert (plan.keys.ours, plan.keys.taken) == (outcome.moved, 0)
    assert _forecast(plan) == _forecast(before)
    assert plan.estimate is not None
    assert before.estimate is not None
    # Only what is left counts.
    assert plan.estimate.target_bytes < before.estimate.target_bytes / 2


def test_examples_name_the_key_and_say_why(connection: Connection) -> None:
    create_legacy(connection)
    connection.execute(
        "INSERT INTO executions (execution_id, pipeline_name, status)"
        " SELECT ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 'p', E'zom\"bie\\n\u001f'"
        " FROM generate_series(1, 200) n"
    )
    plan = _plan(connection)
    assert plan.rows is not None
    (found,) = plan.rows.rejects
    assert (found.reason, found.field, found.rows) == ("unknown_value", "status", 200)
    keys = {example.key for example in found.examples}
    assert len(keys) == 3
    assert connection.execute(
        "SELECT count(*) FROM executions WHERE execution_id::text = ANY(%s)", [list(keys)]
    ).fetchone() == (3,)
    assert {example.detail for example in found.examples} == {"'zom\"bie\n\x1f' is not in the value map"}


def test_target_rows_in_the_way_are_named(connection: Connection) -> None:
    create_legacy(connection)
    connection.execute(
        "INSERT INTO runs (run_id, kind, name, idempotency_key, status)"
        " VALUES ('a0000000-0000-0000-0000-000000000001', 'task', 'theirs', 'key', 'completed'),"
        " ('b0000000-0000-0000-0000-000000000002', 'task', 'theirs', NULL, 'completed')"
    )
    connection.execute(
        "INSERT INTO executions (execution_id, pipeline_name, status, idempotency_key)"
        " VALUES ('c0000000-0000-0000-0000-000000000001', 'p', 'completed', 'key'),"
        " ('b0000000-0000-0000-0000-000000000002', 'p', 'completed', NULL)"
    )
    plan = _plan(connection)
    assert plan.keys is not None
    assert (plan.keys.ours, plan.keys.taken) == (0, 1)
    assert [example.key for example in plan.keys.examples] == ["b0000000-0000-0000-0000-000000000002"]
    assert plan.conflicts is not None
    (taken,) = [one for one in plan.conflicts if one.taken]
    assert (taken.index, taken.losers) == ("uq_idempotency", 0)
    assert taken.taken_examples[0].key == "c0000000-0000-0000-0000-000000000001"
    assert "a0000000-0000-0000-0000-000000000001" in taken.taken_examples[0].detail
    assert {"key-taken", "unique-conflict"} <= {finding.code for finding in plan.warnings}


def test_an_event_whose_run_is_somebody_elses_follows_its_execution(database: Database, connection: Connection) -> None:
    create_legacy(connection)
    key = "b0000000-0000-0000-0000-000000000002"
    connection.execute("INSERT INTO runs (run_id, kind, name) VALUES (%s, 'task', 'theirs')", [key])
    connection.execute("INSERT INTO executions (execution_id, pipeline_name, status) VALUES (%s, 'p', 'failed')", [key])
    connection.execute("INSERT INTO execution_events (execution_id, event_type) VALUES (%s, 'failed')", [key])
    plan = _plan(connection, _EVENTS)
    _move(database, _RUNS)
    assert _forecast(plan) == _quarantined(connection, _move(database, _EVENTS))
    assert _forecast(plan) == {("parent_quarantined", "run_id"): 1}


def test_every_scan_is_announced_before_it_starts(connection: Connection) -> None:
    generate(connection, executions=60, jobs=0, seed=1)
    announced: list[Scan] = []
    plan = make_plan(connection, load(_RUNS), announce=announced.append)
    assert tuple(announced) == plan.scans
    assert {scan.table for scan in announced} == {'"public"."executions"'}
    assert all(scan.bytes > 0 for scan in announced)
    # One pass counts and judges; each further one has a question of its own.
    assert len({scan.purpose for scan in announced}) == len(announced)


def test_the_sample_leaves_nothing_behind(database: Database, connection: Connection) -> None:
    generate(connection, executions=60, jobs=0, seed=1)
    connection.execute("ALTER TABLE runs ADD COLUMN ticket bigserial, ADD COLUMN note text NOT NULL DEFAULT random()")
    plan = _plan(connection)
    assert plan.estimate is not None
    assert plan.rows is not None
    assert 0 < plan.estimate.sample_rows <= plan.rows.total - plan.rows.rejected
    assert plan.estimate.target_bytes > 0
    assert plan.estimate.seconds_low <= plan.estimate.seconds_high
    assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)
    assert connection.execute("SELECT is_called FROM runs_ticket_seq").fetchone() == (False,)
    assert connection.execute("SELECT to_regclass('pg_temp.spine_sample')").fetchone() == (None,)


@pytest.mark.parametrize("name", [_RUNS, _EVENTS, _JOBS])
def test_empty_tables(connection: Connection, name: str) -> None:
    create_legacy(connection)
    plan = _plan(connection, name)
    assert plan.ready
    assert plan.unknown == ()
    assert plan.rows is not None
    assert (plan.rows.total, plan.rows.rejects) == (0, ())
    assert plan.estimate is not None
    assert plan.estimate.seconds_high == pytest.approx(0)


def test_the_plan_is_json(connection: Connection) -> None:
    generate(connection, executions=60, jobs=0, seed=1)
    plan = _plan(connection)
    read = json.loads(json.dumps(plan.as_json()))
    assert read["ready"] is True
    assert read["rows"]["total"] == plan.rows.total if plan.rows else False
    assert all(step["sql"] for step in read["steps"])
