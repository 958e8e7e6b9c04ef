"""executions-to-runs and jobs-to-runs as a user meets them: output, exit codes, stopping and going on."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import psycopg
import pytest

from spine_migrate.db import schema
from tests.command import run, start
from tests.database import Database
from tests.generated import generated


def fill(database: Database, executions: int, *, events: float = 4, awkward: float = 1.0) -> None:
    generated(database, executions=executions, seed=3, jobs=executions // 5, events=events, awkward=awkward)


def scalar(database: Database, statement: str) -> int:
    with database.connect() as connection:
        row = connection.execute(statement).fetchone()
    assert row is not None
    return int(row[0])


def test_moves_everything_and_says_so(database: Database) -> None:
    """Clean data: exit 0, the counts on stdout, nothing but progress on stderr."""
    fill(database, 1000, awkward=0)
    done = run(database.url, "executions-to-runs")
    assert done.returncode == 0, done.stderr
    assert "capture-spine/executions: done (migration 1)" in done.stdout
    assert scalar(database, "SELECT count(*) FROM runs") == 1000
    again = run(database.url, "executions-to-runs")
    assert again.returncode == 0
    assert again.stdout.count("nothing to do") == 2


def test_json_is_one_document(database: Database) -> None:
    """--json leaves nothing else on stdout; quarantined rows give exit code 1."""
    fill(database, 1000)
    done = run(database.url, "executions-to-runs", "--json", "--quiet")
    assert done.returncode == 1
    assert done.stderr == ""
    report = json.loads(done.stdout)
    executions, events = report["migrations"]
    assert report["format"] == 1
    assert executions["moved"] + sum(executions["quarantined"].values()) == executions["source_rows"] == 1000
    assert events["moved"] + sum(events["quarantined"].values()) == events["source_rows"]
    jobs = json.loads(run(database.url, "jobs-to-runs", "--json").stdout)["migrations"][0]
    assert jobs["moved"] + sum(jobs["quarantined"].values()) == jobs["source_rows"] == 200


def test_limit_stops_exactly_there_and_goes_on(database: Database) -> None:
    """--limit N moves N rows, not one more; the events wait until all executions are through."""
    fill(database, 3000, events=1, awkward=0)
    first = json.loads(run(database.url, "executions-to-runs", "--limit", "1234", "--json").stdout)["migrations"]
    assert [(one["state"], one["rows"]) for one in first] == [("limit", 1234)]
    assert scalar(database, "SELECT count(*) FROM runs") == 1234
    rest = json.loads(run(database.url, "executions-to-runs", "--json").stdout)["migrations"]
    assert [one["state"] for one in rest] == ["done", "done"]
    assert scalar(database, "SELECT count(*) FROM runs") == 3000


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_batch(database: Database, number: signal.Signals) -> None:
    """Exit code 4, a sentence on how to go on, and the same command goes on."""
    fill(database, 6000, events=0, awkward=0)
    moving = start(
        database.url, "executions-to-runs", "--batch-size", "50", "--max-rows-per-second", "100", "--no-events"
    )
    deadline = time.monotonic() + 60
    while scalar(database, "SELECT count(*) FROM runs") == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    moving.send_signal(number)
    out, err = moving.communicate(timeout=60)
    assert moving.returncode == 4, err
    assert "Stopping after the current batch" in err
    assert "run the same command to go on" in out
    moved = scalar(database, "SELECT count(*) FROM runs")
    assert 0 < moved < 6000
    assert moved == scalar(database, "SELECT sum(rows_moved) FROM spine_migrate.checkpoint")
    assert run(database.url, "executions-to-runs", "--no-events").returncode == 0
    assert scalar(database, "SELECT count(*) FROM runs") == 6000


# A session that asks for the lock again and again.
_WAITS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'spine-migrate' AND query LIKE '%pg_try_advisory_lock(%'"
    " AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.pid = pg_stat_activity.pid AND l.locktype = 'advisory')"
)


def test_two_at_once(database: Database) -> None:
    """The second is refused by name, or waits on request and then finds nothing to do."""
    fill(database, 4000, events=0, awkward=0)
    # So slow that it is at work until it is told to go on.
    first = start(
        database.url, "executions-to-runs", "--batch-size", "50", "--max-rows-per-second", "20", "--no-events"
    )
    deadline = time.monotonic() + 60
    while scalar(database, "SELECT count(*) FROM runs") == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    refused = run(database.url, "executions-to-runs")
    assert refused.returncode == 3
    assert refused.stderr.startswith("spine-migrate: Another run is at work on capture-spine/executions")
    waiting = start(database.url, "executions-to-runs", "--wait", "--no-events")
    while not scalar(database, _WAITS) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert run(database.url, "set", "rows-per-second=none").returncode == 0
    waited, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert "nothing to do" in waited
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0, err


def test_offline(database: Database) -> None:
    """The same rows, indexes and constraints; refused on a table that has rows."""
    fill(database, 1000)
    with database.connect() as connection:
        before = _objects(connection)
    done = run(database.url, "executions-to-runs", "--offline")
    assert done.returncode == 1, done.stderr
    with database.connect() as connection:
        assert _objects(connection) == before
        (unequal,) = connection.execute(
            "SELECT count(*) FROM executions e FULL JOIN runs r ON r.run_id = e.execution_id"
            " WHERE NOT coalesce(e.pipeline_name = r.name, false) AND NOT EXISTS"
            " (SELECT FROM spine_migrate.quarantine q WHERE q.source_key = e.execution_id::text)"
        ).fetchone() or (None,)
    assert unequal == 0
    assert run(database.url, "compare").returncode == 0
    refused = run(database.url, "jobs-to-runs", "--offline")
    assert refused.returncode == 3
    assert "runs" in refused.stderr
    assert "needs an empty target" in refused.stderr


def _objects(connection: psycopg.Connection[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Constraints by definition, indexes by name: a predicate that is printed and parsed again is printed otherwise."""
    return connection.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid IN ('runs'::regclass, 'run_events'::regclass)"
        " UNION ALL SELECT relname, 'valid' FROM pg_index JOIN pg_class ON oid = indexrelid"
        " WHERE indrelid IN ('runs'::regclass, 'run_events'::regclass) AND indisvalid ORDER BY 1, 2"
    ).fetchall()


