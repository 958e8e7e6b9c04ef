"""kill -9 of ``retire`` at many moments: what is dropped is in the archive, and the same command goes on."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from spine_migrate.cutover.archive.verify import verify
from tests.chaos.conftest import FULL, tell
from tests.command import run, start
from tests.cutting import Pair
from tests.legacy import Legacy, arranged, uuid

ROUNDS = 3 if FULL else 1
_LONGEST = 60.0
# What the tool is at, as the server sees it, and the folder that is being filled.
_AT_WORK = """
SELECT EXISTS (SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'spine-migrate' AND query ~ %s)
"""
_GONE = """
SELECT NOT EXISTS (SELECT FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'spine-migrate')
"""
_MOMENTS = ("pg_try_advisory_lock", "COPY", "retirement", "legacy_digest|retire_check", "archive")
_LAST = "retire_drop"


@arranged
def legacy(legacy: Legacy) -> None:
    """Two thousand executions that are cut over."""
    legacy.many_executions(2000)
    pair = Pair(legacy)
    pair.begin()
    pair.switch()


@contextmanager
def _writing(legacy: Legacy) -> Iterator[list[float]]:
    """The new side goes on all the time; how long each write took. An error of the server is one of the test."""
    over, waits, failed = threading.Event(), list[float](), list[psycopg.Error]()

    def write() -> None:
        number = 0
        with legacy.connect() as connection:
            while not over.wait(0.01):
                number += 1
                began = time.monotonic()
                try:
                    connection.execute("UPDATE runs SET error = %s WHERE run_id = %s", (str(number), uuid(number % 50)))
                except psycopg.Error as error:
                    failed.append(error)
                    return
                waits.append(time.monotonic() - began)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield waits
    finally:
        over.set()
        thread.join()
    assert failed == []


def _kill(tool: subprocess.Popen[str], reached: Callable[[], bool], gone: Callable[[], bool]) -> bool:
    """As soon as it is there; whether it had not come to its end before. What the server was still at is over then."""
    end = time.monotonic() + _LONGEST
    while not reached() and tool.poll() is None:
        assert time.monotonic() < end
    killed = tool.poll() is None
    tool.kill()
    tool.communicate()
    while not gone():
        assert time.monotonic() < end
        time.sleep(0.01)
    return killed


def _standing(legacy: Legacy) -> bool:
    """All of the legacy side, or nothing of it."""
    there = legacy.value(
        "SELECT ARRAY[to_regclass('executions'), to_regclass('executions_legacy'), to_regclass('execution_events'),"
        " to_regclass('execution_events_legacy')]::text[]"
    )
    steps = {step for (step,) in legacy.rows("SELECT step FROM spine_migrate.migration")}
    assert steps == ({"retired"} if there == [None] * 4 else {"cutover"}), (steps, there)
    assert None not in there or there == [None] * 4
    return None not in there


@pytest.mark.timeout(900)
def test_retire_killed_again_and_again(legacy: Legacy, tmp_path: Path, chance: random.Random) -> None:
    archive, kills = tmp_path / "archive", 0
    words = ("retire", "--after-days", "0", "--archive", str(archive), "--yes", "--json")
    with _writing(legacy) as waits:
        for moment in (*(one for _ in range(ROUNDS) for one in chance.sample(_MOMENTS, len(_MOMENTS))), _LAST):
            with legacy.connect() as watcher:

                def reached(moment: str = moment, watcher: psycopg.Connection[tuple[bool]] = watcher) -> bool:
                    if moment == "archive":
                        return archive.exists()
                    return watcher.execute(_AT_WORK, (moment,)).fetchone() == (True,)

                def gone(watcher: psycopg.Connection[tuple[bool]] = watcher) -> bool:
                    return watcher.execute(_GONE).fetchone() == (True,)

                killed = _kill(start(legacy.url, *words), reached, gone)
            tell(f"killed at {moment}: {killed}")
            kills += killed
            if not _standing(legacy):
                break
            assert legacy.value("SELECT count(*) FROM executions") == 2000
        done = run(legacy.url, *words)
        assert done.returncode == 0, done.stdout + done.stderr
    assert not _standing(legacy)
    assert kills
    found = verify(archive)
    assert found.sound
    assert found.manifest is not None
    assert {table.name.table: table.rows for table in found.manifest.tables}["executions_legacy"] == 2000
    ledger = run(legacy.url, "retire", "--json")
    told = json.loads((archive / "manifest.json").read_text(encoding="utf-8"))["digest"]
    assert {one["archive_digest"] for one in json.loads(ledger.stdout)["already"]} == {told}
    assert legacy.value("SELECT count(*) FROM runs") == 2000
    tell(f"{kills} kills, longest write {max(waits) * 1000:.0f} ms")
