"""History moves while an application writes, and the tool is killed again and again: target == forward(source)."""

from __future__ import annotations

import multiprocessing
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from spine_migrate.db import schema
from spine_migrate.demo.generate import generate
from tests.chaos.conftest import FULL, tell
from tests.chaos.live_writer import Told, write
from tests.command import run, start
from tests.database import Database
from tests.legacy import Legacy

KILLS = 30 if FULL else 4
WRITERS = 4 if FULL else 2
EXECUTIONS = 20_000 if FULL else 3_000
# Nobody may wait longer for the tool than this, in seconds: its lock_timeout, and what the machine takes for itself.
LONGEST_WAIT = 5.0


@pytest.fixture
def legacy(database: Database) -> Legacy:
    with database.connect() as connection:
        generate(connection, executions=EXECUTIONS, jobs=0, events_per_execution=2, seed=5, awkward=0)
        connection.execute("UPDATE executions SET pipeline_name = 'ingest'")
    schema.upgrade(database.url)
    return Legacy(database.url)


@contextmanager
def written(legacy: Legacy, chance: random.Random, told: list[Told]) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    writers = [
        context.Process(target=write, args=(legacy.url, chance.randrange(10**6), stop, results, 100.0))
        for _ in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    try:
        yield
    finally:
        stop.set()
        told += [results.get(timeout=60) for _ in writers]
        for writer in writers:
            writer.join()


def live(legacy: Legacy) -> subprocess.Popen[str]:
    return start(
        legacy.url,
        *("executions-to-runs", "--live", "--wait", "--workers", "2", "--batch-size", "300"),
        *("--max-rows-per-second", "2500"),
    )


def moved(legacy: Legacy) -> bool:
    steps = legacy.rows("SELECT step FROM spine_migrate.migration")
    return len(steps) == 2 and all(step == "done" for (step,) in steps)


@pytest.mark.timeout(1200)
def test_killed_while_the_application_writes(legacy: Legacy, chance: random.Random) -> None:
    told: list[Told] = []
    killed = 0
    with written(legacy, chance, told):
        for _ in range(KILLS):
            tool = live(legacy)
            time.sleep(chance.uniform(1.0, 4.0))
            tool.kill()
            tool.communicate()
            killed += tool.returncode == -9
        tool = live(legacy)
        end = time.monotonic() + 600
        while not moved(legacy) and tool.poll() is None and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(1.0)
        tool.send_signal(signal.SIGINT)
        output, errors = tool.communicate(timeout=120)
        # A row may have been unmappable just then.
        assert tool.returncode in (0, 1), (output, errors)
    last = run(legacy.url, "sync", "run", "--once")
    assert last.returncode == 0, last.stderr
    commits, contended = sum(one.commits for one in told), sum(one.contended for one in told)
    longest = max(one.longest for one in told)
    tell(f"{killed} kills, {commits} commits, {contended} contended; the longest statement took {longest:.2f} s")
    assert killed == KILLS
    assert not [error for one in told for error in one.errors]
    assert longest < LONGEST_WAIT
    assert not legacy.quarantine()
    _written_is_there(legacy, told)
    legacy.prove("executions", "execution_events")
    assert run(legacy.url, "compare").returncode == 0


def _written_is_there(legacy: Legacy, told: list[Told]) -> None:
    """Every committed write of the writers' own rows, on both sides."""
    old: dict[str, str | None] = dict(
        legacy.rows("SELECT execution_id::text, error FROM executions WHERE pipeline_name = 'live'")
    )
    new: dict[str, str | None] = dict(legacy.rows("SELECT run_id::text, error FROM runs WHERE name = 'live'"))
    for one in told:
        for key, text in one.mine.items():
            assert (old.get(key), new.get(key)) == (text, text), key
