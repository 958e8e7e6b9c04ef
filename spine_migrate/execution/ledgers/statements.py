"""The ledger's named queries on a connection: what all parts of the ledger in PostgreSQL share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

from spine_migrate.execution import sessions
from spine_migrate.execution.pools import ForkedPool
from spine_migrate.execution.runs import RunRecord, record_of
from spine_migrate.execution.sessions import Connection, Row
from spine_migrate.execution.storable import written


@dataclass(frozen=True)
class Session:
    """One connection for a while. ``borrowed``: it is the caller's, in whatever transaction the caller has."""

    connection: Connection
    queries: dict[str, str]
    borrowed: bool

    def execute(self, name: str, values: Row) -> psycopg.Cursor[Row]:
        return sessions.execute(self.connection, self.queries[name], values)

    def execute_many(self, name: str, values: Sequence[Row]) -> list[Row | None]:
        """A row, or None, for each of ``values``, in one go and one transaction."""
        return sessions.execute_many(self.connection, self.queries[name], values)

    def one(self, name: str, values: Row) -> Row | None:
        return self.execute(name, values).fetchone()

    def of_key(self, idempotency_key: str) -> RunRecord | None:
        found = self.one("of_key", {"idempotency_key": idempotency_key})
        return None if found is None else record_of(found)

    def known_keys(self, idempotency_keys: list[str]) -> set[str]:
        """Those that a run has."""
        return {row["idempotency_key"] for row in self.execute("known_keys", {"keys": idempotency_keys})}

    def transaction(self) -> AbstractContextManager[object]:
        """Several statements that are committed together; part of the caller's transaction on a borrowed connection."""
        return self.unbroken() if self.borrowed else sessions.transaction(self.connection)

    def savepoint(self) -> AbstractContextManager[object]:
        """Inside a transaction."""
        return self.connection.transaction()

    def unbroken(self) -> AbstractContextManager[object]:
        """A savepoint in the caller's transaction, which must not break because of ours."""
        if not self.borrowed:
            return nullcontext()
        connection = self.connection
        if not connection.autocommit and connection.info.transaction_status == TransactionStatus.IDLE:
            # Nothing was executed yet, and transaction() would commit what is the first part of the caller's.
            psycopg.Cursor(connection).execute("SELECT")
        return connection.transaction()


class Statements:
    """``schema`` holds the tables; without one the connections' search_path finds them."""

    def __init__(self, pool: ConnectionPool[Any], schema: str | None) -> None:
        self._pool = ForkedPool(pool)
        #: The table, as it stands in a query that takes parameters.
        self.runs: sql.Composable = sessions.tables(schema if schema is None else sessions.escaped(schema))["runs"]
        self.runs_name: str = sessions.tables(schema)["runs"].as_string(None)
        # At once: before Python 3.12 a cached_property has a lock, which a fork could leave held.
        self._queries = sessions.queries("ledger", schema)

    @contextmanager
    def session(self, connection: Connection | None = None) -> Iterator[Session]:
        """On the caller's connection, or on one of the pool's. Raises as ``sessions.session``."""
        with sessions.session(self._pool, "ledger", connection) as opened:
            yield Session(opened, self._queries, borrowed=connection is not None)


def json_column(value: Any) -> str | None:
    """What goes into a jsonb column, by the writer that the value was checked with; an application may have set another
    one for all of psycopg.
    """
    return None if value is None else written(value)
