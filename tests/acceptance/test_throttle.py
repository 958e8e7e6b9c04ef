"""pause, resume and set from another terminal while the installed command moves; and the runbook."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from spine_migrate.backfill.status import look
from spine_migrate.db.connect import connect
from tests.acceptance.test_documents import commands
from tests.command import environment, run, start
from tests.database import Database
from tests.generated import generated
from tests.legacy import prove
from tests.waiting import until

_PATIENCE = 60.0
MOVE = ("executions-to-runs", "--no-events", "--batch-size", "20", "--max-rows-per-second", "200")


@pytest.fixture
def filled(database: Database) -> Database:
    generated(database, executions=3000, seed=5, events=1, awkward=0)
    return database


def moved(database: Database) -> int:
    with database.connect() as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM runs").fetchall()
    return int(count)


def until_moved(database: Database, rows: int, moving: subprocess.Popen[str]) -> None:
    end = time.monotonic() + _PATIENCE
    while moved(database) < rows:
        assert moving.poll() is None, moving.communicate()
        assert time.monotonic() < end, "it does not move"
        time.sleep(0.02)


def status(database: Database) -> dict[str, Any]:
    (found,) = json.loads(run(database.url, "status", "--json").stdout)["migrations"]
    return dict(found)


def until_held(database: Database, by: str) -> dict[str, Any]:
    """What ``status`` says then."""
    end = time.monotonic() + _PATIENCE
    with connect(database.url) as connection:
        while [one.held_by for one in look(connection)] != [by]:
            assert time.monotonic() < end, "it is not held"
            time.sleep(0.02)
    found = status(database)
    assert found["held_by"] == by
    return found


def until_still(database: Database) -> dict[str, Any]:
    """The other worker may have been before its batch when the first one saw the pause. What ``status`` says then."""
    until(lambda: status(database)["rows_per_second"] == 0, "it goes on")
    return status(database)


def test_paused_set_and_resumed(filled: Database) -> None:
    """It stands still between two batches, says so on stderr and in status, and goes on as it was told."""
    moving = start(filled.url, *MOVE)
    until_moved(filled, 1, moving)
    paused = run(filled.url, "pause")
    assert (paused.returncode, paused.stdout) == (0, "migration 1  capture-spine/executions: paused\n")
    assert "was paused before" in run(filled.url, "pause").stdout
    until_held(filled, "pause")
    found = until_still(filled)
    assert found["at_work"]
    assert found["paused_by"] == filled.owner.name
    assert found["rows_per_second"] == 0
    at = moved(filled)
    text = run(filled.url, "status").stdout
    assert re.search(
        rf"^  paused since 20\S+ \S+ \S+ by {filled.owner.name}; spine-migrate resume$", text, re.MULTILINE
    )
    assert re.search(r"^  held back by pause since 20\S+ \S+ \S+: paused by ", text, re.MULTILINE)
    changed = run(filled.url, "set", "batch-size=1000", "rows-per-second=none", "max-wal-rate=64MB")
    assert changed.stdout == (
        "migration 1  capture-spine/executions: batch-size=1000, max-wal-rate=67108864, rows-per-second=none\n"
    )
    assert (
        "  set: batch-size 1,000, max-wal-rate 67,108,864, rows-per-second unlimited"
        in run(filled.url, "status").stdout
    )
    assert moved(filled) == at < 3000
    resumed = json.loads(run(filled.url, "resume", "--json").stdout)
    assert resumed["migrations"] == [{"migration_id": 1, "mapping": "capture-spine/executions", "resumed": True}]
    assert "was not paused before" in run(filled.url, "resume").stdout
    _, err = moving.communicate(timeout=_PATIENCE)
    assert moving.returncode == 0
    assert err.count("held back by pause: paused by ") == 1
    assert moved(filled) == 3000


def test_killed_while_it_was_paused(filled: Database) -> None:
    """Kill -9: the pause stays, the next run waits and says so, and nothing is lost or doubled."""
    moving = start(filled.url, *MOVE)
    until_moved(filled, 1, moving)
    run(filled.url, "pause")
    until_held(filled, "pause")
    until_still(filled)
    at = moved(filled)
    moving.kill()
    moving.communicate()
    end = time.monotonic() + _PATIENCE
    while (found := status(filled))["at_work"]:
        assert time.monotonic() < end, "the server does not notice"
    assert found["held_by"] is None, "nobody is held back"
    assert found["paused_at"]

    again = start(filled.url, "executions-to-runs", "--no-events", "--wait")
    assert again.stderr is not None
    assert "held back by pause: paused by" in again.stderr.readline()
    assert moved(filled) == at
    run(filled.url, "resume")
    again.communicate(timeout=_PATIENCE)
    assert again.returncode == 0
    with filled.connect() as connection:
        prove(connection, "executions")


def test_live_is_paused_and_ended_while_it_is(filled: Database) -> None:
    """Writes are captured meanwhile; the next one waits as well, until it is let go."""
    moving = start(filled.url, "executions-to-runs", "--no-events", "--live", "--max-hold", "0")
    until_moved(filled, 3000, moving)
    until(lambda: status(filled)["step"] == "done", "the move does not end")
    run(filled.url, "pause")
    until_held(filled, "pause")
    with filled.connect() as connection:
        connection.execute("INSERT INTO executions (pipeline_name, status) VALUES ('new', 'failed')")
    found = until_held(filled, "pause")
    moving.terminate()
    _, err = moving.communicate(timeout=_PATIENCE)
    assert moving.returncode == 0, err
    assert "held back by pause: paused by " in err
    assert (found["following"], found["changes_waiting"]) == (True, 1)
    assert moved(filled) == 3000
    assert "changes are captured and nobody applies them, 1 not applied yet" in run(filled.url, "status").stdout

    again = start(filled.url, "sync", "run", "--once")
    until_held(filled, "pause")
    assert moved(filled) == 3000
    run(filled.url, "resume")
    _, err = again.communicate(timeout=_PATIENCE)
    assert again.returncode == 0, err
    with filled.connect() as connection:
        prove(connection, "executions")


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("set",), 2, "Missing argument"),
        (("set", "batch-size=lots"), 2, "'lots' is not a number of rows between 1 and 1,000,000, nor auto."),
        (("set", "workers=3"), 2, "'workers=3' is no setting"),
        (("set", "batch-size=5"), 2, "No migration has been started in this database"),
        (("pause", "--migration", "7"), 2, "The ledger has no migration 7"),
        (("resume", "--mapping", "capture-spine/jobs"), 2, "no migration of capture-spine/jobs"),
        (("executions-to-runs", "--max-lag-bytes", "much"), 2, "'much' is not a number of bytes"),
        (("executions-to-runs", "--max-lag-bytes", "1GB"), 3, "GRANT pg_read_all_stats"),
        (("executions-to-runs", "--pause-file", "/nowhere/hold"), 2, "There is no folder /nowhere"),
    ],
)
def test_nonsense_and_what_is_missing(filled: Database, words: tuple[str, ...], code: int, sentence: str) -> None:
    done = run(filled.url, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert sentence in " ".join(done.stderr.split())
    assert moved(filled) == 0


def test_the_runbook(filled: Database, tmp_path: Path) -> None:
    """Line by line, as a role that may see what others do; the order is on record at the end."""
    name = sql.Identifier(filled.owner.name)
    with filled.connect_admin(autocommit=True) as admin:
        admin.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(name))
        try:
            lines = commands("runbooks/throttle.md")
            for line in lines:
                done = subprocess.run(
                    ["/bin/sh", "-c", line],
                    check=False,
                    capture_output=True,
                    text=True,
                    cwd=tmp_path,
                    env=environment(filled.url),
                    timeout=240,
                )
                assert done.returncode == 0, f"{line}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        finally:
            admin.execute(sql.SQL("REVOKE pg_read_all_stats FROM {}").format(name))
    assert len(lines) == 10
    assert moved(filled) == 3000
    with filled.connect() as connection:
        actions = connection.execute(
            "SELECT action, count(*) FROM spine_migrate.audit"
            " WHERE action IN ('paused', 'resumed', 'settings changed') GROUP BY 1 ORDER BY 1"
        ).fetchall()
        settings = connection.execute("SELECT DISTINCT settings FROM spine_migrate.control").fetchall()
    assert actions == [("paused", 2), ("resumed", 2), ("settings changed", 4)]
    assert settings == [({},)]
