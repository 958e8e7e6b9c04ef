"""What watch reads: the application's writes, sessions that wait, changes not applied, what holds a run back."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from spine_migrate.carry import activity
from spine_migrate.cli import main
from spine_migrate.db.connect import connect
from spine_migrate.notices import Waits
from spine_migrate.observe import waits
from spine_migrate.observe.waits import watched
from tests.database import Database
from tests.grants import SCHEMAS, apart, give
from tests.legacy import Legacy, build
from tests.observers import Heard, Remembering
from tests.syncing import move_live
from tests.waiting import LONGEST, WAITING, until


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def look(legacy: Legacy) -> activity.Activity:
    """Of the only migration."""
    with connect(legacy.url) as connection:
        (found,) = activity.look(connection).values()
    return found


def written(legacy: Legacy, at_least: int) -> int:
    """Statistics come a moment after the commit; those of an idle session in ten seconds, unless it is told."""
    legacy.value("SELECT pg_stat_force_next_flush()")
    end = time.monotonic() + 60
    while (writes := look(legacy).source_writes) < at_least:
        assert time.monotonic() < end, f"{writes} of {at_least} writes"
        time.sleep(0.02)
    return writes


def test_nothing_to_watch(database: Database) -> None:
    done = CliRunner().invoke(main, ["watch", "--once", "--target", database.url])
    assert done.exit_code == 3
    assert "spine-migrate db upgrade" in done.stderr
    build(database)
    done = CliRunner().invoke(main, ["watch", "--once", "--target", database.url])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.endswith("No migration has been started in this database.\n")


def test_every_kind_of_write_of_the_application_counts(legacy: Legacy) -> None:
    """INSERT, UPDATE and DELETE on the source; reading it and writing the target do not count."""
    legacy.executions(*range(100))
    legacy.move()
    before = written(legacy, 100)
    assert before == 100
    legacy.execute("UPDATE executions SET lane = 'other'")
    legacy.execute("DELETE FROM executions WHERE execution_id > %s", "00000000-0000-4000-8000-000000000089")
    assert written(legacy, 210) == 210


def test_writes_of_partitions_count(database: Database) -> None:
    legacy = build(database)
    legacy.execute("DROP TABLE execution_events")
    legacy.execute("ALTER TABLE executions RENAME TO flat")
    legacy.execute("CREATE TABLE executions (LIKE flat INCLUDING DEFAULTS) PARTITION BY HASH (execution_id)")
    legacy.execute("CREATE TABLE one PARTITION OF executions FOR VALUES WITH (MODULUS 2, REMAINDER 0)")
    legacy.execute("CREATE TABLE two PARTITION OF executions FOR VALUES WITH (MODULUS 2, REMAINDER 1)")
    legacy.execute("ALTER TABLE executions ADD PRIMARY KEY (execution_id)")
    legacy.executions(*range(50))
    legacy.move()
    assert written(legacy, 50) == 50


@pytest.mark.parametrize("table", ["executions", "runs"])
def test_who_waits_for_a_lock_on_either_table_is_counted(legacy: Legacy, table: str) -> None:
    """Waiting for the table, and waiting for a row of it; who waits elsewhere does not count."""
    legacy.executions(1, 2)
    legacy.execute("CREATE TABLE elsewhere (a int)")
    legacy.move()
    assert (look(legacy).lock_waits, look(legacy).longest_wait) == (0, 0)
    named = {"table": sql.Identifier(table)}
    row = sql.SQL("DELETE FROM {table}").format(**named)
    whole = sql.SQL("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE").format(**named)
    with legacy.connect() as holding:
        holding.execute("BEGIN")
        holding.execute(row)
        holding.execute("LOCK TABLE elsewhere")
        statements = (row, whole, sql.SQL("TABLE elsewhere"))
        waiting = [threading.Thread(target=_wait, args=(legacy, statement)) for statement in statements]
        for one in waiting:
            one.start()
        end = time.monotonic() + 60
        while look(legacy).lock_waits < 2 or look(legacy).longest_wait <= 0:
            assert time.monotonic() < end
            time.sleep(0.02)
        with legacy.connect() as connection:
            while len(connection.execute(WAITING).fetchall()) != 3:
                assert time.monotonic() < end
        assert look(legacy).lock_waits == 2
        holding.execute("ROLLBACK")
    for one in waiting:
        one.join(60)
    assert look(legacy).lock_waits == 0


def _wait(legacy: Legacy, statement: sql.SQL | sql.Composed) -> None:
    with psycopg.connect(legacy.url) as connection:
        connection.execute(statement)
        connection.rollback()


def _captured(legacy: Legacy) -> None:
    legacy.execute(
        "INSERT INTO spine_migrate.capture (migration_id, direction, relation, style, tool_version)"
        " SELECT migration_id, d, source_table, 'statement', 'x' FROM spine_migrate.migration,"
        " unnest(ARRAY['forward', 'reverse']) d"
    )
    legacy.execute(
        "INSERT INTO spine_migrate.change_log (capture_id, row_key, at) SELECT capture_id, n::text,"
        " now() - interval '1 minute' * n FROM spine_migrate.capture, generate_series(1, 3) n"
        " WHERE direction = 'forward'"
    )


def _followed(legacy: Legacy) -> None:
    """Moved and captured, with three changes that nobody has applied."""
    move_live(legacy)
    legacy.execute(
        "INSERT INTO spine_migrate.change_log (capture_id, row_key)"
        " SELECT capture_id, n::text FROM spine_migrate.capture, generate_series(1, 3) n"
    )


def test_waits_are_looked_at_for_the_metrics(legacy: Legacy, database: Database) -> None:
    """A role that may not look is told so, once."""
    legacy.move("executions")
    seen, heard = Remembering(), Heard()
    with legacy.connect() as first, legacy.connect() as second:
        first.autocommit = second.autocommit = False
        first.execute("LOCK TABLE runs")
        waiting = threading.Thread(target=second.execute, args=("LOCK TABLE runs",))
        waiting.start()
        with watched(legacy.url, seen, heard):
            end = time.monotonic() + 60
            while not any(notice.sessions == 1 for notice in seen.of(Waits)):
                assert time.monotonic() < end
                time.sleep(0.05)
        first.rollback()
        waiting.join()
    assert heard.said == []
    with watched(database.url_as(database.add_role("nobody")), seen, heard):
        until(lambda: heard.said, "nothing is said")
    assert [event for _, event, _ in heard.said] == ["metrics"]


def test_a_command_that_is_over_at_once_was_looked_at_too(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the metrics of a short one would lack what those of a long one have."""
    # It is for so long that the end waits for a look that has begun.
    monkeypatch.setattr(waits, "SECONDS", LONGEST)
    legacy.move()
    seen, heard = Remembering(), Heard()
    with watched(legacy.url, seen, heard):
        pass
    assert [(notice.sessions, notice.seconds) for notice in seen.of(Waits)] == [(0, 0)]
    assert heard.said == []


