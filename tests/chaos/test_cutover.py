"""Cutover and rollback, killed at any moment and given again, while the application writes by the same names."""

from __future__ import annotations

import random
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.chaos.conftest import FULL, tell
from tests.chaos.cutover_writers import Writer
from tests.command import run, start
from tests.cutting import BOTH, Pair
from tests.database import Database
from tests.legacy import Legacy, build

ROUNDS = 6 if FULL else 2
WRITERS = 3
LOCK_TIMEOUT = 200
MAPPING = ("--mapping", "capture-spine/executions")


@pytest.fixture
def legacy(database: Database) -> Legacy:
    legacy = build(database.url)
    legacy.many_executions(50)
    Pair(legacy).begin()
    return legacy


@contextmanager
def writing(legacy: Legacy, seed: random.Random) -> Iterator[list[Writer]]:
    stop = threading.Event()
    writers = [Writer(legacy.url, number, seed.randrange(10**6), stop) for number in range(WRITERS)]
    for one in writers:
        one.thread.start()
    try:
        yield writers
    finally:
        stop.set()
        for one in writers:
            one.thread.join(timeout=60)
    for one in writers:
        assert one.failure is None, f"writer {one.number} saw {one.failure!r}"


def switched(legacy: Legacy, command: str, seed: random.Random) -> None:
    """The command, killed once somewhere, then given until it is done."""
    tool = start(legacy.url, command, *MAPPING, "--yes", "--lock-timeout", str(LOCK_TIMEOUT), "--wait")
    try:
        tool.communicate(timeout=seed.uniform(0.5, 8.0))
    except subprocess.TimeoutExpired:
        tool.kill()
        tool.communicate()
    # The applier may be behind, or a lock not to be had; nothing else may refuse.
    told = ""
    for _ in range(5):
        done = run(legacy.url, command, *MAPPING, "--yes", "--lock-timeout", str(LOCK_TIMEOUT), "--wait")
        if done.returncode == 0 or "cut over already" in done.stderr or "Nothing has been cut over" in done.stderr:
            return
        assert done.returncode in (3, 4), done.stdout + done.stderr
        told = done.stdout + done.stderr
    pytest.fail(told)


def recorded(legacy: Legacy, writers: list[Writer]) -> None:
    """Every committed write is there, by the application's names, and nothing else."""
    mine = {key: row for one in writers for key, row in one.rows.items()}
    there = {
        str(key): (status, error)
        for key, status, error in legacy.rows(
            "SELECT execution_id, status, error FROM executions WHERE pipeline_name = 'storm'"
        )
    }
    assert there == mine
    events = {key: count for one in writers for key, count in one.events.items()}
    found = legacy.rows("SELECT execution_id::text, count(*) FROM execution_events GROUP BY 1")
    assert dict(found) == events


def test_cutover_and_rollback_under_writers(legacy: Legacy, chance: random.Random) -> None:
    applier = start(legacy.url, "sync", "run", "--quiet")
    try:
        with writing(legacy, chance) as writers:
            for _ in range(ROUNDS):
                switched(legacy, "cutover", chance)
                assert legacy.value("SELECT relkind FROM pg_class WHERE oid = 'executions'::regclass") == "v"
                applier.kill()
                applier.communicate()
                applier = start(legacy.url, "sync", "run", "--quiet")
                switched(legacy, "rollback", chance)
                assert legacy.value("SELECT relkind FROM pg_class WHERE oid = 'executions'::regclass") == "r"
    finally:
        applier.kill()
        applier.communicate()
    longest = max(one.longest for one in writers)
    tell(
        f"{sum(one.commits for one in writers)} transactions, {sum(one.again for one in writers)} done again, the "
        f"longest took {longest * 1000:.0f} ms"
    )
    recorded(legacy, writers)
    assert run(legacy.url, "sync", "run", "--once", "--quiet").returncode == 0
    legacy.prove(*BOTH)
    with psycopg.connect(legacy.url) as connection:
        ((left,),) = connection.execute("SELECT count(*) FROM spine_migrate.change_log").fetchall()
    assert left == 0
