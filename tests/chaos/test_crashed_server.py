"""The server is aborted (pg_ctl stop -m immediate) in the middle of a migration, again and again.

Workers commit asynchronously, so each crash may lose their last commits: rows and checkpoint must be lost together. The
WAL writer is slowed down here so that this really happens.
"""

from __future__ import annotations

import random
import subprocess

import psycopg
import pytest
from psycopg import sql

from spine_migrate.db.embedded import EmbeddedServer
from tests.chaos.conftest import FULL, tell
from tests.chaos.moments import moments
from tests.chaos.patient import Patient, admit
from tests.conftest import StartServer
from tests.database import create_role, url_for

CRASHES = 10 if FULL else 2
OFFLINE_CRASHES = 10 if FULL else 1
# Of the session that is lost, or of the server that cannot be reached any more, which is shutting down for a moment.
_SAID = ("run the same command", "No server answers", "the database system is shutting down")
SETTINGS = {"wal_writer_delay": "5s", "wal_writer_flush_after": "64MB"}


def admitted(server: EmbeddedServer, executions: int, seed: int, *, offline: bool = False) -> Patient:
    """A database of an ordinary role's; it goes with the server."""
    role = create_role(server.url(), "dba")
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE spine OWNER {}").format(sql.Identifier(role.name)))
    return admit(url_for(server.url(), "spine", role), executions=executions, seed=seed, offline=offline)


def crash(server: EmbeddedServer, patient: Patient, moment: int, tool: subprocess.Popen[str]) -> int:
    """Crash once so many rows are accounted for; how many of those the crash has lost again."""
    patient.reach(moment, tool)
    before = patient.accounted()
    server.crash()
    server.start()
    return before - patient.accounted()


@pytest.mark.timeout(900)
def test_the_tool_outlives_the_crashes(start_server: StartServer, chance: random.Random) -> None:
    server = start_server(settings=SETTINGS)
    patient = admitted(server, 1500 if FULL else 500, chance.randrange(1000))
    moments = sorted(chance.randrange(patient.rows) for _ in range(CRASHES))
    tool = patient.start("--retry-for", "120")
    lost = [crash(server, patient, moment, tool) for moment in moments]
    _, errors = tool.communicate(timeout=240)

    tell(f"rows whose commit a crash took back: {lost}")
    assert tool.returncode == 1, errors
    patient.prove()


@pytest.mark.timeout(900)
def test_a_tool_that_gives_up_is_started_again(start_server: StartServer, chance: random.Random) -> None:
    server = start_server(settings=SETTINGS)
    patient = admitted(server, 1500 if FULL else 500, chance.randrange(1000))
    moments = sorted(chance.randrange(patient.rows * 9 // 10) for _ in range(CRASHES))
    for moment in moments:
        # Slowly, so that it is still at work when this process has its turn.
        tool = patient.start("--retry-for", "0", "--max-rows-per-second", "300")
        with patient.reached(moment, tool):
            server.crash()
        _, errors = tool.communicate(timeout=60)
        assert tool.returncode == 5, errors
        assert any(said in errors for said in _SAID), errors
        server.start()
        patient.consistent()
    patient.finish()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("retry_for", ["120", "0"], ids=["outlives", "gives-up"])
def test_an_offline_load(start_server: StartServer, chance: random.Random, retry_for: str) -> None:
    """Struck in the load, and with an index or a foreign key just built and not committed."""
    server = start_server(settings=SETTINGS)
    patient = admitted(server, 1000, chance.randrange(1000), offline=True)
    in_building = 0
    gives_up = retry_for == "0"
    tool = patient.start("--retry-for", retry_for)
    for moment in moments(chance, OFFLINE_CRASHES):
        with moment.reached(patient, tool):
            assert tool.poll() is None, moment
            in_building += moment.building and patient.in_transaction() > 0
            server.crash()
        if gives_up:
            _, errors = tool.communicate(timeout=60)
            assert tool.returncode == 5, errors
        server.start()
        if gives_up:
            patient.consistent()
            tool = patient.start("--retry-for", retry_for)
    _, errors = tool.communicate(timeout=240)

    tell(f"{in_building} of {OFFLINE_CRASHES} crashes were in a building")
    assert in_building >= OFFLINE_CRASHES // 2
    assert tool.returncode == 1, errors
    patient.prove()


def test_what_was_said_to_be_done_is_done_after_a_crash(start_server: StartServer) -> None:
    """The tool ends, the server crashes at once: "done" was on disk before it was said."""
    server = start_server(settings=SETTINGS)
    patient = admitted(server, 300, 1)
    tool = patient.start()
    tool.communicate(timeout=120)
    server.crash()
    server.start()

    assert tool.returncode == 1
    patient.prove()
    with psycopg.connect(patient.url) as connection:
        assert connection.execute("SELECT DISTINCT step FROM spine_migrate.migration").fetchall() == [("done",)]