def test_a_mapping_of_ones_own(database: Database, tmp_path: Path) -> None:
    """A file outside of the shipped ones works the same way, for tables that the tool has never heard of."""
    with database.connect() as connection:
        connection.execute('CREATE TABLE "Old Runs %" ("Id" bigint PRIMARY KEY, "what" text NOT NULL, done boolean)')
        connection.execute("INSERT INTO \"Old Runs %\" VALUES (1, 'a', true), (2, 'b', false), (3, 'c', NULL)")
        connection.commit()
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "old.toml").write_text(
        """
[source]
table = "Old Runs %"
key = "Id"
[source.columns]
Id = { type = "bigint", not_null = true }
what = { type = "text", not_null = true }
done = { type = "boolean" }
[target]
table = "runs"
[fields.run_id]
copy = "Id"
uuid = "mine/old"
keep = "metadata.old.id"
[fields.kind]
constant = "task"
[fields.name]
copy = "what"
[fields.status]
copy = "done"
default = false
keep = "metadata.old.done"
[fields.status.values]
true = "completed"
false = "pending"
[fields."metadata.origin"]
origin = true
""",
        encoding="utf-8",
    )
    schema.upgrade(database.url)
    done = run(database.url, "jobs-to-runs", "--mapping", str(folder / "old.toml"))
    assert done.returncode == 0, done.stderr
    with database.connect() as connection:
        rows = connection.execute("SELECT name, status, metadata FROM runs ORDER BY name").fetchall()
    assert rows == [
        ("a", "completed", {"old": {"id": 1}, "origin": "mine/old"}),
        ("b", "pending", {"old": {"id": 2}, "origin": "mine/old"}),
        ("c", "pending", {"old": {"id": 3, "done": None}, "origin": "mine/old"}),
    ]
