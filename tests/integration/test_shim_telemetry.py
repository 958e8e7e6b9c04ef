"""Who calls what, from the line that calls to the table: nothing lost, nothing counted twice, no caller waits."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from psycopg import sql
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_shims.caller import CallSite
from spine_shims.modes import DISPATCH, LEGACY, Mode, Modes, Side
from spine_shims.tables import Tables
from spine_shims.telemetry import Telemetry
from tests.celery_worker import REPOSITORY, until
from tests.clocks import Clock
from tests.conftest import StartServer
from tests.database import Database, patient
from tests.shim_caller import NEVER

LINE = CallSite("shop/views.py", 7, "pay", "/srv/shop/views.py", "shop.views")


@pytest.fixture
def shims(database: Database) -> Database:
    database.arrange(schema.upgrade)
    return database


def _rows(database: Database, query: str, *values: object) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        return connection.execute(query.encode(), values).fetchall()


def _counted(database: Database) -> dict[str, int]:
    return dict(_rows(database, "SELECT caller, sum(count)::int FROM shim_call GROUP BY caller"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def telemetry(shims: Database, clock: Clock) -> Iterator[Telemetry]:
    """One whose thread does nothing for as long as the test lasts."""
    made = Telemetry(Tables.at(patient(shims.url)), host="here", version="1.0", interval_seconds=NEVER, clock=clock)
    yield made
    made.close()


def test_calls_are_told_apart_by_what_the_report_is_about(telemetry: Telemetry, shims: Database) -> None:
    canary = Mode.parse("canary=10%")
    for _ in range(3):
        telemetry.note("shop.bill", LINE, LEGACY, Side.LEGACY)
    telemetry.note("shop.bill", LINE._replace(line=9), LEGACY, Side.LEGACY)
    telemetry.note("shop.bill", LINE, canary, Side.LEGACY, count=4)
    telemetry.note("shop.bill", LINE, canary, Side.DISPATCH)
    telemetry.note("shop.send", "beat: every night", DISPATCH, Side.DISPATCH)
    telemetry.note("shop.send", None, DISPATCH, Side.DISPATCH)
    assert telemetry.flush()
    assert set(_rows(shims, "SELECT task, caller, host, version, mode, side, count FROM shim_call")) == {
        ("shop.bill", "shop/views.py:7 pay", "here", "1.0", "legacy", "legacy", 3),
        ("shop.bill", "shop/views.py:9 pay", "here", "1.0", "legacy", "legacy", 1),
        ("shop.bill", "shop/views.py:7 pay", "here", "1.0", "canary=10%", "legacy", 4),
        ("shop.bill", "shop/views.py:7 pay", "here", "1.0", "canary=10%", "dispatch", 1),
        ("shop.send", "beat: every night", "here", "1.0", "dispatch", "dispatch", 1),
        ("shop.send", "unknown", "here", "1.0", "dispatch", "dispatch", 1),
    }


def test_counts_add_up_and_times_are_the_servers(telemetry: Telemetry, shims: Database, clock: Clock) -> None:
    """First and last are as far from the time of storing, by the server's clock, as they were by the application's."""
    telemetry.note("shop.bill", LINE, LEGACY, Side.LEGACY)
    clock.now += 60
    telemetry.note("shop.bill", LINE, LEGACY, Side.LEGACY)
    clock.now += 5
    assert telemetry.flush()
    ((count, first, last),) = _rows(shims, "SELECT count, first_seen, last_seen FROM shim_call")
    assert (count, last - first) == (2, timedelta(seconds=60))
    ((now,),) = _rows(shims, "SELECT now()")
    assert timedelta(seconds=5) <= now - last < timedelta(seconds=65)

    clock.now += 3600
    telemetry.note("shop.bill", LINE, LEGACY, Side.LEGACY)
    assert telemetry.flush()
    ((count, again, latest),) = _rows(shims, "SELECT count, first_seen, last_seen FROM shim_call")
    assert (count, again) == (3, first)
    assert latest > last


def test_threads_and_hosts_count_together(shims: Database, clock: Clock) -> None:
    """Eight threads each, on two hosts that store at the same time, again and again."""
    hosts = [Telemetry(Tables.at(patient(shims.url)), host=name, interval_seconds=0.01) for name in ("a", "b")]

    def call(telemetry: Telemetry) -> None:
        for number in range(1000):
            telemetry.note("shop.bill", LINE._replace(line=number % 7), LEGACY, Side.LEGACY)

    threads = [threading.Thread(target=call, args=(telemetry,)) for telemetry in hosts for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for telemetry in hosts:
        telemetry.close()
    assert _rows(shims, "SELECT host, sum(count)::int FROM shim_call GROUP BY host ORDER BY host") == [
        ("a", 8000),
        ("b", 8000),
    ]


def test_a_thread_stores_what_is_counted(shims: Database) -> None:
    telemetry = Telemetry(Tables.at(patient(shims.url)), interval_seconds=0.05)
    telemetry.note("shop.bill", "somebody", LEGACY, Side.LEGACY)
    until(lambda: _counted(shims) == {"somebody": 1}, "nothing was stored")
    telemetry.close()
    telemetry.note("shop.bill", "somebody", LEGACY, Side.LEGACY)
    until(lambda: _counted(shims) == {"somebody": 2}, "what was noted after the end was not stored")
    telemetry.close()


def test_memory_is_bounded_and_nothing_goes_uncounted(shims: Database) -> None:
    telemetry = Telemetry(Tables.at(patient(shims.url)), interval_seconds=NEVER, most_keys=3)
    for line in range(100):
        telemetry.note("shop.bill", LINE._replace(line=line), LEGACY, Side.LEGACY)
    for _ in range(5):
        telemetry.note("shop.bill", LINE, LEGACY, Side.DISPATCH)
    telemetry.close()
    lines = {f"shop/views.py:{line} pay": 1 for line in range(3)}
    assert _counted(shims) == {**lines, "other": 102}
    assert _rows(shims, "SELECT count FROM shim_call WHERE side = 'dispatch'") == [(5,)]


@pytest.mark.parametrize(
    ("caller", "stored"),
    [
        ("shop\0.py", "shop\\0.py"),
        ("shop\udcff.py", "shop\\udcff.py"),
        ("Ä日本\x1b'; DROP TABLE shim_call; --", "Ä日本\x1b'; DROP TABLE shim_call; --"),
        ("long/" * 1000 + "shop.py:7 pay", "…" + ("long/" * 1000 + "shop.py:7 pay")[-249:]),
    ],
)
def test_any_name_can_be_stored(caller: str, stored: str, telemetry: Telemetry, shims: Database) -> None:
    telemetry.note("shop.bill", caller, LEGACY, Side.LEGACY)
    assert telemetry.flush()
    assert _counted(shims) == {stored: 1}


def test_the_longest_names_fit_into_the_key(shims: Database) -> None:
    """No two letters alike, so that nothing is compressed, and four bytes each."""
    letters = "".join(chr(0x20000 + number) for number in range(5000))
    names = iter(letters[start : start + 400] for start in range(0, 2000, 500))
    telemetry = Telemetry(Tables.at(patient(shims.url)), host=next(names), version=next(names), interval_seconds=NEVER)
    telemetry.note(next(names), next(names), Mode.parse("canary=10.123456789%"), Side.DISPATCH)
    assert telemetry.flush()
    telemetry.close()
    assert _rows(shims, "SELECT count FROM shim_call") == [(1,)]


def test_names_that_are_the_same_once_they_are_shortened_are_counted_together(
    telemetry: Telemetry, shims: Database
) -> None:
    for path in ("/srv/a/shop/views.py", "/srv/b/shop/views.py"):
        telemetry.note("shop.bill", LINE._replace(path=path), LEGACY, Side.LEGACY)
    assert telemetry.flush()
    assert _counted(shims) == {"shop/views.py:7 pay": 2}


def test_what_is_counted_while_the_database_is_down_is_stored_later(
    start_server: StartServer, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    caplog.set_level(logging.INFO, "spine_shims.telemetry")
    server = start_server()
    database = Database("postgres", server.url(), owner=None)  # type: ignore[arg-type] # the superuser's
    schema.upgrade(server.url())
    telemetry = Telemetry(Tables.at(patient(server.url())), host="here", interval_seconds=NEVER, clock=clock)
    telemetry.note("shop.bill", "somebody", LEGACY, Side.LEGACY)
    assert telemetry.flush()
    server.stop("immediate")
    for _ in range(3):
        telemetry.note("shop.bill", "somebody", LEGACY, Side.LEGACY)
        clock.now += 60
        assert not telemetry.flush()
    server.start()
    telemetry.note("shop.bill", "somebody", LEGACY, Side.LEGACY)
    assert telemetry.flush()
    with database.connect_admin() as connection:
        (row,) = connection.execute("SELECT count, last_seen - first_seen FROM shim_call").fetchall()
    assert row[0] == 5
    assert row[1] >= timedelta(seconds=180)
    assert [record.levelname for record in _said(caplog)] == ["WARNING", "INFO"]
    telemetry.close()


def _said(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Threads of other tests may still have something to say."""
    return [record for record in caplog.records if record.name == "spine_shims.telemetry"]


