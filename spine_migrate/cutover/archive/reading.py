"""The session in which rows are copied out and in: what their text depends on, and one snapshot for all tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import pq, sql

from spine_migrate.cutover.archive.model import Table
from spine_migrate.cutover.archive.statements import copy
from spine_migrate.db import catalog
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import PINNED, Connection

# Each value has one text that gives the same value back. They last until the transaction ends.
SETTINGS = {
    **PINNED,
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    # As pg_dump has it.
    "IntervalStyle": "postgres",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmloption": "content",
    "array_nulls": "on",
    "row_security": "off",
    "quote_all_identifiers": "off",
}

_TO = sql.SQL("TO STDOUT")


def settle(connection: Connection, settings: dict[str, str]) -> None:
    for name, value in settings.items():
        connection.execute("SELECT pg_catalog.set_config(%s, %s, true)", (name, value))


@contextmanager
def snapshot(connection: Connection, tables: list[Name]) -> Iterator[None]:
    """REPEATABLE READ, READ ONLY, with ``SETTINGS``; nobody changes the shape of the tables, or of their partitions,
    from before the snapshot until the block ends. A transaction that the caller has begun is read as it is, and has its
    own settings again when the block ends well. Raises Refused as ``db.catalog.find`` does.
    """
    for name in tables:
        catalog.find(connection, name.table, name.schema)
    if connection.info.transaction_status != pq.TransactionStatus.IDLE:
        _lock(connection, tables)
        names = [*SETTINGS, "client_encoding"]
        asked = "SELECT name, pg_catalog.current_setting(name) FROM unnest(%s::text[]) AS name"
        before = dict(connection.execute(asked, [names]).fetchall())
        settle(connection, SETTINGS)
        yield
        settle(connection, before)
        return
    modes = connection.isolation_level, connection.read_only
    connection.isolation_level, connection.read_only = psycopg.IsolationLevel.REPEATABLE_READ, True
    try:
        with connection.transaction():
            # LOCK takes no snapshot, the next statement does (PostgreSQL manual, LOCK).
            _lock(connection, tables)
            settle(connection, SETTINGS)
            yield
    finally:
        if not connection.closed:
            connection.isolation_level, connection.read_only = modes


def _lock(connection: Connection, tables: list[Name]) -> None:
    for name in tables:
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(name.identifier))


def lines(connection: Connection, place: Name, table: Table) -> Iterator[bytes | memoryview | bytearray]:
    """The rows of ``table`` as they are at ``place``, each as its line of COPY's text format: the server sends one line
    per message (PostgreSQL manual, 55.2.7, COPY operations).
    """
    with connection.cursor() as cursor, cursor.copy(copy(place, table, _TO)) as rows:
        yield from rows
