"""What the runbook of a live migration tells an operator to type does what it says."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from spine_migrate.db import schema
from spine_migrate.demo.generate import generate
from tests.acceptance.test_worker_runbooks import blocks
from tests.command import environment, run, start
from tests.database import Database
from tests.legacy import Legacy
from tests.waiting import until


@pytest.fixture
def legacy(database: Database) -> Legacy:
    with database.connect() as connection:
        generate(connection, executions=2000, jobs=0, seed=11, awkward=0)
        connection.commit()
    return Legacy(database.url)


def type_in(legacy: Legacy, lines: str) -> str:
    done = subprocess.run(
        ["/bin/sh", "-ec", lines], check=False, capture_output=True, text=True, env=environment(legacy.url), timeout=120
    )
    assert done.returncode == 0, f"{lines}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def moved(legacy: Legacy) -> bool:
    installed = legacy.value("SELECT to_regclass('spine_migrate.migration') IS NOT NULL")
    return bool(installed) and legacy.rows("SELECT step FROM spine_migrate.migration") == [("done",), ("done",)]


def write(legacy: Legacy, text: str) -> None:
    legacy.execute("UPDATE executions SET error = %s WHERE status = 'completed'", text)
    legacy.execute("INSERT INTO executions (pipeline_name, status, error) VALUES ('new', 'failed', %s)", text)


def test_the_runbook(legacy: Legacy) -> None:
    """From the grants to the undo, with an application that writes before, while and after the tool runs."""
    before, live, look, once, late, check, undo = blocks("live-migration", "sh")
    type_in(legacy, before)
    tool = start(legacy.url, *live.split()[1:])
    until(lambda: moved(legacy), "it is not moved", seconds=120)
    write(legacy, "while it runs")
    wanted = legacy.value("SELECT count(*) FROM executions WHERE error = 'while it runs'")
    until(
        lambda: legacy.value("SELECT count(*) FROM runs WHERE error = 'while it runs'") == wanted,
        "the changes are not applied",
        seconds=120,
    )
    assert "applied by the server's session" in type_in(legacy, look)
    tool.send_signal(signal.SIGINT)
    output, errors = tool.communicate(timeout=60)
    assert tool.returncode == 0, errors
    assert "capture-spine/execution_events: done" in output
    assert "sync run goes on applying them" in errors
    write(legacy, "while nobody applies")
    assert "nobody applies them now" in run(legacy.url, "sync", "status").stdout
    type_in(legacy, once)
    legacy.prove("executions", "execution_events")
    type_in(legacy, late)
    shown = type_in(legacy, check)
    captures = json.loads(shown[: shown.rindex("\n}") + 2])["captures"]
    assert [one["lag"]["entries"] for one in captures] == [0, 0]
    assert run(legacy.url, "undo", "--all", "--yes").returncode == 3
    type_in(legacy, undo)
    assert legacy.value("SELECT count(*) FROM runs") == 0
    assert legacy.value("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'spine%%'") == 0


def test_bad_calls(legacy: Legacy) -> None:
    """One sentence and the right code."""
    nothing = run(legacy.url, "sync", "run")
    assert (nothing.returncode, "spine-migrate db upgrade" in nothing.stderr) == (3, True)
    schema.upgrade(legacy.url)
    nothing = run(legacy.url, "sync", "run")
    assert (nothing.returncode, "No changes are captured" in nothing.stderr) == (3, True)
    assert run(legacy.url, "sync", "status").stdout == "No changes are captured.\n"
    assert run(legacy.url, "executions-to-runs", "--live", "--limit", "3").returncode == 2
    assert run(legacy.url, "executions-to-runs", "--live", "--offline").returncode == 2


def test_start_follow_stop(legacy: Legacy) -> None:
    """A migration that was moved before; stop asks."""
    schema.upgrade(legacy.url)
    assert run(legacy.url, "executions-to-runs", "--no-events").returncode == 0
    write(legacy, "between")
    begun = run(legacy.url, "sync", "start", "--json")
    assert begun.returncode == 0, begun.stderr
    (capture,) = json.loads(begun.stdout)["captures"]
    assert (capture["style"], capture["lag"]["deferred"] > 0) == ("statement", True)
    followed = run(legacy.url, "sync", "run", "--once", "--json", "--quiet")
    assert (followed.returncode, followed.stderr) == (0, "")
    assert json.loads(followed.stdout)["migrations"][0]["applied"]["updated"] > 0
    legacy.prove("executions")
    assert run(legacy.url, "sync", "stop").returncode == 4
    assert run(legacy.url, "sync", "stop", "--yes").stdout == "No changes are captured.\n"
