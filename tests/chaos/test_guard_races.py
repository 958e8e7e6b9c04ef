"""Two processes race for one guard, and processes are killed while they hold it."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spine_migrate.db import schema
from tests.chaos.conftest import FULL, tell
from tests.chaos.racers import ENTITY, LONGEST, race
from tests.database import Database
from tests.guards import guard_of

ROUNDS = 1000 if FULL else 50
KILLS = 50 if FULL else 4


@pytest.fixture(params=["postgres", pytest.param("redis", marks=pytest.mark.redis)])
def guard_url(request: pytest.FixtureRequest) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("redis_url"))
    database: Database = request.getfixturevalue("database")
    database.arrange(schema.upgrade)
    return database.url


def test_of_two_processes_one_wins_each_round(guard_url: str) -> None:
    rounds = list(race(guard_url, ROUNDS))

    assert [len(winners) for winners in rounds] == [1] * ROUNDS
    fences = [fence for (fence,) in rounds]
    assert fences == sorted(set(fences))
    tell(f"{ROUNDS} rounds, one winner each")


def test_what_a_killed_holder_had_is_free_after_its_time_and_its_fence_is_smaller(
    guard_url: str, chance: random.Random
) -> None:
    kills = held = 0
    with guard_of(guard_url) as guard:
        # A busy machine may look when its time is over.
        while kills < KILLS or (not held and kills < 10 * KILLS):
            kills += 1
            last = _kill_a_holder(guard_url, chance)
            left = guard.held(*ENTITY)
            if left is not None:
                assert left.fence >= last
                last, held = left.fence, held + 1
            end = time.monotonic() + LONGEST
            while (fence := guard.acquire(*ENTITY, holder="next", ttl_seconds=LONGEST)) is None:
                assert time.monotonic() < end, "the lock of a dead process does not expire"
                time.sleep(0.01)
            assert fence > last
            assert not guard.renew(*ENTITY, fence=last, ttl_seconds=LONGEST)
            assert guard.release(*ENTITY, fence=fence)
    assert held
    tell(f"{kills} kills, {held} of them while the lock was held")


def _kill_a_holder(url: str, chance: random.Random) -> int:
    """The last fence that the process told of."""
    victim = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.racers", url, "0.3"],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert victim.stdout is not None
    first = victim.stdout.readline()
    time.sleep(chance.uniform(0, 0.05))
    victim.kill()
    rest, _ = victim.communicate(timeout=LONGEST)
    return int((first + rest).split()[-1])
