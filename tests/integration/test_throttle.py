"""What holds a backfill back on a real server, and that it goes on when that is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from spine_migrate.backfill.pace import Pace
from spine_migrate.backfill.status import look
from spine_migrate.carry import links, orders, throttle
from spine_migrate.carry.settings import change
from spine_migrate.carry.signals.active_sessions import ActiveSessions
from spine_migrate.carry.signals.lock_waits import LockWaits
from spine_migrate.db import ledger, schema
from spine_migrate.db.connect import connect
from spine_migrate.errors import ConfigurationError, Refused
from tests.conftest import StartServer
from tests.database import Database
from tests.legacy import Legacy, arranged, build, uuid
from tests.moving import Moving, moving
from tests.waiting import until


@arranged
def legacy(built: Legacy) -> None:
    built.many_executions(400)


@pytest.fixture
def seeing(legacy: Legacy, database: Database) -> Iterator[Legacy]:
    """Its owner may see what others do on the server."""
    name = sql.Identifier(database.owner.name)
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(name))
    yield legacy
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(sql.SQL("REVOKE pg_read_all_stats FROM {}").format(name))


def order(legacy: Legacy, *words: str) -> None:
    """``pause``, ``resume``, or settings for all migrations."""
    with connect(legacy.url) as connection:
        migrations = ledger.migrations(connection)
        if words == ("pause",):
            orders.pause(connection, migrations)
        elif words == ("resume",):
            orders.resume(connection, migrations)
        else:
            orders.change(connection, migrations, change(words))


@contextmanager
def at_work(database: Database, statement: str, sessions: int) -> Iterator[list[int]]:
    """So many sessions that are executing something until the block ends; the ids of their processes."""
    with psycopg.connect(database.url, autocommit=True) as watcher:
        open_ = [psycopg.connect(database.url, autocommit=True) for _ in range(sessions)]
        threads = [threading.Thread(target=_until_cancelled, args=(one, statement), daemon=True) for one in open_]
        for thread in threads:
            thread.start()
        pids = [one.info.backend_pid for one in open_]
        active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid = ANY (%s)"
        until(lambda: watcher.execute(active, [pids]).fetchall() == [(sessions,)], "the sessions are not at work")
        try:
            yield pids
        finally:
            for one, thread in zip(open_, threads, strict=True):
                one.cancel_safe()
                thread.join(30)
                one.close()


def _until_cancelled(connection: psycopg.Connection[Any], statement: str) -> None:
    try:
        connection.execute(statement.encode())
    except psycopg.errors.QueryCanceled:
        connection.rollback()


def test_waiting_for_other_tables_does_not_count(legacy: Legacy, database: Database) -> None:
    legacy.execute("CREATE TABLE aside (n int)")
    with database.connect() as holder:
        holder.execute("LOCK TABLE aside, execution_events")
        with at_work(database, "SELECT FROM aside", 2):
            until(lambda: _waiting(legacy), "nobody waits")
            with moving(legacy, max_lock_waits=0) as going:
                assert going.result().moved == 400
    assert going.held == []


def test_sessions_that_wait_for_a_table_hold_it_back_until_they_have_it(legacy: Legacy, database: Database) -> None:
    """As one does who wants to put a trigger on it; our own reading is in nobody's way."""
    lock = "DO $$ BEGIN LOCK TABLE executions IN SHARE ROW EXCLUSIVE MODE; END $$"
    with database.connect() as writer:
        writer.execute("LOCK TABLE executions IN ROW EXCLUSIVE MODE")
        with at_work(database, lock, 1):
            until(lambda: _waiting(legacy), "nobody waits")
            with moving(legacy, max_lock_waits=0, workers=2) as going:
                going.is_held("max-lock-waits")
                assert "wait for locks on the tables: 1, the limit is 0" in going.told("held_detail")
                assert going.told("held_since")
                assert _open_transactions(legacy) == 0
                writer.rollback()
                assert going.result().state == "done"
    # A worker may say late what it has seen before the other one.
    assert (going.held[0], going.held[-1], set(going.held)) == ("max-lock-waits", None, {"max-lock-waits", None})
    assert going.told("held_by") is None
    legacy.prove()


