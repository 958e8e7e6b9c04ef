"""Sessions of the runtime's PostgreSQL parts, and their named queries with the tables' names filled in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg import errors, sql
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format, TransactionStatus
from psycopg.rows import dict_row

from spine_migrate.errors import ConfigurationError
from spine_migrate.execution.errors import BackendError
from spine_migrate.execution.pools import ForkedPool
from spine_migrate.execution.runs import COLUMNS
from spine_migrate.named_queries import load

Connection = psycopg.Connection[Any]
Row = dict[str, Any]

_TABLES = ("runs", "run_events", "run_handoff", "run_guard")


@contextmanager
def session(pool: ForkedPool, what: str, connection: Connection | None = None) -> Iterator[Connection]:
    """The caller's connection, or one of the pool's, in autocommit mode: a statement is one round trip and commits by
    itself; what takes several opens a transaction.

    Raises ConfigurationError for another encoding than UTF8, and BackendError where there is no server, it goes away,
    or it gives up for a reason that passes, and names ``what``. It may have committed, then.
    """
    if connection is not None:
        _check_encoding(connection, what)
        yield connection
        return
    try:
        with pool.connection() as own, _ours(own):
            _check_encoding(own, what)
            yield own
    # What the pool raises itself, PoolTimeout for one, is an OperationalError too.
    except psycopg.Error as error:
        if not _passes(error):
            raise
        raise BackendError(f"The {what} cannot be reached: {' '.join(str(error).split())}.") from error


def _check_encoding(connection: Connection, what: str) -> None:
    """Raises ConfigurationError where not every text can come through."""
    encoding = connection.info.parameter_status("client_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"The {what} needs connections with the client_encoding UTF8, and this one has {encoding}; set"
            ' kwargs={"client_encoding": "utf8"} on its pool.'
        )


@contextmanager
def _ours(connection: Connection) -> Iterator[None]:
    """For the time being; the application may have its pool's connections otherwise."""
    if connection.autocommit:
        yield
        return
    connection.autocommit = True
    try:
        yield
    finally:
        if not connection.closed:
            connection.autocommit = False


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Several statements of a session, READ COMMITTED whatever the application has its connections at."""
    before = connection.isolation_level, connection.read_only
    connection.isolation_level, connection.read_only = _LEVEL, None
    try:
        with connection.transaction():
            yield
    finally:
        if not connection.closed:
            connection.isolation_level, connection.read_only = before


class _Cursor(psycopg.Cursor[Row]):
    """Rows and types of our own: row and cursor factories, adapters, DateStyle and time zone that an application has
    set on its connections make no difference. Times are in UTC, uuids are text.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, row_factory=dict_row)

    @property
    def adapters(self) -> AdaptersMap:
        return _ADAPTERS


def execute(
    connection: Connection, query: sql.Composed | str, values: Row, *, prepare: bool | None = None
) -> psycopg.Cursor[Row]:
    """Execute with a cursor of our own. ``prepare`` is that of psycopg."""
    cursor = _Cursor(connection)
    while True:
        try:
            return cursor.execute(query, values, prepare=prepare, binary=True)
        except errors.SerializationFailure:
            # A statement by itself, where the default is REPEATABLE READ: nothing was done, and a new one sees more.
            if connection.info.transaction_status != TransactionStatus.IDLE:
                raise


def execute_many(connection: Connection, query: str, values: Sequence[Row]) -> list[Row | None]:
    """The same statement for each of ``values`` in one go, in whatever transaction there is; the first row of each."""
    if not values:
        return []
    cursor = _Cursor(connection)
    cursor.format = Format.BINARY
    cursor.executemany(query, values, returning=True)
    rows = [cursor.fetchone()]
    while cursor.nextset():
        rows.append(cursor.fetchone())
    return rows


class _Instant(Loader):
    """timestamptz; the infinite ones, which a migrated history may have, are the first and last that Python has."""

    format = Format.BINARY

    def load(self, data: bytes | bytearray | memoryview) -> datetime:
        microseconds = int.from_bytes(data, "big", signed=True)
        try:
            return _EPOCH + timedelta(microseconds=microseconds)
        except OverflowError:
            return _LAST if microseconds > 0 else _FIRST


class _Json(Loader):
    """jsonb, which comes as text after the number of its version."""

    format = Format.BINARY

    def load(self, data: bytes | bytearray | memoryview) -> Any:
        return json.loads(bytes(data)[1:])


class _Uuid(Loader):
    format = Format.BINARY

    def load(self, data: bytes | bytearray | memoryview) -> str:
        return str(UUID(bytes=bytes(data)))


_LEVEL = psycopg.IsolationLevel.READ_COMMITTED
#: From which PostgreSQL counts.
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
_ADAPTERS = AdaptersMap(psycopg.adapters)
_ADAPTERS.register_loader("timestamptz", _Instant)
_ADAPTERS.register_loader("uuid", _Uuid)
_ADAPTERS.register_loader("jsonb", _Json)


def tables(schema: str | None) -> dict[str, sql.Composable]:
    """What the placeholders of the runtime's queries stand for. Without a schema the search_path finds them."""
    parts = [] if schema is None else [schema]
    names = {name: sql.Identifier(*parts, name) for name in _TABLES}
    # For nextval(), which takes a name as text.
    fence = sql.Literal(sql.Identifier(*parts, "run_fence").as_string(None))
    # By name, and never all there are: a prepared statement whose result gets another column is refused.
    record = sql.SQL(", ").join(sql.Identifier("r", column) for column in COLUMNS)
    return {**names, "run_fence": fence, "record": record}


def escaped(name: str) -> str:
    """A name as it stands in a query that takes parameters."""
    return name.replace("%", "%%")


def queries(module: str, schema: str | None) -> dict[str, str]:
    """The queries of ``sql/<module>.sql`` by name, as text: psycopg would put a Composed together every time."""
    names = tables(schema if schema is None else escaped(schema))
    texts = load("spine_migrate.execution", module)
    return {name: sql.SQL(text).format(**names).as_string(None) for name, text in texts.items()}


def _passes(error: psycopg.Error) -> bool:
    """The connection is gone or could not be made, or the server refuses work that it would take at another time: too
    busy, a timeout, a deadlock, a standby in the place of the primary.
    """
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError)
    return error.sqlstate.startswith(("08", "40", "53", "57", "58", "25006", "55P03"))
