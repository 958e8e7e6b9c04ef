"""Every guard keeps the contract of guards/protocol.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from spine_migrate.db import schema
from spine_migrate.execution.guards.memory import MemoryGuard
from spine_migrate.execution.guards.protocol import ConcurrencyGuard, Held
from tests.database import Database, Role, fresh_database
from tests.guards import guard_of

FEED = ("feed", "7")
LONG = 600.0
#: Seconds that a lock lasts which a test waits out.
SHORT = 0.05


@pytest.fixture(scope="module")
def migrated(server_url: str, owner: Role) -> Iterator[Database]:
    with fresh_database(server_url, f"{owner.name}_guards", owner) as database:
        database.arrange(schema.upgrade)
        yield database


@pytest.fixture(params=["memory", "postgres", pytest.param("redis", marks=pytest.mark.redis)])
def guard(request: pytest.FixtureRequest) -> Iterator[ConcurrencyGuard]:
    with ExitStack() as opened:
        if request.param == "memory":
            yield MemoryGuard()
        elif request.param == "redis":
            yield opened.enter_context(guard_of(request.getfixturevalue("redis_url")))
        else:
            database: Database = request.getfixturevalue("migrated")
            with database.connect() as connection:
                connection.execute("TRUNCATE run_guard")
            yield opened.enter_context(guard_of(database.url))


def take(guard: ConcurrencyGuard, holder: str, *, ttl_seconds: float = LONG) -> int:
    fence = guard.acquire(*FEED, holder=holder, ttl_seconds=ttl_seconds)
    assert fence is not None
    return fence


def take_once_free(guard: ConcurrencyGuard, holder: str) -> int:
    end = time.monotonic() + 60
    while (fence := guard.acquire(*FEED, holder=holder, ttl_seconds=LONG)) is None:
        assert time.monotonic() < end, "the lock did not expire"
        time.sleep(SHORT / 5)
    return fence


def test_one_holder_at_a_time(guard: ConcurrencyGuard) -> None:
    fence = take(guard, "a")
    assert guard.acquire(*FEED, holder="b", ttl_seconds=LONG) is None
    assert guard.held(*FEED) == Held("a", fence)
    assert guard.release(*FEED, fence=fence)
    assert guard.held(*FEED) is None
    assert take(guard, "b") > fence


def test_a_refused_acquisition_does_not_shorten_the_lock(guard: ConcurrencyGuard) -> None:
    take(guard, "a")
    assert guard.acquire(*FEED, holder="b", ttl_seconds=0.001) is None
    time.sleep(SHORT)
    assert guard.acquire(*FEED, holder="b", ttl_seconds=LONG) is None


@pytest.mark.parametrize(
    "other",
    [("feed", "8"), ("user", "7"), ("feed:7", ""), ("", "feed:7"), ("4:feed", "7"), ("feed", "7 "), ("FEED", "7")],
)
def test_entities_are_told_apart(guard: ConcurrencyGuard, other: tuple[str, str]) -> None:
    take(guard, "a")
    assert guard.acquire(*other, holder="b", ttl_seconds=LONG) is not None


def test_where_the_type_ends_and_the_id_begins_is_known(guard: ConcurrencyGuard) -> None:
    assert guard.acquire("a:b", "c", holder="a", ttl_seconds=LONG) is not None
    assert guard.acquire("a", "b:c", holder="b", ttl_seconds=LONG) is not None


@pytest.mark.parametrize("name", ["Ärger : {7}", "a:b", "", "'; DROP TABLE run_guard; --", "x" * 500])
def test_any_text_is_a_name(guard: ConcurrencyGuard, name: str) -> None:
    fence = guard.acquire(name, name, holder=name, ttl_seconds=LONG)
    assert fence is not None
    assert guard.held(name, name) == Held(name, fence)
    assert guard.acquire(name, name, holder=f"{name}2", ttl_seconds=LONG) is None
    assert guard.renew(name, name, fence=fence, ttl_seconds=LONG)
    assert guard.release(name, name, fence=fence)


def test_the_same_holder_acquires_again_and_its_former_fence_is_lost(guard: ConcurrencyGuard) -> None:
    first = take(guard, "a")
    second = take(guard, "a")
    assert second > first
    assert not guard.renew(*FEED, fence=first, ttl_seconds=LONG)
    assert not guard.release(*FEED, fence=first)
    assert guard.held(*FEED) == Held("a", second)
    assert guard.renew(*FEED, fence=second, ttl_seconds=LONG)


def test_an_expired_lock_is_free_and_can_be_neither_renewed_nor_released(guard: ConcurrencyGuard) -> None:
    first = take(guard, "a", ttl_seconds=SHORT)
    second = take_once_free(guard, "b")
    assert second > first
    assert not guard.renew(*FEED, fence=first, ttl_seconds=LONG)
    assert not guard.release(*FEED, fence=first)
    assert guard.held(*FEED) == Held("b", second)


def test_an_expired_lock_is_lost_although_nobody_took_it(guard: ConcurrencyGuard) -> None:
    fence = take(guard, "a", ttl_seconds=SHORT)
    while guard.held(*FEED) is not None:
        time.sleep(SHORT / 5)
    assert not guard.renew(*FEED, fence=fence, ttl_seconds=LONG)
    assert not guard.release(*FEED, fence=fence)
    assert guard.held(*FEED) is None


def test_renewing_keeps_a_lock_beyond_its_first_end(guard: ConcurrencyGuard) -> None:
    fence = take(guard, "a", ttl_seconds=60)
    assert guard.renew(*FEED, fence=fence, ttl_seconds=LONG)
    # One that is renewed for a shorter time ends earlier, which shows that the end is the renewal's.
    assert guard.renew(*FEED, fence=fence, ttl_seconds=SHORT)
    assert take_once_free(guard, "b") > fence


def test_releasing_twice_leaves_the_next_holder_alone(guard: ConcurrencyGuard) -> None:
    first = take(guard, "a")
    assert guard.release(*FEED, fence=first)
    assert not guard.release(*FEED, fence=first)
    second = take(guard, "b")
    assert not guard.release(*FEED, fence=first)
    assert guard.held(*FEED) == Held("b", second)


def test_nothing_is_held_of_an_entity_nobody_asked_for(guard: ConcurrencyGuard) -> None:
    assert guard.held("feed", "never") is None
    assert not guard.renew("feed", "never", fence=1, ttl_seconds=LONG)
    assert not guard.release("feed", "never", fence=1)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_a_lock_needs_an_end(guard: ConcurrencyGuard, seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds above 0"):
        guard.acquire(*FEED, holder="a", ttl_seconds=seconds)
    fence = take(guard, "a")
    with pytest.raises(ValueError, match="seconds above 0"):
        guard.renew(*FEED, fence=fence, ttl_seconds=seconds)
    assert guard.held(*FEED) == Held("a", fence)


def test_of_many_threads_one_has_it_and_fences_only_grow(guard: ConcurrencyGuard) -> None:
    inside, most, fences = 0, 0, []
    mutex = threading.Lock()

    def work(holder: str) -> None:
        nonlocal inside, most
        for _ in range(10):
            while (fence := guard.acquire(*FEED, holder=holder, ttl_seconds=LONG)) is None:
                time.sleep(0.0005)
            with mutex:
                inside += 1
                most = max(most, inside)
                fences.append(fence)
            with mutex:
                inside -= 1
            assert guard.release(*FEED, fence=fence)

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work, f"thread {number}") for number in range(6)]:
            done.result()
    assert most == 1
    assert len(fences) == 60
    assert fences == sorted(set(fences))
