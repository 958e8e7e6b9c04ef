"""Modes in the table: changed while processes run, kept while the database is away."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from spine_migrate.db import schema
from spine_migrate.errors import ConfigurationError
from spine_shims.modes import DISPATCH, LEGACY, SHADOW, Mode, Modes
from spine_shims.tables import Tables
from tests.celery_worker import REPOSITORY, until
from tests.clocks import Clock
from tests.conftest import StartServer
from tests.database import Database, patient


@pytest.fixture
def shims(database: Database) -> Database:
    database.arrange(schema.upgrade)
    return database


@contextmanager
def _tables(url: str) -> Iterator[Tables]:
    tables = Tables.at(patient(url))
    yield tables
    for thread in threading.enumerate():
        if thread.name == "spine-shim-modes":
            thread.join(60)
    tables.close()


@pytest.fixture
def tables(shims: Database) -> Iterator[Tables]:
    with _tables(shims.url) as opened:
        yield opened


def _set(url: str, task: str, mode: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO shim_mode (task, mode) VALUES (%s, %s) ON CONFLICT (task) DO UPDATE SET mode = EXCLUDED.mode",
            (task, mode),
        )


def test_the_first_call_of_a_process_knows_the_table(shims: Database, tables: Tables) -> None:
    _set(shims.url, "shop.bill", "canary=10%")
    _set(shims.url, "*", "shadow")
    modes = Modes(tables, environment={}, first_wait_seconds=60)
    assert modes.mode("shop.bill") == Mode.parse("canary=10%")
    assert modes.mode("shop.send") == SHADOW


def test_who_has_read_the_table_waits_for_nothing(shims: Database, tables: Tables) -> None:
    _set(shims.url, "shop.bill", "shadow")
    modes = Modes(tables, environment={}, first_wait_seconds=60)
    modes.refresh()
    asked = time.monotonic()
    assert modes.mode("shop.bill") == SHADOW
    assert time.monotonic() - asked < 30


def test_a_change_is_heeded_within_seconds_and_no_caller_waits_for_it(shims: Database, tables: Tables) -> None:
    clock = Clock()
    modes = Modes(tables, environment={}, clock=clock, default=LEGACY, first_wait_seconds=60)
    assert modes.mode("shop.bill") == LEGACY
    _set(shims.url, "shop.bill", "dispatch")
    clock.now += 4.9
    assert modes.mode("shop.bill") == LEGACY
    clock.now += 0.1
    with psycopg.connect(shims.url) as holder:
        # Whoever reads the table waits now.
        holder.execute("LOCK TABLE shim_mode IN ACCESS EXCLUSIVE MODE")
        assert modes.mode("shop.bill") == LEGACY

    def heeded() -> bool:
        """A reading that waited for too long is made again when its time has come."""
        clock.now += 5
        return modes.mode("shop.bill") == DISPATCH

    until(heeded, "the change was not heeded")


def test_the_environment_and_the_default_frame_the_table(shims: Database, tables: Tables) -> None:
    _set(shims.url, "*", "shadow")
    modes = Modes(tables, environment={"SPINE_SHIM_MODE": "shop.bill=legacy"}, first_wait_seconds=60)
    assert modes.mode("shop.bill", DISPATCH) == LEGACY
    assert modes.mode("shop.send", DISPATCH) == SHADOW
    with psycopg.connect(shims.url) as connection:
        connection.execute("DELETE FROM shim_mode")
    modes.refresh()
    assert modes.mode("shop.send", DISPATCH) == DISPATCH


def test_a_database_that_goes_away_leaves_the_modes_as_they_were(
    start_server: StartServer, caplog: pytest.LogCaptureFixture
) -> None:
    server, clock, environment = start_server(), Clock(), {"SPINE_SHIM_MODE": ""}
    schema.upgrade(server.url())
    _set(server.url(), "shop.bill", "shadow")
    with _tables(server.url()) as tables:
        modes = Modes(tables, environment=environment, clock=clock, first_wait_seconds=60)
        assert modes.mode("shop.bill") == SHADOW
        server.stop("immediate")
        for _ in range(3):
            modes.refresh()
            assert modes.mode("shop.bill") == SHADOW
        (told,) = [record for record in caplog.records if record.name.startswith("spine_shims")]
        assert "The tables of the shims cannot be used" in told.getMessage()
        environment["SPINE_SHIM_MODE"] = "legacy"
        clock.now += 5
        assert modes.mode("shop.bill") == LEGACY
        server.start()
        _set(server.url(), "shop.bill", "dispatch")
        environment["SPINE_SHIM_MODE"] = ""
        modes.refresh()
        assert modes.mode("shop.bill") == DISPATCH


def test_a_row_that_is_not_understood_leaves_the_modes_as_they_were(
    shims: Database, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    """As one that a newer version has set."""
    modes = Modes(tables, environment={}, first_wait_seconds=60)
    _set(shims.url, "shop.bill", "shadow")
    modes.refresh()
    with psycopg.connect(shims.url) as connection:
        connection.execute("ALTER TABLE shim_mode DROP CONSTRAINT shim_mode_mode_check")
    _set(shims.url, "shop.bill", "mirror")
    modes.refresh()
    assert modes.mode("shop.bill") == SHADOW
    assert "'mirror' is no mode of a task" in caplog.text


_TEXTS = [
    *("legacy", "dispatch", "shadow", "canary=0%", "canary=7%", "canary=07%", "canary=007%", "canary=99.999999999%"),
    *("canary=100%", "canary=100.000%", "canary=012.5%", "canary=0.5%"),
    *("", "legcy", "legacy\n", "Legacy", "canary", "canary=10", "canary=%", "canary=.5%", "canary=5.%", "canary=-1%"),
    *("canary=101%", "canary=100.1%", "canary=200%", "canary=1000%", "canary=0000%", "canary=1.0123456789%"),
    *("canary=1e1%", "canary=٣%", "legacy|dispatch", "canary=1%2%"),
]


def test_the_table_takes_what_is_a_mode_and_nothing_else(shims: Database) -> None:
    for text in _TEXTS:
        try:
            expected = text.strip() == text and bool(Mode.parse(text))
        except ConfigurationError:
            expected = False
        try:
            _set(shims.url, "shop.bill", text)
        except psycopg.errors.CheckViolation:
            taken = False
        else:
            taken = True
        assert taken == expected, text


_FORKED = """
import os, sys
from spine_shims.modes import Modes
from spine_shims.tables import Tables

tables = Tables.at(os.environ["SPINE_DATABASE_URL"])
modes = Modes(tables, environment={}, ttl_seconds=0.01, first_wait_seconds=60)
assert str(modes.mode("shop.bill")) == "shadow"
# Held for good in the child, as by a thread that it does not have.
modes._own().reading.acquire()
if os.fork() == 0:
    assert str(modes.mode("shop.bill")) == "shadow"
    print("forked", flush=True)
    sys.stdin.readline()
    while str(modes.mode("shop.bill")) != "dispatch":
        pass
    print("changed", flush=True)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
"""


def test_a_forked_child_reads_for_itself(shims: Database) -> None:
    """It knows what its parent knew, and has its own thread, lock and session."""
    _set(shims.url, "shop.bill", "shadow")
    with subprocess.Popen(
        [sys.executable, "-c", _FORKED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "SPINE_DATABASE_URL": patient(shims.url)},
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "forked\n"
        _set(shims.url, "shop.bill", "dispatch")
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "changed\n"
        assert process.wait(60) == 0