def test_lag_is_what_is_captured_and_not_applied(legacy: Legacy) -> None:
    legacy.executions(1)
    legacy.move()
    assert look(legacy).lags == {}
    _captured(legacy)
    lags = look(legacy).lags
    assert (lags["forward"].entries, lags["forward"].deferred) == (3, 0)
    assert 60 <= lags["forward"].seconds < 600
    assert lags["reverse"].nothing


def _watched(legacy: Legacy) -> dict[str, Any]:
    done = CliRunner().invoke(main, ["watch", "--once", "--json", "--target", legacy.url])
    assert done.exit_code == 0, done.stderr
    (one,) = json.loads(done.stdout)["migrations"]
    return dict(one)


def test_once_as_json_and_as_a_line(legacy: Legacy) -> None:
    """What status says, and what goes on around it."""
    legacy.executions(*range(10))
    _followed(legacy)
    legacy.execute(
        "INSERT INTO spine_migrate.control (migration_id, held_by, held_detail, held_since)"
        " SELECT migration_id, 'replica_lag', '40 MB behind', now() FROM spine_migrate.migration"
        " ON CONFLICT (migration_id) DO UPDATE SET held_by = EXCLUDED.held_by, held_detail = EXCLUDED.held_detail,"
        " held_since = EXCLUDED.held_since"
    )
    one = _watched(legacy)
    assert (one["step"], one["percent"], one["rows_moved"], one["at_work"]) == ("done", 100.0, 10, False)
    assert one["application_writes_per_second"] >= 0
    assert (one["lock_waits"], one["longest_wait_seconds"]) == (0, 0)
    assert {direction: lag["entries"] for direction, lag in one["lag"].items()} == {"forward": 3}
    assert (one["held_by"], one["held_detail"], one["paused_at"]) == ("replica_lag", "40 MB behind", None)
    line = CliRunner().invoke(main, ["watch", "--once", "--target", legacy.url]).stdout
    assert line.count("\n") == 1
    for part in (
        "migration 1  capture-spine/executions: done 100.0%, nobody is at work",
        "10 rows on the target",
        "forward lag 3 changes",
        "held by replica_lag (40 MB behind) since",
        "0 waiting for locks",
        "application writes",
    ):
        assert part in line
    legacy.execute("UPDATE spine_migrate.control SET paused_at = now(), paused_by = 'ada'")
    assert _watched(legacy)["paused_by"] == "ada"
    assert "paused by ada at" in CliRunner().invoke(main, ["watch", "--once", "--target", legacy.url]).stdout


def test_rows_in_quarantine_are_its_exit_code(legacy: Legacy) -> None:
    legacy.executions(1, status="no such status")
    legacy.move()
    done = CliRunner().invoke(main, ["watch", "--once", "--target", legacy.url])
    assert done.exit_code == 1
    assert "1 in quarantine (unknown_value 1)" in done.stdout


@pytest.mark.parametrize("command", ["watch", "status"])
def test_the_grants_are_enough_and_needed(database: Database, command: str) -> None:
    """The schemas of the tables themselves are closed to the role."""
    legacy = apart(database)
    legacy.executions(1)
    _followed(legacy)
    role = database.add_role("watcher")
    words = [command, *(["--once"] if command == "watch" else []), "--target", database.url_as(role)]
    for held in give(database, role, command, *SCHEMAS):
        with database.connect(autocommit=True) as owner:
            owner.execute(held.revoke)
            assert CliRunner().invoke(main, words).exit_code == 3, f"not needed: {held.name}"
            owner.execute(held.grant)
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.stderr) == (0, "")
