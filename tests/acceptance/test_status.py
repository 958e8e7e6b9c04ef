"""spine-migrate status: what it shows before, while and after a move."""

from __future__ import annotations

import json
import signal
import time

from spine_migrate.db import schema
from tests.command import run, start
from tests.database import Database
from tests.generated import generated


def test_no_ledger_and_no_migration(database: Database) -> None:
    """Refused where nothing is installed; an empty ledger says so and is clean."""
    done = run(database.url, "status")
    assert done.returncode == 3
    assert "spine-migrate db upgrade" in done.stderr
    schema.upgrade(database.url)
    done = run(database.url, "status")
    assert done.returncode == 0
    assert done.stdout.strip() == "No migration has been started in this database."


def test_half_way_at_work_and_done(database: Database) -> None:
    """Percent, rate and time left while a run is at work; nobody at work and no rate otherwise."""
    generated(database, executions=6000, seed=8, events=1)
    run(database.url, "executions-to-runs", "--limit", "2000", "--quiet")
    (half,) = json.loads(run(database.url, "status", "--json").stdout)["migrations"]
    assert half["rows_moved"] + sum(half["quarantined"].values()) == 2000
    assert 20 < half["percent"] < 50
    assert half["at_work"] is False
    assert half["rows_per_second"] is None

    moving = start(
        database.url, "executions-to-runs", "--batch-size", "50", "--max-rows-per-second", "100", "--no-events"
    )
    deadline = time.monotonic() + 30
    at = half
    while not (at["at_work"] and at["rows_per_second"]) and time.monotonic() < deadline:
        (at,) = json.loads(run(database.url, "status", "--json").stdout)["migrations"]
    moving.send_signal(signal.SIGTERM)
    moving.communicate(timeout=60)
    assert at["rows_per_second"] > 0
    assert at["seconds_left"] > 0
    assert half["percent"] < at["percent"] < 100

    run(database.url, "executions-to-runs", "--quiet")
    done = run(database.url, "status")
    assert done.returncode == 1, "rows are in quarantine"
    assert done.stdout.count("done, 100.0%") == 2
    assert done.stdout.count("nobody is at work since") == 2
    for line in ("links", "quarantined", "unknown_value"):
        assert line in done.stdout


def test_clean_is_zero(database: Database) -> None:
    generated(database, executions=200, seed=8, awkward=0)
    run(database.url, "executions-to-runs", "--quiet")
    assert run(database.url, "status").returncode == 0


def test_watch_prints_until_ctrl_c(database: Database) -> None:
    """One report after another where stdout is no terminal; Ctrl-C is no error."""
    generated(database, executions=200, seed=8, awkward=0)
    run(database.url, "executions-to-runs", "--quiet")
    watching = start(database.url, "status", "--watch", "--every", "0.2", "--json")
    assert watching.stdout is not None
    first, second = (json.loads(watching.stdout.readline()) for _ in range(2))
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=30)
    assert watching.returncode == 0, err
    assert [one["step"] for one in first["migrations"]] == [one["step"] for one in second["migrations"]] == ["done"] * 2
