"""The applier: what waits, what is refused, and what is changed beside it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from spine_migrate.carry.known import chosen, known
from spine_migrate.carry.statements import Statement, Statements
from spine_migrate.carry.tables import guard_of
from spine_migrate.db.connect import connect
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused
from spine_migrate.sync import applier, loop, members, work
from spine_migrate.sync.appliers import applier_of
from spine_migrate.sync.changes import Changes
from spine_migrate.sync.loop import follow
from spine_migrate.sync.members import Options
from tests.database import Database
from tests.legacy import Connection, Legacy, arranged, build, uuid
from tests.syncing import apply, capture_of, in_another_session, lag_of, logged, move_live
from tests.waiting import LONGEST, WAITING, until


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


@arranged
def live(legacy: Legacy) -> None:
    """Ten executions, moved, their changes captured."""
    legacy.many_executions(10)
    move_live(legacy)


def test_many_rows_that_wait_for_the_same_are_put_off_at_once(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not one by one: those whose run is not there, and those whose place in a unique index is taken."""
    legacy.many_executions(3)
    move_live(legacy, "executions", "execution_events")
    legacy.execute(
        "INSERT INTO runs (run_id, kind, name, idempotency_key)"
        " SELECT gen_random_uuid(), 'task', 'x', 'k' || n FROM generate_series(1, 300) AS n"
    )
    legacy.execute(
        "INSERT INTO executions (pipeline_name, status, idempotency_key)"
        " SELECT 'x', 'completed', 'k' || n FROM generate_series(1, 300) AS n"
    )
    legacy.execute(
        "INSERT INTO execution_events (event_id, execution_id, event_type, timestamp)"
        " SELECT gen_random_uuid(), execution_id, 'started', now() FROM executions"
    )
    statements = 0
    run = work.run

    def counted(session: Connection, statement: Statement) -> psycopg.RawCursor[Any]:
        nonlocal statements
        statements += 1
        return run(session, statement)

    monkeypatch.setattr(work, "run", counted)
    with connect(legacy.url, settings=loop.APPLIER_SETTINGS) as session:
        both = [known(session, migration) for migration in chosen(session)]
        for one, name in zip(both, ("executions", "execution_events"), strict=True):
            others = [other for other in both if other is not one]
            done = applier_of(session, one, capture_of(legacy, name), others).next(session, limit=1000)
            assert done.deferred == 300
    assert statements < 30
    assert legacy.value("SELECT count(*) FROM run_events") == 3
    ((detail,),) = legacy.rows("SELECT DISTINCT detail FROM spine_migrate.pending WHERE detail LIKE '%%place%%'")
    assert detail == "its place is taken, constraint uq_idempotency"


def test_a_second_applier_is_refused(live: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "LAST_STATEMENT", 0.5)
    with connect(live.url) as other:
        name = 'capture-spine/executions|"public"."executions"|"public"."runs"'
        assert other.execute(query("capture", "try_apply"), {"name": name}).fetchall() == [(True,)]
        with pytest.raises(Refused, match="Another process applies"):
            apply(live)


def _write(connection: Connection) -> None:
    connection.execute("UPDATE executions SET error = 'x'")


def test_a_writer_never_waits_for_the_applier(live: Legacy) -> None:
    """While the applier's transaction is open."""
    with live.connect() as connection, connection.transaction():
        connection.execute("UPDATE spine_migrate.capture SET applied_at = now()")
        connection.execute("DELETE FROM spine_migrate.change_log")
        writer = in_another_session(live, _write)
        writer.join(timeout=LONGEST)
        assert not writer.is_alive()
    apply(live)
    live.prove()


def test_lag(live: Legacy) -> None:
    assert lag_of(live).nothing
    live.execute("UPDATE executions SET error = 'x'")
    assert lag_of(live).entries == 10
    with pytest.raises(psycopg.errors.UniqueViolation):
        live.executions(1)
    assert lag_of(live).entries == 10


