"""kill -9 of the tool at seeded moments over one migration: nothing lost, nothing doubled."""

from __future__ import annotations

import random

import pytest

from tests.chaos.conftest import FULL, tell
from tests.chaos.moments import moments
from tests.chaos.patient import admit
from tests.database import Database

KILLS = 50 if FULL else 5
OFFLINE_KILLS = 20 if FULL else 3


@pytest.mark.timeout(900)
def test_killed_again_and_again(database: Database, chance: random.Random) -> None:
    patient = admit(database.url, executions=2500 if FULL else 500, seed=chance.randrange(1000))
    moments = sorted(chance.randrange(patient.rows) for _ in range(KILLS))
    in_batch = killed = 0
    for moment in moments:
        tool = patient.start("--wait")
        with patient.reached(moment, tool):
            inside = patient.in_transaction()
            tool.kill()
            tool.communicate()
        if tool.returncode == -9:
            killed += 1
            in_batch += inside > 0
        patient.consistent()

    tell(f"{killed} of {KILLS} kills found the tool at work, {in_batch} of them inside a batch")
    # Of a tool that has just come to its end nothing is left to kill; that must stay the exception.
    assert killed >= KILLS * 0.8
    assert in_batch > 0
    patient.finish()


@pytest.mark.timeout(900)
def test_an_offline_load_killed_again_and_again(database: Database, chance: random.Random) -> None:
    """In the load, and with an index or a foreign key just built and not committed."""
    patient = admit(database.url, executions=1500 if FULL else 800, seed=chance.randrange(1000), offline=True)
    killed = in_building = 0
    for moment in moments(chance, OFFLINE_KILLS):
        tool = patient.start("--wait")
        with moment.reached(patient, tool):
            inside = patient.in_transaction()
            tool.kill()
            tool.communicate()
        killed += tool.returncode == -9
        in_building += tool.returncode == -9 and moment.building and inside > 0
        patient.consistent()

    tell(f"{killed} of {OFFLINE_KILLS} kills found the tool at work, {in_building} of them in a building")
    assert killed >= OFFLINE_KILLS * 0.6
    assert in_building >= OFFLINE_KILLS // 2
    patient.finish()
