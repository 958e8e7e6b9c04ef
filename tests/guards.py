"""What of a guard a test needs in another process: how it is made there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from psycopg_pool import ConnectionPool

from spine_migrate.execution.guards.postgres import PostgresGuard
from spine_migrate.execution.guards.protocol import ConcurrencyGuard
from spine_migrate.execution.guards.redis import RedisGuard


@contextmanager
def guard_of(url: str) -> Iterator[ConcurrencyGuard]:
    """The guard of a server, by the scheme of its URL."""
    if url.startswith("redis:"):
        with redis.Redis.from_url(url) as client:
            yield RedisGuard(client)
    else:
        with ConnectionPool(url, min_size=1, max_size=8, timeout=60) as pool:
            yield PostgresGuard(pool)