def test_counts_that_are_lost_at_the_end_are_told(shims: Database, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry(Tables.at("postgresql://nobody@127.0.0.1:1/none"), interval_seconds=NEVER)
    telemetry.note("shop.bill", "somebody", LEGACY, Side.LEGACY, count=7)
    telemetry.close()
    assert _said(caplog)[-1].getMessage() == "Calls of old tasks that were counted and are not stored: 7."


@pytest.mark.parametrize(
    ("spoil", "todo"),
    [("DROP TABLE shim_call", "Run spine-migrate db upgrade;"), ("REVOKE ALL ON shim_call FROM {}", "grants shims")],
)
def test_what_can_be_done_about_it_is_said(
    spoil: str, todo: str, telemetry: Telemetry, shims: Database, caplog: pytest.LogCaptureFixture
) -> None:
    with shims.connect() as connection:
        connection.execute(sql.SQL(spoil).format(sql.Identifier(shims.owner.name)))
    telemetry.note("shop.bill", "somebody", LEGACY, Side.LEGACY)
    assert not telemetry.flush()
    assert todo in caplog.text


def test_a_schema_of_any_name(database: Database) -> None:
    name = 'we"ird %s.x'
    with database.connect() as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    schema.upgrade(database.url, target_schema=name)
    with ConnectionPool(patient(database.url), min_size=0, max_size=1) as pool:
        tables = Tables.like(pool, name)
        telemetry = Telemetry(tables, interval_seconds=NEVER)
        telemetry.note("shop.bill", "somebody", LEGACY, Side.LEGACY)
        telemetry.announce(["shop.bill"])
        assert telemetry.flush()
        tables.seen_without([("shop.send", "old@host")])
        assert tables.modes_and_ready() == ({}, frozenset({"shop.bill"}), frozenset({"shop.send"}))
        telemetry.close()


def _start(database: Database, what: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.shim_caller", what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, "SPINE_DATABASE_URL": database.url},
    )


@pytest.mark.parametrize(("what", "counted"), [("ends", {"before the end": 3}), ("forks", {"parent": 10, "child": 2})])
def test_a_process_stores_what_is_left_when_it_ends(what: str, counted: dict[str, int], shims: Database) -> None:
    """And a forked child what it has counted itself, by a session of its own, while its parent's goes on."""
    with _start(shims, what) as process:
        assert process.wait(60) == 0
    assert _counted(shims) == counted


def test_a_killed_process_loses_one_interval_at_most(shims: Database) -> None:
    with _start(shims, "killed") as process:
        until(lambda: _counted(shims) == {"first": 10}, "nothing was stored")
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "counted\n"
        process.send_signal(signal.SIGKILL)
    counted = _counted(shims)
    assert counted.pop("first") == 10
    assert counted in ({}, {"second": 5})


def test_workers_that_announce_themselves_are_ready_until_they_are_gone(
    telemetry: Telemetry, shims: Database, clock: Clock
) -> None:
    tables = Tables.at(patient(shims.url))
    modes = Modes(tables, environment={}, clock=clock, first_wait_seconds=60)
    assert not modes.workers_ready("shop.bill")
    telemetry.announce(["shop.bill", "shop.send"])
    assert telemetry.flush()
    assert not modes.workers_ready("shop.bill"), "known for seconds"
    modes.refresh()
    assert [modes.workers_ready(task) for task in ("shop.bill", "shop.send", "shop.pay")] == [True, True, False]
    _age(shims, 200)
    modes.refresh()
    assert not modes.workers_ready("shop.bill")
    tables.close()


def _age(database: Database, seconds: float) -> None:
    """As if that much time had passed since the workers were seen."""
    with database.connect() as connection:
        connection.execute(
            "UPDATE shim_worker SET since = since - make_interval(secs => %s), seen_at = seen_at"
            " - make_interval(secs => %s)",
            (seconds, seconds),
        )


def test_an_announcement_goes_on_where_there_is_no_gap(shims: Database) -> None:
    """As workers of one host are replaced: one row, until nobody was there for a while."""
    tables = Tables.at(patient(shims.url))

    def announce(uptime: float = 0.0) -> None:
        tables.write("here", "1", {"tasks": []}, {"shop.bill": uptime})

    def spans() -> list[int]:
        rows = _rows(shims, "SELECT round(extract(epoch FROM seen_at - since))::int FROM shim_worker ORDER BY since")
        # The test itself takes its time between two announcements, on a busy machine seconds.
        return [length // 20 * 20 for (length,) in rows]

    announce()
    _age(shims, 600)
    announce()
    assert spans() == [600]
    _age(shims, 1000)
    announce()
    assert spans() == [600, 0], "nobody was there for longer than replacing a worker takes"
    _age(shims, 5000)
    announce(uptime=4500)
    assert spans() == [600, 5000], "it was there nearly all the time, and could not say so"
    tables.write("there", "1", {"tasks": []}, {"shop.bill": 60.0})
    assert spans() == [600, 5000, 60]
    tables.close()


def test_two_that_announce_at_once_do_not_wait_for_each_other(shims: Database) -> None:
    tables = Tables.at(patient(shims.url))
    tables.write("here", "1", {"tasks": []}, {"shop.bill": 0.0})
    _age(shims, 60)
    with shims.connect() as other:
        other.execute("SELECT FROM shim_worker FOR UPDATE")
        tables.write("here", "1", {"tasks": []}, {"shop.bill": 0.0})
    assert _rows(shims, "SELECT count(*) FROM shim_worker") == [(1,)]
    tables.close()


def test_a_session_that_was_ended_meanwhile_is_opened_again(
    telemetry: Telemetry, shims: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """As by a server that was restarted between two times: nothing is put off, let alone lost at the end."""
    telemetry.note("shop.bill", "somebody", LEGACY, Side.LEGACY)
    assert telemetry.flush()
    with shims.connect_admin() as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE application_name = 'spine_shims' AND datname = current_database()"
        )
    telemetry.note("shop.bill", "somebody", LEGACY, Side.LEGACY)
    assert telemetry.flush()
    assert _counted(shims) == {"somebody": 2}
    assert _said(caplog) == []


def test_a_worker_is_known_at_once(shims: Database) -> None:
    """Not when the next interval is over: producers wait for it."""
    telemetry = Telemetry(Tables.at(patient(shims.url)), interval_seconds=NEVER)
    telemetry.announce(["shop.bill"])
    until(lambda: _rows(shims, "SELECT task FROM shim_worker") == [("shop.bill",)], "it was not announced")
    telemetry.close()


def test_an_announcement_is_not_stored_more_often_than_it_must(
    telemetry: Telemetry, shims: Database, clock: Clock
) -> None:
    telemetry.announce(["shop.bill"])
    assert telemetry.flush()
    _age(shims, 25)
    clock.now += 25
    assert telemetry.flush()
    ((age,),) = _rows(shims, "SELECT extract(epoch FROM now() - seen_at) FROM shim_worker")
    assert age >= 25
    clock.now += 5
    assert telemetry.flush()
    ((age,),) = _rows(shims, "SELECT extract(epoch FROM now() - seen_at) FROM shim_worker")
    assert age < 25