def test_a_row_that_others_wait_for(legacy: Legacy, database: Database) -> None:
    """A wait for another's transaction names no table; who waits has the table locked."""
    with database.connect() as writer:
        writer.execute("UPDATE executions SET lane = 'slow'")
        with at_work(database, "UPDATE executions SET lane = 'fast'", 1):
            until(lambda: _waiting(legacy), "nobody waits")
            with moving(legacy, max_lock_waits=0) as going:
                going.is_held("max-lock-waits")
                writer.rollback()
                assert going.result().moved == 400


def _waiting(legacy: Legacy, sessions: int = 1) -> bool:
    """For long enough to count."""
    return bool(
        sessions
        <= legacy.value(
            "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE datname = current_database()"
            " AND waitstart < clock_timestamp() - interval '200 milliseconds'"
        )
    )


def _stands_still(legacy: Legacy, going: Moving) -> bool:
    """For longer than a batch takes that another worker began before it saw the pause."""
    before = going.moved()
    time.sleep(1)
    return _open_transactions(legacy) == 0 and going.moved() == before


def _open_transactions(legacy: Legacy) -> int:
    return int(
        legacy.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name = 'spine-migrate' AND state LIKE 'idle in transaction%%'"
        )
    )


def test_our_own_sessions_do_not_count(seeing: Legacy, database: Database) -> None:
    lock = "DO $$ BEGIN LOCK TABLE runs; END $$"
    table = seeing.value("SELECT 'runs'::regclass::oid::int")
    with database.connect() as holder, connect(seeing.url) as connection:
        holder.execute("SELECT FROM runs")
        with at_work(database, lock, 3) as ours:
            until(lambda: _waiting(seeing, 3), "nobody waits")
            for others in range(4):
                pids = ours[others:]
                assert LockWaits([table], pids).look(connection, others) is None
                if others:
                    assert LockWaits([table], pids).look(connection, others - 1) is not None
            # On a server that other tests use as well, there are theirs, which come and go between two looks.
            assert ActiveSessions([]).look(connection, 2) is not None

            def counted() -> tuple[int, int]:
                others = [pid for (pid,) in seeing.rows("SELECT pid FROM pg_stat_activity WHERE pid <> ALL (%s)", ours)]
                beside, without = (
                    _number(ActiveSessions(pids).look(connection, -1)) for pids in (others, [*others, *ours])
                )
                return beside, without

            until(lambda: counted() == (3, 0), "ours are counted")


def _number(words: str | None) -> int:
    """The first number in what a signal says."""
    return int("".join(letter for letter in (words or "0").partition(",")[0] if letter.isdigit()))


def test_a_busy_server(seeing: Legacy, database: Database) -> None:
    with at_work(database, "SELECT pg_sleep(300)", 3), moving(seeing, max_active_sessions=2, workers=3) as going:
        going.is_held("max-active-sessions")
        assert "the limit is 2" in going.told("held_detail")
        order(seeing, "max-active-sessions=none")
        assert going.result().moved == 400


def test_the_rate_of_wal(start_server: StartServer) -> None:
    """Somebody else's WAL counts; after a while of quiet it goes on. On a server that no other test writes to."""
    legacy = build(start_server().url())
    legacy.many_executions(4000)
    with moving(legacy, max_wal_rate=1 << 40, batch_rows=10, rows_per_second=20) as going:
        until(lambda: going.moved() > 0, "it does not move")
        order(legacy, "max-wal-rate=100kB")
        with psycopg.connect(legacy.url, autocommit=True) as other:
            end = threading.Event()

            def write() -> None:
                while not end.wait(0.05):
                    other.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000))")

            writer = threading.Thread(target=write)
            writer.start()
            try:
                going.is_held("max-wal-rate")
                assert "bytes of WAL a second, the limit is 102,400" in going.told("held_detail")
            finally:
                end.set()
                writer.join()
        at = going.moved()
        until(lambda: going.moved() > at, "it does not go on")


