"""quarantine and undo as a user meets them: what they print, their exit codes, being killed and going on."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from spine_migrate.db import schema
from tests.command import environment, run, start
from tests.database import Database
from tests.generated import Rows, install

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def moved(database: Database) -> Database:
    """The demonstration, moved; its keys and statuses are those of its catalogue."""
    database.arrange(move, Rows(1500, seed=3, jobs=100))
    return database


def move(url: str, rows: Rows) -> None:
    install(url, rows)
    assert run(url, "executions-to-runs", "--quiet").returncode == 1


def value(database: Database, statement: str) -> int:
    with database.connect() as connection:
        row = connection.execute(statement).fetchone()
    assert row is not None
    return int(row[0])


def in_quarantine(database: Database) -> int:
    return value(database, "SELECT count(*) FROM spine_migrate.quarantine WHERE discarded_at IS NULL")


def test_list_counts_first_and_then_shows_rows(moved: Database) -> None:
    shown = run(moved.url, "quarantine", "list", "--limit", "3")
    assert shown.returncode == 0
    assert re.search(r"^capture-spine/executions \(migration 1\)$", shown.stdout, re.MULTILINE)
    assert re.search(r"^  unknown_value +\d+$", shown.stdout, re.MULTILINE)
    assert len(re.findall(r"^id:\d+ ", shown.stdout, re.MULTILINE)) == 3
    listed = json.loads(run(moved.url, "quarantine", "list", "--json", "--reason", "too_long").stdout)
    assert sum(one["open"] for one in listed["counts"]) == value(
        moved, "SELECT count(*) FROM spine_migrate.quarantine WHERE reason = 'too_long'"
    )
    assert {row["reason"] for row in listed["rows"]} == {"too_long"}


def test_show_gives_the_row_and_what_it_collides_with(moved: Database) -> None:
    with moved.connect() as connection:
        row = connection.execute(
            "SELECT quarantine_id, source_key, source_row, colliding_row FROM spine_migrate.quarantine"
            " WHERE constraint_name = 'uq_idempotency' ORDER BY 1 LIMIT 1"
        ).fetchone()
    assert row is not None
    number, key, source_row, colliding_row = row
    by_key = json.loads(run(moved.url, "quarantine", "show", key, "--json").stdout)
    assert json.loads(run(moved.url, "quarantine", "show", f"id:{number}", "--json").stdout) == by_key
    assert by_key["source_row"] == source_row
    assert by_key["colliding_row"] == colliding_row == by_key["colliding_now"]
    assert by_key["colliding_row"]["idempotency_key"] == source_row["idempotency_key"]
    assert by_key["sqlstate"] == "23505"
    text = run(moved.url, "quarantine", "show", key).stdout
    assert "constraint  uq_idempotency" in text
    assert 'collides with this row of "public"."runs"' in text
    absent = run(moved.url, "quarantine", "show", "id:999999")
    assert absent.returncode == 2
    assert absent.stderr.startswith("spine-migrate: There is no row id:999999 in quarantine")


def test_export_is_complete_in_both_formats(moved: Database, tmp_path: Path) -> None:
    """What cannot go through a Python value, numbers of 400 digits, comes out as it is."""
    with moved.connect() as connection:
        rows = connection.execute(
            "SELECT source_key, source_row::text FROM spine_migrate.quarantine ORDER BY quarantine_id"
        ).fetchall()
    lines = run(moved.url, "quarantine", "export").stdout.splitlines()
    assert [json.loads(line)["source_key"] for line in lines] == [key for key, _ in rows]
    assert all(text in line for line, (_, text) in zip(lines, rows, strict=True))
    file = tmp_path / "rows.csv"
    done = run(moved.url, "quarantine", "export", "--format", "csv", "--output", str(file))
    assert f"{len(rows):,} rows exported to {file}" in done.stderr
    with file.open(encoding="utf-8", newline="") as stream:
        assert [(row["source_key"], row["source_row"]) for row in csv.DictReader(stream)] == rows
    assert [one.name for one in tmp_path.iterdir()] == ["rows.csv"]


def test_mend_retry_discard_until_nothing_is_open(moved: Database) -> None:
    """Exit codes all the way; status follows."""
    assert run(moved.url, "quarantine", "retry", "--reason", "unknown_value").returncode == 1
    with moved.connect() as connection:
        connection.execute("UPDATE executions SET status = 'failed' WHERE NOT status = ANY (%s)", (
            ["pending", "queued", "running", "completed", "failed", "cancelled"],
        ))  # fmt: skip
        connection.execute("UPDATE execution_events SET event_type = 'progress' WHERE length(event_type) > 14"
                           " OR event_type IN ('', 'STARTED', 'oom-killed', 'progress_v2')")  # fmt: skip
    held = in_quarantine(moved)
    retried = run(moved.url, "quarantine", "retry", "--reason", "unknown_value", "--json")
    outcome = json.loads(retried.stdout)
    assert outcome["clean"] == (retried.returncode == 0)
    assert sum(one["moved"] for one in outcome["migrations"] if one["follows"]) > 0
    assert in_quarantine(moved) == held - sum(one["moved"] for one in outcome["migrations"])
    assert run(moved.url, "compare").returncode == 0
    assert run(moved.url, "status").returncode == 1

    asked = run(moved.url, "quarantine", "discard", "--reason", "orphan")
    assert (asked.returncode, in_quarantine(moved) > 0) == (4, True)
    with moved.connect() as connection:
        reasons = [row[0] for row in connection.execute("SELECT DISTINCT reason FROM spine_migrate.quarantine")]
    discarded = run(moved.url, "quarantine", "discard", "--yes", *(f"--reason={reason}" for reason in reasons))
    assert discarded.returncode == 0
    assert "stays in quarantine, whole" in discarded.stdout
    assert in_quarantine(moved) == 0
    assert run(moved.url, "status").returncode == 0
    assert run(moved.url, "quarantine", "retry", "--all").returncode == 0
    assert value(moved, "SELECT count(*) FROM spine_migrate.audit WHERE action = 'quarantine discarded'") == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("quarantine", "retry"), "Say which rows: --reason, --key, or --all."),
        (("quarantine", "retry", "--all", "--key", "x"), "--all is all rows"),
        (("quarantine", "discard"), "Say which rows: their keys, or --reason."),
        (("quarantine", "list", "--migration", "7"), "The ledger has no migration 7 that is not undone."),
        (("quarantine", "list", "--mapping", "capture-spine/job"), "did you mean 'capture-spine/jobs'"),
        (("undo",), "Say what to undo: --mapping for one or more migrations, or --all."),
        (("undo", "--all", "--mapping", "capture-spine/jobs"), "Say what to undo"),
        (("undo", "--mapping", "capture-spine/jobs"), "The ledger has no migration of capture-spine/jobs"),
    ],
)
def test_usage(database: Database, words: tuple[str, ...], sentence: str) -> None:
    database.arrange(schema.upgrade)
    done = run(database.url, *words)
    assert done.returncode == 2
    assert sentence in done.stderr


@pytest.mark.parametrize(
    "words", [("quarantine", "list"), ("quarantine", "retry", "--all"), ("undo", "--all", "--yes")]
)
def test_without_a_ledger(database: Database, words: tuple[str, ...]) -> None:
    done = run(database.url, *words)
    assert (done.returncode, done.stdout) == (3, "")
    assert "run spine-migrate db upgrade first" in done.stderr


def test_undo_asks_and_then_removes_everything(moved: Database) -> None:
    planned = run(moved.url, "undo", "--all", "--dry-run")
    assert planned.returncode == 0
    assert "capture-spine/execution_events: would be undone (migration 2)" in planned.stdout
    asked = run(moved.url, "undo", "--all")
    assert asked.returncode == 4
    assert "rows from the target?" in asked.stderr
    assert value(moved, "SELECT count(*) FROM runs") > 0
    done = run(moved.url, "undo", "--all", "--yes")
    assert done.returncode == 0, done.stderr
    assert value(moved, "SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM run_events)") == 0
    assert run(moved.url, "undo", "--all", "--yes").stdout == "There is nothing to undo.\n"
    shown = run(moved.url, "status", "--all")
    assert shown.returncode == 0, shown.stderr
    assert "undone" in shown.stdout


def test_rows_that_are_left_are_named_with_what_to_do(moved: Database) -> None:
    with moved.connect() as connection:
        connection.execute(
            "UPDATE run_events SET data = '1' WHERE event_id = (SELECT min(event_id::text)::uuid FROM run_events)"
        )
    done = run(moved.url, "undo", "--all", "--yes")
    assert done.returncode == 1
    assert re.search(r"^  left +1  changed: changed since they were moved$", done.stdout, re.MULTILINE)
    assert re.search(r"^  left +1  has_foreign_events: have events that stay$", done.stdout, re.MULTILINE)
    assert "--leave" in done.stdout
    refused = run(moved.url, "executions-to-runs")
    assert refused.returncode == 3
    assert "is being undone" in refused.stderr
    result = json.loads(run(moved.url, "undo", "--all", "--yes", "--leave", "--json").stdout)
    assert [one["state"] for one in result["migrations"]] == ["undone", "undone"]


@pytest.mark.parametrize("words", [("undo", "--all", "--yes"), ("quarantine", "retry", "--all")])
def test_killed_in_the_middle_the_same_command_goes_on(database: Database, words: tuple[str, ...]) -> None:
    database.arrange(move, Rows(6000, seed=3, awkward=20))
    with database.connect() as connection:
        connection.execute("UPDATE executions SET pipeline_name = 'mended' WHERE length(pipeline_name) > 100")
        connection.execute("UPDATE executions SET status = 'failed' WHERE status IS NULL")
    before = value(database, "SELECT count(*) FROM runs")
    victim = start(database.url, *words)
    deadline = time.monotonic() + 60
    while value(database, "SELECT count(*) FROM runs") == before and time.monotonic() < deadline:
        time.sleep(0.01)
    victim.kill()
    victim.communicate(timeout=60)
    _no_session_is_left(database)
    if words[0] == "undo":
        done = run(database.url, *words)
        assert done.returncode == 0, done.stdout
        assert value(database, "SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM run_events)") == 0
    else:
        run(database.url, *words)
        assert run(database.url, "compare").returncode == 0
    counted = value(database, "SELECT coalesce(sum(rows_moved + rows_adopted), 0) FROM spine_migrate.checkpoint")
    assert counted == value(database, "SELECT (SELECT count(*) FROM runs) + (SELECT count(*) FROM run_events)")


def _no_session_is_left(database: Database) -> None:
    """The server notices that a client is gone at its next word; until then the client's lock is held."""
    deadline = time.monotonic() + 60
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        while time.monotonic() < deadline:
            ((left,),) = admin.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = %s",
                (database.owner.name,),
            ).fetchall()
            if not left:
                return
            time.sleep(0.05)
    pytest.fail("a session of the killed command is still there")


@pytest.mark.parametrize("name", ["quarantine", "undo"])
def test_the_commands_of_the_runbook_run(moved: Database, tmp_path: Path, name: str) -> None:
    """Every block marked ``sh``, in order, on a database with rows in quarantine; 1 is the exit code that says so."""
    runbook = (REPOSITORY / "runbooks" / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", runbook, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    for line in (line.strip() for block in blocks for line in block.splitlines()):
        done = subprocess.run(
            ["/bin/sh", "-c", line],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(moved.url),
            timeout=240,
        )
        assert done.returncode in (0, 1), f"{line}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, line
    if name == "quarantine":
        assert (tmp_path / "quarantine.csv").exists()
    else:
        assert run(moved.url, "compare").returncode == 0
