"""Faults of the server, of connections and of other sessions, in the middle of a batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.backfill.run import Options, Outcome, run
from spine_migrate.errors import Interrupted, Refused, ServerFault
from spine_migrate.mapping.load import load
from tests.conftest import StartServer
from tests.database import Database, create_role, url_for
from tests.legacy import Legacy, build, uuid

LOCK = "SELECT pg_advisory_lock(hashtextextended(%s, 7741))"
NAME = 'capture-spine/executions|"public"."executions"|"public"."runs"'
# Seconds that a test waits for something to come about, before it fails.
_PATIENCE = 60.0


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database.url)


class Background(threading.Thread):
    """Runs ``work``; ``result`` joins and gives or raises what came of it."""

    def __init__(self, work: Callable[[], Outcome]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._outcome = self._work()
        except BaseException as error:  # noqa: BLE001  (raised again by result)
            self._error = error

    def result(self) -> Outcome:
        self.join(_PATIENCE)
        if self._error is not None:
            raise self._error
        assert self._outcome is not None, "the run has not come to its end"
        return self._outcome


def wait_for(legacy: Legacy, condition: LiteralString) -> None:
    end = time.monotonic() + _PATIENCE
    with legacy.connect() as connection:
        while connection.execute("SELECT " + condition).fetchall() != [(True,)]:
            assert time.monotonic() < end, condition
            time.sleep(0.01)


def halting_trigger(legacy: Legacy, row: int, seconds: int = 30) -> None:
    """The first attempt to insert ``row`` stands still in the middle of its batch; later ones do not."""
    legacy.execute("CREATE SEQUENCE attempts")
    legacy.execute(
        sql.SQL(
            "CREATE FUNCTION halt() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$ BEGIN"
            " IF NEW.run_id = {row} AND nextval('attempts') = 1 THEN PERFORM pg_sleep({seconds}); END IF;"
            " RETURN NEW; END $$;"
            "CREATE TRIGGER halt BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION halt()"
        ).format(row=sql.Literal(uuid(row)), seconds=sql.Literal(seconds))
    )


HALTED: LiteralString = (
    "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database())"
)
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
    halt_again: LiteralString = (
        "IF NEW.run_id = '00000000-0000-4000-8000-000000000250' AND nextval('attempts') < 5 THEN"
        " PERFORM pg_sleep(4); END IF; RETURN NEW; END $$"
    )
    legacy.execute(
        "CREATE FUNCTION halt_again() RETURNS trigger LANGUAGE plpgsql SET search_path = public AS $$ BEGIN "
        + halt_again
        + ";CREATE TRIGGER halt_again BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION halt_again()"
    )
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
            release.wait(_PATIENCE)

    def once(progress: object) -> None:
        if not locked.is_set():
            threading.Thread(target=lock, daemon=True).start()
            assert locked.wait(_PATIENCE)

    going = Background(lambda: legacy.move(batch_rows=20, report=once))
    assert locked.wait(_PATIENCE)
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


def test_a_deadlock_costs_a_repetition(legacy: Legacy) -> None:
    """The tool holds an index entry that the application waits for, and wants one that the application holds.

    The application has waited for its deadlock_timeout before there is a deadlock, so it is the tool that gives way.
    """
    legacy.executions(1, idempotency_key="tool first")
    legacy.executions(2, idempotency_key="application first")
    halting_trigger(legacy, 2, seconds=2)
    with psycopg.connect(legacy.url) as application:
        application.execute(
            "INSERT INTO runs (run_id, kind, name, idempotency_key) VALUES (%s, 'task', 'app', 'application first')",
            (uuid(901),),
        )
        going = Background(legacy.move)
        wait_for(legacy, HALTED)
        application.execute(
            "INSERT INTO runs (run_id, kind, name, idempotency_key) VALUES (%s, 'task', 'app', 'tool first')",
            (uuid(902),),
        )
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


def served(start_server: StartServer) -> tuple[Legacy, Callable[[], None], Callable[[], None]]:
    """A history on a server of its own; how to stop and how to start that."""
    server = start_server()
    role = create_role(server.url(), "dba")
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute("CREATE DATABASE spine OWNER dba")
    legacy = build(url_for(server.url(), "spine", role))
    return legacy, server.stop, server.start


def test_a_restart_in_the_middle_of_a_batch(start_server: StartServer) -> None:
    legacy, stop, start = served(start_server)
    legacy.many_executions(300)
    legacy.executions(500, parent_execution_id=uuid(1))
    halting_trigger(legacy, 150)
    going = Background(lambda: legacy.move(batch_rows=20, workers=2))
    wait_for(legacy, HALTED)

    stop()
    start()

    assert going.result().moved == 301
    legacy.prove()


def test_a_server_that_stays_away_longer_than_the_retries(start_server: StartServer) -> None:
    legacy, stop, start = served(start_server)
    legacy.many_executions(300)
    halting_trigger(legacy, 150)
    going = Background(lambda: legacy.move(batch_rows=20, retry_seconds=0.5))
    wait_for(legacy, HALTED)
    stop()

    with pytest.raises(ServerFault) as fault:
        going.result()

    assert fault.value.exit_code == 5
    start()
    assert legacy.value("SELECT sum(rows_moved) FROM spine_migrate.checkpoint") == legacy.value(
        "SELECT count(*) FROM runs"
    )
    assert legacy.move().moved == 300
    legacy.prove()


def test_a_stop_while_the_server_is_away_is_obeyed(start_server: StartServer) -> None:
    legacy, stop_server, start = served(start_server)
    legacy.many_executions(100)
    halting_trigger(legacy, 50)
    stop = threading.Event()
    going = Background(lambda: legacy.move(batch_rows=20, retry_seconds=3600, stop=stop))
    wait_for(legacy, HALTED)
    stop_server()
    stop.set()

    with pytest.raises(ServerFault):
        going.result()

    start()
    assert legacy.move().moved == 100


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


def test_rows_that_change_in_the_middle_of_a_batch(legacy: Legacy) -> None:
    """What was judged is what is inserted, whatever is committed between the two; the sweep sees to what is new."""
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