def test_a_pause_file(legacy: Legacy, tmp_path: Path) -> None:
    file = tmp_path / "hold"
    file.touch()
    with moving(legacy, pause_file=str(file)) as going:
        going.is_held("pause-file")
        assert str(file) in going.told("held_detail")
        assert going.moved() == 0
        file.unlink()
        assert going.result().moved == 400


def test_a_folder_of_the_pause_file_that_is_not_there(legacy: Legacy, tmp_path: Path) -> None:
    """A file that is never found would pause nothing."""
    with pytest.raises(ConfigurationError, match=r"no folder .*nowhere for the pause file"):
        legacy.move(pause_file=str(tmp_path / "nowhere" / "hold"))


def test_a_pause_file_that_cannot_be_looked_for_holds(legacy: Legacy, tmp_path: Path) -> None:
    """The folder turns into something that is none while the run is going."""
    folder = tmp_path / "folder"
    folder.mkdir()
    with moving(legacy, pause_file=str(folder / "hold"), batch_rows=5, rows_per_second=20) as going:
        until(lambda: going.moved() > 0, "it does not move")
        folder.rmdir()
        folder.touch()
        going.is_held("pause-file")
        assert "it cannot be read" in going.told("held_detail")
        folder.unlink()
        order(legacy, "rows-per-second=none", "batch-size=auto")
        assert going.result().moved == 400


def test_pause_and_resume_while_it_is_going(legacy: Legacy) -> None:
    with moving(legacy, batch_rows=5, rows_per_second=20, workers=2) as going:
        until(lambda: going.moved() > 0, "it does not move")
        order(legacy, "pause")
        going.is_held("pause")
        at = going.moved()
        until(lambda: _stands_still(legacy, going), "it goes on, or a transaction is open while it waits")
        with connect(legacy.url) as connection:
            (status,) = look(connection)
        assert (status.held_by, status.paused_by) == ("pause", legacy.value("SELECT session_user"))
        # The other worker may have been before its batch when the first one saw the pause.
        until(lambda: _open_transactions(legacy) == 0, "a transaction is open while it waits")
        assert going.moved() <= at + 5
        order(legacy, "rows-per-second=none", "batch-size=auto")
        order(legacy, "resume")
        assert going.result().moved == 400
    with connect(legacy.url) as connection:
        (status,) = look(connection)
    assert (status.held_by, status.paused_at, status.settings) == (
        None, None, {"batch-size": None, "rows-per-second": None},
    )  # fmt: skip
    assert legacy.rows("SELECT action FROM spine_migrate.audit ORDER BY audit_id") == [
        ("backfill started",), ("paused",), ("settings changed",), ("resumed",), ("backfill done",),
    ]  # fmt: skip


def test_who_is_paused_can_be_stopped(legacy: Legacy) -> None:
    legacy.move(limit=100)
    order(legacy, "pause")
    with moving(legacy) as going:
        going.is_held("pause")
        going.stop.set()
        outcome = going.result()
    assert (outcome.state, outcome.rows, outcome.moved) == ("interrupted", 0, 100)
    assert going.told("held_by") is None, "nobody is at work"
    assert going.told("paused_at"), "the next run waits too"


def test_events_wait_with_their_executions(legacy: Legacy) -> None:
    """Whoever pauses what is there does not see what begins next."""
    legacy.move()
    order(legacy, "pause")
    with moving(legacy, entity="execution_events") as going:
        until(lambda: going.held == ["pause"], "it goes on")
        until(lambda: going.told("held_detail", 2), "the ledger does not say so")
        assert "with migration 1" in going.told("held_detail", 2)
        order(legacy, "resume")
        assert going.result().state == "done"


