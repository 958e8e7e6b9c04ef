"""The guard in PostgreSQL: the table ``run_guard``, whose locks expire by the server's clock.

Fences come from ``run_fence``, as those of the ledger's claims do. An entity keeps its row when its lock ends, and uses
it again.
"""

from __future__ import annotations

from typing import Any

from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool

from spine_migrate.execution.guards.protocol import Held, milliseconds
from spine_migrate.execution.pools import ForkedPool
from spine_migrate.execution.sessions import queries, session


class PostgresGuard:
    """``schema`` holds the table and the sequence; without one the connections' search_path finds them."""

    def __init__(self, pool: ConnectionPool[Any], schema: str | None = None) -> None:
        self._pool = ForkedPool(pool)
        # At once: before Python 3.12 a cached_property has a lock, which a fork could leave held.
        self._queries = queries("guards", schema)

    def acquire(self, entity_type: str, entity_id: str, *, holder: str, ttl_seconds: float) -> int | None:
        _, row = self._run("acquire", entity_type, entity_id, holder=holder, ttl=milliseconds(ttl_seconds))
        return None if row is None else int(row[0])

    def renew(self, entity_type: str, entity_id: str, *, fence: int, ttl_seconds: float) -> bool:
        changed, _ = self._run("renew", entity_type, entity_id, fence=fence, ttl=milliseconds(ttl_seconds))
        return changed > 0

    def release(self, entity_type: str, entity_id: str, *, fence: int) -> bool:
        changed, _ = self._run("release", entity_type, entity_id, fence=fence)
        return changed > 0

    def held(self, entity_type: str, entity_id: str) -> Held | None:
        _, row = self._run("held", entity_type, entity_id)
        return None if row is None else Held(*row)

    def _run(self, name: str, entity_type: str, entity_id: str, **values: Any) -> tuple[int, TupleRow | None]:
        """How many rows a query changed or found, and the first that it gives."""
        with session(self._pool, "guard") as opened:
            cursor = opened.execute(self._queries[name], {"entity_type": entity_type, "entity_id": entity_id, **values})
            return cursor.rowcount, cursor.fetchone() if cursor.description else None
