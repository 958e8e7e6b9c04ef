"""Faults of the server, of connections and of other sessions, in the middle of a batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import LiteralString

import psycopg
import pytest

from spine_migrate.backfill.run import Options, run
from spine_migrate.carry.control import WORKER_SETTINGS
from spine_migrate.errors import Interrupted, Refused, ServerFault
from spine_migrate.mapping.load import load
from tests.database import Database
from tests.halting import HALTED, PATIENCE, Background, halting_trigger, held_at, wait_for
from tests.legacy import Legacy, build, uuid
from tests.waiting import WAITING

LOCK = "SELECT pg_advisory_lock(hashtextextended(%s, 7741))"
NAME = 'capture-spine/executions|"public"."executions"|"public"."runs"'


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


_WORKERS: LiteralString = (
    " FROM pg_stat_activity WHERE application_name = 'spine-migrate' AND datname = current_database()"
)


@pytest.mark.parametrize("whom", ["the batch", "every session"])
def test_killed_connections_are_opened_again(legacy: Legacy, whom: str) -> None:
    legacy.many_executions(300)
    halting_trigger(legacy, 150)
    going = Background(lambda: legacy.move(batch_rows=20, workers=2))
    wait_for(legacy, HALTED)

    only: LiteralString = " AND wait_event = 'PgSleep'" if whom == "the batch" else ""
    assert legacy.rows("SELECT pg_terminate_backend(pid)" + _WORKERS + only)

    assert (going.result().state, going.result().moved) == ("done", 300)
    assert legacy.value("SELECT last_value FROM attempts") == 2
    legacy.prove()


def test_a_run_that_lost_its_lock_with_its_session_takes_it_again(legacy: Legacy) -> None:
    """Otherwise a second tool could start beside it."""
    legacy.many_executions(300)
    halting_trigger(legacy, 150)
    with held_at(legacy, 250):
        going = Background(lambda: legacy.move(batch_rows=20))
        wait_for(legacy, HALTED)
        legacy.rows("SELECT pg_terminate_backend(pid)" + _WORKERS)
        wait_for(legacy, "(SELECT count(*) >= 200 FROM runs)")
        wait_for(legacy, HALTED)

        with pytest.raises(Refused) as refused:
            legacy.move()

    assert refused.value.precondition == "already-running"
    assert going.result().moved == 300


def test_a_statement_that_is_cancelled_ends_the_run_resumable(legacy: Legacy) -> None:
    legacy.many_executions(100)
    halting_trigger(legacy, 50)
    going = Background(lambda: legacy.move(batch_rows=20))
    wait_for(legacy, HALTED)
    legacy.rows("SELECT pg_cancel_backend(pid)" + _WORKERS + " AND wait_event = 'PgSleep'")

    with pytest.raises(ServerFault, match="run the same command") as fault:
        going.result()

    assert fault.value.sqlstate == "57014"
    assert legacy.value("SELECT sum(rows_moved) FROM spine_migrate.checkpoint") == legacy.value(
        "SELECT count(*) FROM runs"
    )
    assert legacy.move().moved == 100
    legacy.prove()


def test_cancel_ends_the_batch_in_flight_without_an_error(legacy: Legacy) -> None:
    """Ctrl-C twice: the batch is not waited for."""
    legacy.many_executions(100)
    halting_trigger(legacy, 50)
    stop, cancel = threading.Event(), threading.Event()
    going = Background(
        lambda: run(
            legacy.url,
            load("capture-spine/executions"),
            options=Options(batch_rows=20),
            stop=stop,
            cancel=cancel,
            report=lambda _: None,
        )
    )
    wait_for(legacy, HALTED)
    stop.set()
    cancel.set()

    # Or, where to add up took so long that it was cancelled as well, by an exception.
    with suppress(Interrupted):
        assert going.result().state == "interrupted"
    assert legacy.move().moved == 100
    legacy.prove()


@contextmanager
def held(legacy: Legacy, statement: LiteralString) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(legacy.url) as other:
        other.execute(statement)
        yield other


@pytest.mark.parametrize("table", ["runs", "executions", "spine_migrate.quarantine", "spine_migrate.checkpoint"])
def test_a_table_that_is_locked_for_longer_than_the_lock_timeout_is_waited_for(
    legacy: Legacy, database: Database, table: LiteralString
) -> None:
    """The batch gives up its turn after lock_timeout and comes again."""
    legacy.many_executions(200)
    legacy.executions(500, status="zombie")
    locked = threading.Event()
    release = threading.Event()

    def lock() -> None:
        with held(legacy, "LOCK TABLE " + table + " IN ACCESS EXCLUSIVE MODE"):
            locked.set()
            release.wait(PATIENCE)

    def once(progress: object) -> None:
        if not locked.is_set():
            threading.Thread(target=lock, daemon=True).start()
            assert locked.wait(PATIENCE)

    going = Background(lambda: legacy.move(batch_rows=20, report=once))
    assert locked.wait(PATIENCE)
    with database.connect_admin(autocommit=True) as admin:
        seen = "SELECT count(*)" + _WORKERS + " AND wait_event_type = 'Lock'"
        waits = 0
        # Twice, with a time between that it did not wait: so it has given up once and come again.
        while waits < 2:
            while admin.execute(seen).fetchall() == [(0,)]:
                time.sleep(0.02)
            waits += 1
            while waits < 2 and admin.execute(seen).fetchall() != [(0,)]:
                time.sleep(0.02)
    release.set()

    assert going.result().moved == 200
    legacy.prove()


def test_a_lock_at_the_very_start_is_waited_for_too(legacy: Legacy) -> None:
    legacy.many_executions(20)
    with held(legacy, "LOCK TABLE runs IN ACCESS EXCLUSIVE MODE") as other:
        going = Background(legacy.move)
        wait_for(legacy, "EXISTS (SELECT" + _WORKERS + " AND wait_event_type = 'Lock')")
        wait_for(legacy, "NOT EXISTS (SELECT" + _WORKERS + " AND wait_event_type = 'Lock')")
        other.rollback()

    assert going.result().moved == 20


def test_a_deadlock_costs_a_repetition(legacy: Legacy, database: Database) -> None:
    """The tool holds an index entry that the application waits for, and wants one that the application holds.

    The application never looks for a deadlock, which a superuser may choose, so it is the tool that gives way.
    """
    legacy.executions(1, idempotency_key="tool first")
    legacy.executions(2, idempotency_key="application first")
    with database.connect_admin() as application, ThreadPoolExecutor(1) as thread:
        application.execute("SET deadlock_timeout = '1h'")
        with held_at(legacy, 2):
            application.execute(
                "INSERT INTO runs (run_id, kind, name, idempotency_key)"
                " VALUES (%s, 'task', 'app', 'application first')",
                (uuid(901),),
            )
            going = Background(legacy.move)
            wait_for(legacy, HALTED)
            waiting = thread.submit(
                application.execute,
                "INSERT INTO runs (run_id, kind, name, idempotency_key) VALUES (%s, 'task', 'app', 'tool first')",
                (uuid(902),),
            )
            wait_for(legacy, "EXISTS (" + WAITING + ")")
        waiting.result(PATIENCE)
        application.rollback()

    assert going.result().state == "done"
    legacy.prove()


def test_a_second_run_is_refused_and_changes_nothing(legacy: Legacy) -> None:
    legacy.many_executions(20)
    with psycopg.connect(legacy.url) as other:
        other.execute(LOCK, (NAME,))

        with pytest.raises(Refused, match="Another run is at work on capture-spine/executions") as refused:
            legacy.move()

        assert refused.value.precondition == "already-running"
        assert legacy.value("SELECT count(*) FROM spine_migrate.migration") == 0
    assert legacy.move().moved == 20


def test_a_second_run_waits_if_it_is_told_to(legacy: Legacy) -> None:
    legacy.many_executions(20)
    with psycopg.connect(legacy.url) as other:
        other.execute(LOCK, (NAME,))
        going = Background(lambda: legacy.move(wait=True))
        wait_for(legacy, "EXISTS (SELECT" + _WORKERS + " AND query LIKE '%advisory%')")
        assert legacy.value("SELECT count(*) FROM spine_migrate.migration") == 0

    assert going.result().moved == 20


def test_a_run_that_waits_can_be_stopped(legacy: Legacy) -> None:
    stop = threading.Event()
    with psycopg.connect(legacy.url) as other:
        other.execute(LOCK, (NAME,))
        going = Background(lambda: legacy.move(wait=True, stop=stop))
        wait_for(legacy, "EXISTS (SELECT" + _WORKERS + " AND query LIKE '%advisory%')")
        stop.set()

        with pytest.raises(Interrupted):
            going.result()


def test_a_full_disk_ends_the_run_resumable_and_blames_no_row(legacy: Legacy) -> None:
    """Told by the SQLSTATE; an ordinary role cannot fill a disk of its own, so a trigger says it."""
    legacy.many_executions(50)
    legacy.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.run_id::text LIKE '%0040'"
        " THEN RAISE 'could not extend file: No space left on device' USING ERRCODE = '53100'; END IF;"
        " RETURN NEW; END $$;"
        "CREATE TRIGGER full_disk BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION full_disk()"
    )

    with pytest.raises(ServerFault, match="disk is full") as fault:
        legacy.move(batch_rows=10)

    assert fault.value.exit_code == 5
    assert legacy.value("SELECT count(*) FROM runs") == 30
    assert legacy.quarantine() == []
    legacy.execute("DROP TRIGGER full_disk ON runs")
    assert legacy.move().moved == 50
    legacy.prove()


def test_rows_that_change_in_the_middle_of_a_batch(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was judged is what is inserted, whatever is committed between the two; the sweep sees to what is new."""
    # A batch that gave up on a busy machine would judge anew.
    monkeypatch.setitem(WORKER_SETTINGS, "lock_timeout", "60s")
    legacy.many_executions(30)
    legacy.executions(31, status="zombie")
    # SHARE lets the batch read and judge, and holds up its insert.
    with held(legacy, "LOCK TABLE runs IN SHARE MODE") as application:
        going = Background(legacy.move)
        wait_for(legacy, "EXISTS (SELECT" + _WORKERS + " AND wait_event_type = 'Lock')")
        legacy.execute("UPDATE executions SET status = 'zombie' WHERE execution_id = %s", uuid(5))
        legacy.execute("UPDATE executions SET status = 'failed' WHERE execution_id = %s", uuid(31))
        legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(6))
        legacy.executions(32)
        application.rollback()

    outcome = going.result()

    assert outcome.state == "done"
    assert legacy.rows("SELECT status FROM runs WHERE run_id IN (%s, %s)", uuid(5), uuid(6)) == [("completed",)] * 2
    assert legacy.value("SELECT count(*) FROM runs") == 31
    assert legacy.quarantine() == [(uuid(31), "unknown_value", "status", None, None)]
