"""One throttle for many workers, and for an applier beside the backfill."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import psycopg
import pytest

from spine_migrate.carry import throttle as module
from spine_migrate.carry.orders import Hold
from spine_migrate.carry.settings import Settings
from spine_migrate.carry.throttle import INTERVAL, Throttle
from spine_migrate.db.connect import Connection
from spine_migrate.errors import ServerFault
from tests.conftest import StartServer
from tests.database import Database
from tests.legacy import Legacy, arranged, build
from tests.waiting import until


@arranged
def legacy(built: Legacy) -> None:
    built.executions(1)
    built.move()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Busy:
    """A signal that says what the test wants, and counts who asks."""

    def __init__(self) -> None:
        self.looks = 0
        self.busy = False

    def look(self, _: Connection, limit: int) -> str | None:
        self.looks += 1
        return f"more than {limit}" if self.busy else None


def throttle(legacy: Legacy, signal: Busy, clock: Clock, *, retry_seconds: float = 0) -> Throttle:
    return Throttle(
        legacy.url,
        1,
        Settings(max_lock_waits=5),
        {"max-lock-waits": signal},
        stop=threading.Event(),
        retry_seconds=retry_seconds,
        clock=clock,
    )


def told(legacy: Legacy) -> str | None:
    found: str | None = legacy.value("SELECT held_by FROM spine_migrate.control")
    return found


def since(legacy: Legacy) -> datetime | None:
    found: datetime | None = legacy.value("SELECT held_since FROM spine_migrate.control")
    return found


def test_many_workers_are_one_reading_a_second(legacy: Legacy) -> None:
    signal, clock = Busy(), Clock()
    with throttle(legacy, signal, clock) as shared, ThreadPoolExecutor(8) as workers:
        assert not any(workers.map(lambda _: shared.wait(lambda _: None), range(200)))
        assert signal.looks == 1
        clock.now += INTERVAL
        assert not any(workers.map(lambda _: shared.wait(lambda _: None), range(200)))
        assert signal.looks == 2


def test_all_who_wait_go_on_and_know_that_the_server_was_busy(legacy: Legacy) -> None:
    signal, clock = Busy(), Clock()
    signal.busy = True
    heard: list[Hold | None] = []
    with throttle(legacy, signal, clock) as shared, ThreadPoolExecutor(3) as workers:
        waiting = [workers.submit(shared.wait, heard.append) for _ in range(3)]
        until(lambda: len(heard) == 3, "not all wait")
        assert told(legacy) == "max-lock-waits"
        signal.busy = False
        clock.now += INTERVAL
        assert [one.result(timeout=30) for one in waiting] == [True] * 3
    assert {one and (one.by, one.detail) for one in heard} == {("max-lock-waits", "more than 5"), None}
    assert told(legacy) is None


def test_since_when_is_kept_while_the_same_holds_it_back(legacy: Legacy) -> None:
    signal, clock = Busy(), Clock()
    signal.busy = True
    heard: list[Hold | None] = []
    with throttle(legacy, signal, clock) as shared, ThreadPoolExecutor(1) as workers:
        waiting = workers.submit(shared.wait, heard.append)
        until(lambda: heard, "it does not wait")
        began = since(legacy)
        legacy.execute("UPDATE spine_migrate.control SET settings = '{\"max-lock-waits\": 3}'")
        clock.now += INTERVAL
        until(lambda: len(heard) == 2, "the setting is not read")
        kept = since(legacy)
        legacy.execute("UPDATE spine_migrate.control SET paused_at = now(), paused_by = 'me'")
        clock.now += INTERVAL
        until(lambda: len(heard) == 3, "the pause is not read")
        paused = since(legacy)
        signal.busy = False
        legacy.execute("UPDATE spine_migrate.control SET paused_at = NULL, paused_by = NULL")
        clock.now += INTERVAL
        assert waiting.result(timeout=30)
    assert [one and one.by for one in heard] == ["max-lock-waits", "max-lock-waits", "pause", None]
    assert [one and one.detail for one in heard][:2] == ["more than 5", "more than 3"]
    assert began is not None
    assert kept == began
    assert paused is not None
    assert paused > began
    assert since(legacy) is None


def test_an_applier_keeps_no_limit_and_is_paused_all_the_same(legacy: Legacy) -> None:
    """It has no signals, whatever is set, and leaves it to the backfill to tell the ledger."""
    clock = Clock()
    legacy.execute("INSERT INTO spine_migrate.control (migration_id) VALUES (1) ON CONFLICT DO NOTHING")
    legacy.execute("UPDATE spine_migrate.control SET settings = '{\"max-lag-bytes\": 0}'")
    heard: list[Hold | None] = []
    applier = Throttle(
        legacy.url, 1, Settings(), {}, stop=threading.Event(), retry_seconds=0, records=lambda: False, clock=clock
    )
    with applier, ThreadPoolExecutor(1) as workers:
        assert not applier.wait(heard.append)
        legacy.execute("UPDATE spine_migrate.control SET paused_at = now(), paused_by = 'me'")
        clock.now += INTERVAL
        waiting = workers.submit(applier.wait, heard.append)
        until(lambda: heard, "it goes on")
        assert told(legacy) is None
        legacy.execute("UPDATE spine_migrate.control SET paused_at = NULL, paused_by = NULL")
        clock.now += INTERVAL
        assert not waiting.result(timeout=30), "a person is no busy server"


def test_a_first_reading_that_takes_too_long_is_made_again(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy server is no reason to give a run up before it has begun."""
    monkeypatch.setitem(module._SESSION, "statement_timeout", "200ms")  # noqa: SLF001 - five seconds would be long
    signal = Busy()
    with psycopg.connect(legacy.url) as holder:
        holder.execute("LOCK TABLE spine_migrate.control IN ACCESS EXCLUSIVE MODE")
        timer = threading.Timer(1.0, holder.rollback)
        timer.start()
        with throttle(legacy, signal, Clock(), retry_seconds=60):
            timer.join()
    assert signal.looks == 1


def test_its_session_is_lost_and_comes_back(legacy: Legacy, database: Database) -> None:
    signal, clock = Busy(), Clock()
    with throttle(legacy, signal, clock, retry_seconds=30) as shared:
        with database.connect_admin(autocommit=True) as admin:
            ended = admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND application_name = 'spine-migrate'"
            ).fetchall()
        assert ended == [(True,)]
        clock.now += INTERVAL
        assert not shared.wait(lambda _: None)
        assert signal.looks == 2


def test_a_server_that_stays_away_is_a_fault(start_server: StartServer) -> None:
    """Or nothing, to whom is to stop anyway."""
    server = start_server()
    legacy = build(server.url())
    legacy.executions(1)
    legacy.move()
    signal, clock = Busy(), Clock()
    shared = throttle(legacy, signal, clock)
    with shared:
        server.crash()
        clock.now += INTERVAL
        with pytest.raises(ServerFault):
            shared.wait(lambda _: None)
    with pytest.raises((ServerFault, psycopg.OperationalError)), throttle(legacy, signal, clock):
        pass
