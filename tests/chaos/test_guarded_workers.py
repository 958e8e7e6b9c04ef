"""Workers of two ledgers work on one entity and are killed: no two at once, and every run comes to its end."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from spine_migrate.db import schema
from tests.chaos.conftest import FULL, tell
from tests.chaos.guarded import TABLE
from tests.database import Database, Role, fresh_database

RUNS = 100 if FULL else 8
KILLS = 40 if FULL else 3
LONGEST = 240.0


@pytest.fixture
def other(server_url: str, owner: Role, database: Database) -> Iterator[Database]:
    with fresh_database(server_url, f"{database.name}_2", owner) as created:
        yield created


@pytest.mark.parametrize("kind", ["postgres", pytest.param("redis", marks=pytest.mark.redis)])
def test_two_ledgers_take_turns_on_one_entity(
    database: Database, other: Database, chance: random.Random, request: pytest.FixtureRequest, kind: str
) -> None:
    ledgers = (database, other)
    for ledger in ledgers:
        ledger.arrange(schema.upgrade)
    with database.connect() as connection:
        connection.execute(TABLE)
    guard_url = str(request.getfixturevalue("redis_url")) if kind == "redis" else database.url

    def start(ledger: Database) -> subprocess.Popen[bytes]:
        given = (ledger.url, database.url, guard_url, str(RUNS), str(chance.getrandbits(32)))
        return subprocess.Popen([sys.executable, "-m", "tests.chaos.guarded", *given], cwd=Path(__file__).parents[2])

    workers = [start(ledger) for ledger in ledgers]
    killed: list[int] = []
    try:
        fence = 0
        while len(killed) < KILLS and (begun := _next(database, fence, workers)) is not None:
            fence, victim = begun
            time.sleep(chance.uniform(0, 0.04))
            workers[victim].kill()
            workers[victim].wait()
            killed.append(fence)
            workers[victim] = start(ledgers[victim])
        for worker in workers:
            assert worker.wait(LONGEST) == 0
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert killed
    tell(f"{len(killed)} kills, {_check(database, ledgers)}")


def _next(database: Database, fence: int, workers: list[subprocess.Popen[bytes]]) -> tuple[int, int] | None:
    """An execution with a larger fence, and which of the workers is at it; None where both have done all their runs."""
    end = time.monotonic() + LONGEST
    with database.connect(autocommit=True) as connection:
        while any(worker.poll() is None for worker in workers):
            assert time.monotonic() < end, "nothing goes on"
            found = connection.execute(
                "SELECT fence, array_position(%(pids)s::int[], pid) - 1 FROM worked"
                " WHERE fence > %(fence)s AND pid = ANY (%(pids)s) ORDER BY fence DESC LIMIT 1",
                {"fence": fence, "pids": [worker.pid for worker in workers]},
            ).fetchone()
            if found is not None:
                return found
            time.sleep(0.002)
    return None


def _check(database: Database, ledgers: tuple[Database, ...]) -> str:
    completed: list[tuple[int, str]] = []
    for ledger in ledgers:
        with ledger.connect() as connection:
            runs = connection.execute("SELECT result, run_id::text FROM runs WHERE status = 'completed'").fetchall()
        assert len(runs) == RUNS
        completed += runs
    with database.connect() as connection:
        worked = {
            (fence, run_id): (started_at, ended_at)
            for fence, run_id, _, started_at, ended_at in connection.execute("TABLE worked").fetchall()
        }
    # Of each run what counts: the execution whose worker still had the lock when it had ended.
    for one, following in pairwise(worked[found] for found in sorted(completed)):
        assert one[1] < following[0]
    unfinished = sum(ended_at is None for _, ended_at in worked.values())
    return f"{unfinished} of them inside a handler, {len(completed)} runs in turns"
