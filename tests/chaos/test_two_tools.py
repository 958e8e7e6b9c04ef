"""Two tools started at once, again and again: exactly one works."""

from __future__ import annotations

import time

import psycopg

from tests.chaos.conftest import FULL
from tests.chaos.patient import Patient, admit
from tests.database import Database

ROUNDS = 20 if FULL else 3


def race(patient: Patient) -> tuple[int, int]:
    """Start two; hold the winner's batches up until the other one has ended. Exit codes of loser and winner."""
    with psycopg.connect(patient.url) as gate:
        gate.execute("SELECT FROM spine_migrate.checkpoint FOR UPDATE")
        tools = [patient.start("--limit", "20", "--no-events") for _ in range(2)]
        while all(tool.poll() is None for tool in tools):
            time.sleep(0.01)
        loser, winner = sorted(tools, key=lambda tool: tool.poll() is None)
        gate.rollback()
    _, errors = loser.communicate(timeout=60)
    assert "Another run is at work" in errors
    _, errors = winner.communicate(timeout=60)
    assert "Traceback" not in errors
    return loser.returncode, winner.returncode


def test_exactly_one_works(database: Database) -> None:
    patient = admit(database.url, executions=1000 if FULL else 300, seed=5)
    # The first one makes the checkpoints at which the winner is held up.
    patient.start("--limit", "20", "--no-events").communicate(timeout=60)

    outcomes = {race(patient) for _ in range(ROUNDS)}

    assert outcomes == {(3, 0)}
    assert patient.accounted() == 20 * (ROUNDS + 1)
    patient.consistent()
    patient.finish()


def test_two_at_once_on_a_fresh_database_start_one_migration(database: Database) -> None:
    patient = admit(database.url, executions=300, seed=6)

    tools = [patient.start("--wait") for _ in range(2)]
    for tool in tools:
        tool.communicate(timeout=120)

    assert [tool.returncode for tool in tools] == [1, 1]
    with psycopg.connect(patient.url) as connection:
        assert connection.execute("SELECT count(*) FROM spine_migrate.migration").fetchall() == [(2,)]
    patient.prove()
