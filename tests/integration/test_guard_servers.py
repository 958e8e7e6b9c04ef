"""What the guards owe to their servers: faults have one name, and fences grow whatever happens there."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import redis
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.execution.errors import BackendError
from spine_migrate.execution.guards.postgres import PostgresGuard
from spine_migrate.execution.guards.protocol import ConcurrencyGuard, Held
from spine_migrate.execution.guards.redis import RedisGuard
from tests.database import Database
from tests.guards import guard_of
from tests.redis_server import RedisServer

FEED = ("feed", "7")
CALLS: list[Callable[[ConcurrencyGuard], Any]] = [
    lambda guard: guard.acquire(*FEED, holder="a", ttl_seconds=60),
    lambda guard: guard.renew(*FEED, fence=1, ttl_seconds=60),
    lambda guard: guard.release(*FEED, fence=1),
    lambda guard: guard.held(*FEED),
]


def test_a_redis_that_is_gone_is_a_backend_error_and_comes_back_with_its_locks(redis_server: RedisServer) -> None:
    with guard_of(redis_server.url) as guard:
        fence = guard.acquire(*FEED, holder="a", ttl_seconds=600)
        assert fence is not None
        redis_server.kill()
        for call in CALLS:
            with pytest.raises(BackendError, match="The guard cannot be reached"):
                call(guard)
        redis_server.start()
        assert guard.held(*FEED) == Held("a", fence)
        assert guard.acquire(*FEED, holder="b", ttl_seconds=600) is None


def test_a_redis_that_only_reads_or_is_full_is_a_backend_error(redis_server: RedisServer) -> None:
    with guard_of(redis_server.url) as guard, redis.Redis.from_url(redis_server.url) as client:
        client.config_set("maxmemory", "1")
        with pytest.raises(BackendError, match="OOM"):
            guard.acquire(*FEED, holder="a", ttl_seconds=60)
        client.config_set("maxmemory", "0")
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(BackendError, match=r"READONLY|read only replica"):
            guard.acquire(*FEED, holder="a", ttl_seconds=60)


def test_a_key_of_another_kind_is_no_fault_of_the_server(redis_url: str) -> None:
    with guard_of(redis_url) as guard, redis.Redis.from_url(redis_url) as client:
        client.rpush("{spine-guard}:lock:4:feed:7", "somebody's list")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            guard.held(*FEED)


def test_a_fence_of_redis_is_larger_although_the_last_ones_are_lost(redis_url: str) -> None:
    with guard_of(redis_url) as guard, redis.Redis.from_url(redis_url) as client:
        before = guard.acquire(*FEED, holder="a", ttl_seconds=600)
        assert before is not None
        client.delete(*client.keys("{spine-guard}*"))
        after = guard.acquire(*FEED, holder="b", ttl_seconds=600)
        assert after is not None
        assert after > before


def test_a_fence_of_redis_is_larger_although_the_clock_goes_back(redis_url: str) -> None:
    ahead = 8_000_000_000_000_001
    with guard_of(redis_url) as guard, redis.Redis.from_url(redis_url) as client:
        client.set("{spine-guard}:fence", ahead)
        assert guard.acquire(*FEED, holder="a", ttl_seconds=600) == ahead + 1
        assert guard.acquire(*FEED, holder="a", ttl_seconds=600) == ahead + 2


def test_a_client_that_decodes_shares_locks_with_one_that_does_not(redis_url: str) -> None:
    with guard_of(redis_url) as guard, redis.Redis.from_url(redis_url, decode_responses=True) as client:
        decoding = RedisGuard(client)
        fence = guard.acquire(*FEED, holder="Ärger", ttl_seconds=600)
        assert fence is not None
        assert decoding.held(*FEED) == Held("Ärger", fence)
        again = decoding.acquire(*FEED, holder="Ärger", ttl_seconds=600)
        assert again is not None
        assert again > fence
        assert RedisGuard(client, "other").acquire(*FEED, holder="b", ttl_seconds=600) is not None


def test_a_server_that_forgot_the_scripts_is_told_them_again(redis_url: str) -> None:
    with guard_of(redis_url) as guard, redis.Redis.from_url(redis_url) as client:
        fence = guard.acquire(*FEED, holder="a", ttl_seconds=600)
        assert fence is not None
        client.script_flush()
        assert guard.renew(*FEED, fence=fence, ttl_seconds=600)
        assert guard.release(*FEED, fence=fence)


def test_the_keys_of_a_lock_are_in_one_slot_of_a_cluster() -> None:
    with RedisServer(cluster_enabled="yes") as server:
        with redis.Redis.from_url(server.url) as client:
            client.execute_command("CLUSTER ADDSLOTS", *range(16384))
            while client.cluster("info")["cluster_state"] != "ok":
                time.sleep(0.01)
        with redis.RedisCluster(host="127.0.0.1", port=server.port) as cluster:
            guard = RedisGuard(cluster)
            fence = guard.acquire(*FEED, holder="a", ttl_seconds=600)
            assert fence is not None
            assert guard.acquire(*FEED, holder="b", ttl_seconds=600) is None
            assert guard.release(*FEED, fence=fence)


def test_without_the_package_redis_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['redis'] = None; import spine_migrate.execution.guards.redis"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "ImportError: The Redis guard needs the package redis" in done.stderr
    assert "pip install 'spine-migrate[redis]'" in done.stderr


def test_a_postgresql_that_is_not_there_is_a_backend_error() -> None:
    with ConnectionPool("postgresql://127.0.0.1:1/none", min_size=0, max_size=1, timeout=0.2) as pool:
        for call in CALLS:
            with pytest.raises(BackendError, match="The guard cannot be reached"):
                call(PostgresGuard(pool))


def test_a_connection_that_ends_in_the_middle_is_a_backend_error(database: Database) -> None:
    database.arrange(schema.upgrade)
    with guard_of(database.url) as guard, database.connect() as other, ThreadPoolExecutor(1) as thread:
        guard.acquire(*FEED, holder="a", ttl_seconds=600)
        other.execute("SELECT FROM run_guard FOR UPDATE")
        acquiring = thread.submit(guard.acquire, *FEED, holder="a", ttl_seconds=600)
        with database.connect_admin(autocommit=True) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", [_waiting(admin)])
        with pytest.raises(BackendError, match="The guard cannot be reached"):
            acquiring.result()


def test_who_waited_for_a_lock_has_the_larger_fence(database: Database) -> None:
    """The fence is drawn after the wait, not when the statement begins."""
    database.arrange(schema.upgrade)
    with guard_of(database.url) as guard, database.connect() as other, ThreadPoolExecutor(1) as thread:
        other.execute(
            "INSERT INTO run_guard VALUES ('feed', '7', nextval('run_fence'), 'other', clock_timestamp() + '1 hour')"
        )
        acquiring = thread.submit(guard.acquire, *FEED, holder="a", ttl_seconds=600)
        with database.connect_admin(autocommit=True) as admin:
            _waiting(admin)
        (given,) = other.execute(
            "UPDATE run_guard SET fence = nextval('run_fence'), expires_at = clock_timestamp() RETURNING fence"
        ).fetchall()
        other.commit()
        fence = acquiring.result()
    assert fence is not None
    assert fence > given[0]


def test_the_table_is_found_by_schema_or_by_search_path(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("CREATE SCHEMA app")
    schema.upgrade(database.url, target_schema="app")
    with ConnectionPool(database.url, min_size=1) as pool:
        guard = PostgresGuard(pool, "app")
        fence = guard.acquire(*FEED, holder="a", ttl_seconds=600)
        assert fence is not None
        with pytest.raises(psycopg.errors.UndefinedTable):
            PostgresGuard(pool).held(*FEED)
    with guard_of(make_conninfo(database.url, options="-csearch_path=app")) as by_path:
        assert by_path.held(*FEED) == Held("a", fence)


def _waiting(admin: psycopg.Connection[Any]) -> int:
    """The process that waits for a lock in this database."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = admin.execute(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone()
        if found is not None:
            return int(found[0])
        time.sleep(0.005)
    raise AssertionError("nobody waits")
