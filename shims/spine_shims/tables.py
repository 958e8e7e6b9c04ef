"""The shims' tables in PostgreSQL as an application's process uses them: a session of its own, apart from the
application's pool, opened when it is first needed and used by threads in the background.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool

from spine_migrate.execution.errors import BackendError
from spine_migrate.execution.sessions import Connection, Row, escaped, execute
from spine_migrate.named_queries import load

_TABLES = ("shim_mode", "shim_call", "shim_worker")

#: libpq's. A server that does not answer is given up, in the background, before the next time comes.
_PATIENCE = {"connect_timeout": "2", "tcp_user_timeout": "10000", "application_name": "spine_shims"}
_STATEMENT_SECONDS = 10.0
#: A worker that was seen that long ago is taken for ready; it announces itself more often than that.
READY_SECONDS = 180.0
#: A worker without the shim that was seen that long ago may still be there; it is looked for more often than that.
MIXED_SECONDS = 120.0
#: Two processes of one host that are apart by at most this leave no gap in what they have seen.
GAP_SECONDS = 900.0
#: What was announced that lately needs not be announced again.
FRESH_SECONDS = 20.0

_GRANTS = "spine-migrate grants shims prints what the role needs."
#: A table in a schema that the role may not use does not exist for it either.
_WHAT_TO_DO = {"42P01": f" Run spine-migrate db upgrade; where that is done, {_GRANTS}", "42501": f" {_GRANTS}"}


@dataclass
class _Own:
    """What a process has opened; ``lock`` is held while it is used."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    connection: Connection | None = None


class Tables:
    """``connect`` opens a connection; ``schema`` holds the tables, without it the search_path finds them.

    May be inherited by a forked child, which opens a session of its own. Every method raises BackendError where the
    database cannot be used, whatever the reason is.
    """

    def __init__(self, connect: Callable[[], Connection], schema: str | None = None) -> None:
        self._connect = connect
        # At once: before Python 3.12 a cached_property has a lock, which a fork could leave held.
        self._queries = _queries(schema)
        # That of a parent stays, unused: it is not the child's to close.
        self._by_process: dict[int, _Own] = {}
        # What uses it, and is registered later, comes to its end first.
        atexit.register(self.close)

    @classmethod
    def at(cls, url: str, schema: str | None = None) -> Tables:
        """A libpq URL or key=value string; what it says of timeouts counts."""

        def connect() -> Connection:
            given = conninfo_to_dict(url)
            return psycopg.connect(**{**_PATIENCE, **given})  # type: ignore[arg-type] # libpq's options, by name

        return cls(connect, schema)

    @classmethod
    def like(cls, pool: ConnectionPool[Any], schema: str | None = None) -> Tables:
        """The database that a pool is for, with a connection that is not the pool's."""

        def connect() -> Connection:
            conninfo = pool.conninfo() if callable(pool.conninfo) else pool.conninfo
            kwargs = pool.kwargs() if callable(pool.kwargs) else pool.kwargs
            given = {**_PATIENCE, **conninfo_to_dict(conninfo), **(kwargs or {})}
            return psycopg.connect(**given)

        return cls(connect, schema)

    def modes_and_ready(self) -> tuple[dict[str, str], frozenset[str], frozenset[str]]:
        """The modes in the table, as text, by task; the tasks for which workers are there; and those that a worker has
        without their shim.
        """
        about = {"ready_seconds": READY_SECONDS, "mixed_seconds": MIXED_SECONDS}
        with self._session() as connection:
            rows = self._execute(connection, "modes_and_ready", about).fetchall()
        modes = {row["task"]: row["mode"] for row in rows if row["mode"] is not None}
        ready, mixed = (frozenset(row["task"] for row in rows if row["shimmed"] is is_so) for is_so in (True, False))
        return modes, ready, mixed

    def seen_without(self, seen: Sequence[tuple[str, str]]) -> None:
        """Tasks, each with a node that has it without its shim."""
        tasks, nodes = (list(column) for column in zip(*seen, strict=True)) if seen else ([], [])
        with self._session() as connection:
            self._execute(connection, "seen_without", {"tasks": tasks, "nodes": nodes})

    def write(
        self, host: str, version: str, counted: Mapping[str, Sequence[Any]], announced: Mapping[str, float]
    ) -> None:
        """In one transaction: add ``counted``, the columns of the query ``count`` by name, and say for how many seconds
        this process has had each of the tasks that are ``announced``.
        """
        who = {"host": host, "version": version}
        with self._session() as connection:
            if counted["tasks"]:
                self._execute(connection, "count", {**who, **counted})
            if announced:
                about = {"gap_seconds": GAP_SECONDS, "fresh_seconds": FRESH_SECONDS}
                tasks = {"tasks": list(announced), "uptimes": list(announced.values())}
                self._execute(connection, "announce", {**who, **about, **tasks})

    def close(self) -> None:
        """The session of this process; another one is opened where it is needed again."""
        own = self._own()
        with own.lock:
            _give_up(own)

    @contextmanager
    def _session(self) -> Iterator[Connection]:
        """A transaction, by one thread at a time."""
        own = self._own()
        with own.lock:
            try:
                connection = self._opened(own)
                with connection.transaction():
                    limit = {"milliseconds": str(int(_STATEMENT_SECONDS * 1000))}
                    self._execute(connection, "limit_statement", limit)
                    yield connection
            except psycopg.Error as error:
                _give_up(own)
                # The first line alone: what follows may repeat values.
                said = (str(error).splitlines() or [type(error).__name__])[0]
                todo = _WHAT_TO_DO.get(error.sqlstate or "", "")
                raise BackendError(f"The tables of the shims cannot be used: {said}.{todo}") from error

    def _opened(self, own: _Own) -> Connection:
        """The one that there is, where it still leads anywhere: a server that was restarted has closed it since, or a
        pooler that was tired of it.
        """
        if own.connection is not None:
            try:
                own.connection.execute("", prepare=False)
            except psycopg.Error:
                _give_up(own)
        if own.connection is None:
            own.connection = self._connect()
            own.connection.autocommit = True
        return own.connection

    def _execute(self, connection: Connection, name: str, values: Row) -> psycopg.Cursor[Row]:
        # Not prepared: behind a pooler the next transaction may be in another session.
        return execute(connection, self._queries[name], values, prepare=False)

    def _own(self) -> _Own:
        return self._by_process.setdefault(os.getpid(), _Own())


def _queries(schema: str | None) -> dict[str, sql.Composed]:
    parts = [] if schema is None else [escaped(schema)]
    names = {name: sql.Identifier(*parts, name) for name in _TABLES}
    return {name: sql.SQL(text).format(**names) for name, text in load("spine_shims", "shims").items()}


def _give_up(own: _Own) -> None:
    connection, own.connection = own.connection, None
    if connection is not None:
        with suppress(psycopg.Error):
            connection.close()
