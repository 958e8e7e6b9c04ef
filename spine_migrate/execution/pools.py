"""A connection pool that outlives a fork."""

from __future__ import annotations

import atexit
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg_pool import ConnectionPool


class ForkedPool:
    """The pool that it is given, in the process that has made it. A child of that process has a pool like it, opened
    when it is first used: it has none of the pool's threads, and on the pool's connections it would speak into its
    parent's sessions.
    """

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._given = pool
        self._by_process = {os.getpid(): pool}

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """One of the pool's for a while. Unlike the pool's own ``connection`` it neither commits nor rolls back at the
        end, which takes its time also where there is nothing to end: what is left open the pool rolls back.
        """
        pool = self._own()
        lent = pool.getconn()
        try:
            yield lent
        finally:
            pool.putconn(lent)

    def _own(self) -> ConnectionPool[Any]:
        found = self._by_process.get(os.getpid())
        if found is None:
            # No lock, which could be held by a thread that the child does not have: of two pools one is never opened.
            found = self._by_process.setdefault(os.getpid(), _like(self._given))
            found.open()
            atexit.register(found.close)
        return found


def check_alive(connection: psycopg.Connection[Any]) -> None:
    """For a pool's ``check``, without a round trip: a server that ends a session, or that was restarted, has said so,
    and what it said is there to be read. Only then is it asked. Raises as psycopg where the session has ended.
    """
    if _has_something_to_say(connection.fileno()):
        ConnectionPool.check_connection(connection)


def _has_something_to_say(socket: int) -> bool:
    # Windows has no poll. A selector of the standard library takes ten times as long, or more, before every call.
    if not hasattr(select, "poll"):
        return bool(select.select([socket], [], [], 0)[0])
    waiting = select.poll()
    waiting.register(socket, select.POLLIN)
    return bool(waiting.poll(0))


def _like(pool: ConnectionPool[Any]) -> ConnectionPool[Any]:
    return type(pool)(
        pool.conninfo,
        connection_class=pool.connection_class,
        kwargs=pool.kwargs,
        min_size=pool.min_size,
        max_size=pool.max_size,
        open=False,
        configure=pool._configure,  # noqa: SLF001 the callbacks can be had in no other way
        check=pool._check,  # noqa: SLF001
        reset=pool._reset,  # noqa: SLF001
        timeout=pool.timeout,
        max_waiting=pool.max_waiting,
        max_lifetime=pool.max_lifetime,
        max_idle=pool.max_idle,
        reconnect_timeout=pool.reconnect_timeout,
        num_workers=pool.num_workers,
    )