def test_settings_reach_the_next_batch(legacy: Legacy) -> None:
    legacy.many_executions(3000, first=1000)
    with moving(legacy, batch_rows=5, rows_per_second=20) as going:
        until(lambda: going.moved() > 0, "it does not move")
        order(legacy, "batch-size=700", "rows-per-second=none")
        assert going.result().moved == 3400
    sizes = {size for (size,) in legacy.rows("SELECT DISTINCT batch_size FROM spine_migrate.checkpoint")}
    assert 700 in sizes


def test_a_rest_ends_when_less_of_it_is_asked_for(legacy: Legacy) -> None:
    """Each batch takes some milliseconds, so a worker would rest for as many seconds."""
    legacy.many_executions(3000, first=1000)
    with moving(legacy, batch_rows=5, nice_ratio=1000, workers=1) as going:
        until(lambda: going.moved() > 0, "it does not move")
        at = going.moved()
        assert at < 50
        order(legacy, "batch-size=auto", "nice-ratio=0")
        assert going.result().moved == 3400


def test_the_pass_that_completes_links_waits_too(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    built = build(database)
    for number in range(1, 21):
        built.executions(number, parent_execution_id=uuid(100 + number))
    built.many_executions(20, first=101)
    stage = Pace.stage

    def pause_before_links(pace: Pace, name: str) -> None:
        stage(pace, name)
        if name == "links":
            order(built, "pause")

    monkeypatch.setattr(Pace, "stage", pause_before_links)
    monkeypatch.setattr(links, "BATCH", 1)
    monkeypatch.setattr(throttle, "INTERVAL", 0.0)
    with moving(built, batch_rows=5, workers=1) as going:
        going.is_held("pause")
        assert built.value("SELECT count(*) FROM runs WHERE parent_run_id IS NOT NULL") < 20
        assert _open_transactions(built) == 0
        order(built, "resume")
        assert going.result().state == "done"
    built.prove()


def test_settings_of_another_version_hold_it_back(legacy: Legacy) -> None:
    """At the start they are an error; while it is going a reason to wait."""
    with moving(legacy, batch_rows=5, rows_per_second=20) as going:
        until(lambda: going.moved() > 0, "it does not move")
        legacy.execute("UPDATE spine_migrate.control SET settings = '{\"max-temperature\": 90}'")
        going.is_held("pause")
        assert "'max-temperature' that this version does not know" in going.told("held_detail")
    with pytest.raises(ConfigurationError, match="max-temperature"):
        legacy.move()


@pytest.mark.parametrize("limit", ["max_lag_bytes", "max_active_sessions"])
def test_a_signal_that_the_role_may_not_see_is_an_error(legacy: Legacy, limit: str) -> None:
    asked: dict[str, Any] = {limit: 1 << 40}
    with pytest.raises(Refused, match="GRANT pg_read_all_stats") as refused:
        legacy.move(**asked)
    assert refused.value.precondition == "signal-unreadable"
    assert legacy.value("SELECT count(*) FROM runs") == 0


def test_a_signal_that_fails_later_holds_it_back(seeing: Legacy, database: Database) -> None:
    name = sql.Identifier(database.owner.name)
    with moving(seeing, max_active_sessions=1000, batch_rows=5, rows_per_second=20) as going:
        until(lambda: going.moved() > 0, "it does not move")
        with database.connect_admin(autocommit=True) as admin:
            admin.execute(sql.SQL("REVOKE pg_read_all_stats FROM {}").format(name))
            going.is_held("max-active-sessions")
            assert "it cannot be read: The role may not see" in going.told("held_detail")
            admin.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(name))
        order(seeing, "rows-per-second=none", "batch-size=auto")
        assert going.result().moved == 400


def test_an_older_ledger_takes_no_orders_and_moves_as_before(legacy: Legacy) -> None:
    schema.downgrade(legacy.url, revision="spine_0006")
    assert legacy.move(limit=100).moved == 100
    with pytest.raises(Refused, match="db upgrade") as refused:
        order(legacy, "pause")
    assert refused.value.precondition == "ledger-outdated"
    with connect(legacy.url) as connection:
        assert [one.held_by for one in look(connection)] == [None]
    assert legacy.move().moved == 400