def test_a_row_that_waits_in_vain_tires_while_the_application_writes(
    live: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each cycle finds something in the log, and empties it."""
    monkeypatch.setattr(applier, "MOST_ATTEMPTS", 2)
    monkeypatch.setattr(applier, "LONGEST_SECONDS", 0.0)
    monkeypatch.setattr(loop, "SOON", 0.0)
    live.execute("INSERT INTO runs (run_id, kind, name, idempotency_key) VALUES (%s, 'task', 'x', 'k')", uuid(900))
    live.executions(41, idempotency_key="k")
    stop, numbers = threading.Event(), iter(range(100, 200))

    def write(_: object) -> None:
        live.executions(next(numbers))
        if live.quarantine():
            stop.set()

    monkeypatch.setattr(
        "spine_migrate.sync.loop._Loop._is_due", lambda _self, what, _: what in ("members", "soon", "report")
    )
    follow(live.url, options=Options(), stop=stop, report=write)
    assert [row[1] for row in live.quarantine()] == ["unique_conflict"]


def test_rows_of_the_target_are_looked_up(live: Legacy) -> None:
    """Never read whole, though the planner takes the mark of origin for a rare one."""
    live.many_executions(3000, first=1000)
    apply(live)
    live.execute("ANALYZE runs")
    live.execute("ANALYZE executions")
    keys = [uuid(number) for number in range(1000, 3000)]
    with connect(live.url, settings=loop.APPLIER_SETTINGS) as connection:
        (one,) = [known(connection, migration) for migration in chosen(connection)]
        changes = Changes(Statements(one.tables.binding, None), guard_of(connection, one.tables))
        composed, values = changes.update(keys, {})
        explain = sql.SQL("EXPLAIN (FORMAT JSON) {}").format(composed)
        ((plans,),) = execute(connection, explain, *values).fetchall()
    scans = [node for node in _nodes(plans[0]["Plan"]) if "Scan" in node["Node Type"]]
    reads = [node for node in scans if node.get("Relation Name") == "runs"]
    assert [node["Index Cond"] for node in reads] == ["(run_id = x.target_key)"]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from _nodes(below)


def test_a_table_that_is_rewritten_is_not_taken_for_an_empty_one(live: Legacy) -> None:
    """ALTER TABLE leaves nothing in it that a snapshot from before could see (PostgreSQL manual, 13.6)."""
    live.execute("UPDATE executions SET error = 'x'")
    settings = {**loop.APPLIER_SETTINGS, "lock_timeout": "60s"}
    with connect(live.url, settings=settings) as session, live.connect() as connection:
        (one,) = [known(session, migration) for migration in chosen(session)]
        made = applier_of(session, one, capture_of(live), [])
        with connection.transaction():
            connection.execute("ALTER TABLE executions ADD COLUMN rewritten uuid DEFAULT gen_random_uuid()")
            connection.execute("ALTER TABLE executions DROP COLUMN rewritten")
            applying = in_another_session(live, lambda _: _apply_one_batch(made, session))
            until(lambda: session.info.backend_pid in _waiting(live), "the applier to wait for the table")
        applying.join(timeout=LONGEST)
    assert live.value("SELECT count(*) FROM runs") == 10
    assert not logged(live)
    live.prove()


def _apply_one_batch(made: applier.Applier, session: Connection) -> None:
    with pytest.raises(psycopg.errors.SerializationFailure, match="rewritten"):
        made.next(session, limit=100)
    made.next(session, limit=100)


def _waiting(live: Legacy) -> list[int]:
    return [pid for (pid,) in live.rows(WAITING + " AND l.locktype = 'relation'")]


def test_a_deletion_that_the_target_refuses_is_put_off_for_whatever_reason(live: Legacy) -> None:
    """ON DELETE RESTRICT, SET NULL in a NOT NULL column, a trigger: the row goes once that is out of the way."""
    live.execute("CREATE TABLE strict (run_id uuid REFERENCES runs ON DELETE RESTRICT)")
    live.execute("CREATE TABLE clearing (run_id uuid NOT NULL REFERENCES runs ON DELETE SET NULL)")
    live.execute("INSERT INTO strict VALUES (%s)", uuid(1))
    live.execute("INSERT INTO clearing VALUES (%s)", uuid(2))
    live.execute("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$")
    live.execute(
        "CREATE TRIGGER no BEFORE DELETE ON runs FOR EACH ROW WHEN (old.run_id::text LIKE '%%003')"
        " EXECUTE FUNCTION no()"
    )
    live.execute(
        "DELETE FROM executions WHERE execution_id = ANY(%s::uuid[])", [uuid(number) for number in range(1, 5)]
    )
    apply(live, "executions")
    assert live.value("SELECT count(*) FROM runs") == 9
    assert live.value("SELECT count(*) FROM spine_migrate.pending WHERE why = 'deferred'") == 3
    live.execute("DELETE FROM strict")
    live.execute("DELETE FROM clearing")
    live.execute("DROP TRIGGER no ON runs")
    apply(live, "executions")
    assert live.value("SELECT count(*) FROM runs") == 6
    assert not live.rows("TABLE spine_migrate.pending")
    live.prove("executions")
