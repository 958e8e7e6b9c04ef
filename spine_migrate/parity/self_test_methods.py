"""The methods of a comparison over scratch tables, on the one session that can see them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from psycopg import RawCursor
from psycopg.rows import class_row

from spine_migrate.db.connect import Connection
from spine_migrate.mapping.emit.digest import Digest, Range
from spine_migrate.mapping.emit.parity import Parity
from spine_migrate.mapping.emit.sides import EVERY
from spine_migrate.parity import rows
from spine_migrate.parity.buckets import Buckets
from spine_migrate.parity.drill import Row, chunks, unlike

_CHUNK = 10_000
_ALL = 1_000_000


@dataclass(frozen=True)
class Looked:
    """``suspects``: the target keys that were looked at; None where all rows were."""

    found: rows.Found
    suspects: frozenset[str] | None = None


Finder = Callable[[Connection, Parity, int], Looked]
"""Connection, statements, number of the migration."""


def by_join(connection: Connection, parity: Parity, migration_id: int) -> Looked:
    return Looked(rows.look(connection, parity, migration_id, _ALL, finished=True))


def by_buckets(connection: Connection, parity: Parity, migration_id: int) -> Looked:
    """The digests of both sides, then what is in the buckets that differ, as ``parity.digest`` has them."""
    sides = [Digest(parity, source=source, scope=EVERY) for source in (True, False)]
    bits = _digest(connection, sides[0], migration_id).differing(_digest(connection, sides[1], migration_id))
    if bits is None:
        return Looked(rows.Found(), frozenset())
    old, new = (_rows(connection, side, migration_id, bits) for side in sides)
    suspects = list(chunks(unlike(iter(old), iter(new)), _CHUNK))
    parts = (rows.Beside(parity).part(chunk, 3) for chunk in suspects)
    found = rows.look(connection, parity, migration_id, _ALL, finished=True, parts=parts)
    keys = {key for chunk in suspects for key in chunk.target}
    return Looked(found, frozenset(keys))


def _digest(connection: Connection, side: Digest, migration_id: int) -> Buckets:
    binding = side.sides.binding
    whole = Range(binding.source if side.source else binding.target, 0, None)
    cursor = RawCursor(connection)
    cursor.execute(side.buckets([whole]), (migration_id,), binary=True)
    ((counts, hashes),) = cursor.fetchall()
    buckets = Buckets()
    buckets.add(counts, hashes)
    return buckets


def _rows(connection: Connection, side: Digest, migration_id: int, bits: bytes) -> list[Row]:
    cursor = RawCursor(connection, row_factory=class_row(Row))
    return cursor.execute(side.rows(), (migration_id, bits)).fetchall()


METHODS: dict[str, Finder] = {"join": by_join, "buckets": by_buckets}
