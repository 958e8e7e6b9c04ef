"""kill -9 of ``archive create`` and ``archive restore`` at seeded moments: all of it is there, or nothing."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg import sql

from spine_migrate.cutover.archive.verify import verify
from tests.archives import relations
from tests.chaos.conftest import FULL, tell
from tests.command import run, start
from tests.database import Database

KILLS = 40 if FULL else 3
_TABLES = ["a", "b", "c"]
_LONGEST = 60.0
# Starts of the tool; some come to their end before they can be killed.
_STARTS = 10 * KILLS

_AT_WORK = """
SELECT EXISTS (SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'spine-migrate' AND starts_with(query, %s))
"""
_ALONE = "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database()"


@pytest.fixture
def filled(database: Database) -> Database:
    """Three tables of some MB, so that there is time to be killed in."""
    with database.connect() as connection:
        for table in map(sql.Identifier, _TABLES):
            made = (
                "CREATE TABLE {} AS SELECT n, md5(n::text) || md5((-n)::text) AS x FROM generate_series(1, 30000) AS n"
            )
            connection.execute(sql.SQL(made).format(table))
            connection.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (n)").format(table))
    return database


def _bytes(folder: Path) -> int:
    """What a run has written so far; a file may go while they are counted."""
    total = 0
    for file in folder.glob("*"):
        try:
            total += file.stat().st_size
        except FileNotFoundError:
            continue
    return total


def _until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + _LONGEST
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.001)


def _kill(tool: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    """As soon as it is there; it may have come to its end before."""
    _until(lambda: reached() or tool.poll() is not None)
    tool.kill()
    tool.communicate()


@pytest.mark.timeout(900)
def test_create_killed_again_and_again(filled: Database, tmp_path: Path, chance: random.Random) -> None:
    """Most runs find what the one before has left, and write more than that."""
    assert run(filled.url, "archive", "create", *_TABLES, str(tmp_path / "whole")).returncode == 0
    directory, partial = tmp_path / "archive", tmp_path / ".archive.partial"
    size, killed = _bytes(tmp_path / "whole"), 0

    def kill(moment: int) -> bool:
        if _bytes(partial) >= moment:
            shutil.rmtree(partial)
        _kill(start(filled.url, "archive", "create", *_TABLES, str(directory)), lambda: _bytes(partial) >= moment)
        return not directory.exists()

    for _ in range(_STARTS):
        if kill(chance.randrange(1, size)):
            killed += 1
            if killed == KILLS:
                break
            continue
        assert verify(directory).sound
        shutil.rmtree(directory)
    tell(f"{killed} kills left no archive")
    assert killed == KILLS
    assert run(filled.url, "archive", "create", *_TABLES, str(directory)).returncode == 0
    assert verify(directory).sound
    assert not partial.exists()


@pytest.mark.timeout(900)
def test_restore_killed_again_and_again(filled: Database, tmp_path: Path, chance: random.Random) -> None:
    directory, killed = tmp_path / "archive", 0
    assert run(filled.url, "archive", "create", *_TABLES, str(directory)).returncode == 0
    with filled.connect() as connection:
        connection.execute("CREATE SCHEMA back")
    before = relations(filled)

    def kill(moment: str) -> bool:
        tool = start(filled.url, "archive", "restore", str(directory), "--schema", "back")
        with filled.connect_admin(autocommit=True) as admin:
            _kill(tool, lambda: admin.execute(_AT_WORK, [moment]).fetchone() == (True,))
            _until(lambda: admin.execute(_ALONE).fetchone() == (True,))
        return relations(filled) == before

    for _ in range(_STARTS):
        if kill(chance.choice(["CREATE TABLE", "COPY", "ALTER TABLE"])):
            killed += 1
            if killed == KILLS:
                break
            continue
        assert relations(filled) - before >= {f"back.{table}_pkey" for table in _TABLES}
        with filled.connect() as connection:
            connection.execute("DROP SCHEMA back CASCADE")
            connection.execute("CREATE SCHEMA back")
    tell(f"{killed} kills left nothing restored")
    assert killed == KILLS
    assert run(filled.url, "archive", "restore", str(directory), "--schema", "back").returncode == 0
    beside = ("--against", filled.url, "--schema", "back")
    assert run(None, "archive", "verify", str(directory), *beside).returncode == 0
