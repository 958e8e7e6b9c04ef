"""The SHA-256 roots of both sides of one migration, in the snapshot that the connection is in."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from psycopg import sql

from spine_migrate.db import catalog
from spine_migrate.db.connect import Connection
from spine_migrate.db.ledger import Migration
from spine_migrate.db.raw import rows
from spine_migrate.mapping.bind import bind
from spine_migrate.mapping.emit.certificate import BUCKETS, Leaves
from spine_migrate.mapping.emit.parity import parity
from spine_migrate.mapping.model import Mapping
from spine_migrate.parity.snapshot import hold

# What the text of a row depends on, or could one day. They last until the transaction ends.
PINNED = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
}
# A row costs far more to hash than the planner believes, and what workers hand over is small and sorted.
TUNED = {"parallel_setup_cost": "0", "parallel_tuple_cost": "0"}


@dataclass(frozen=True)
class Side:
    """``buckets`` are 256 digests and ``root`` is the SHA-256 of their bytes in order; all in hexadecimal."""

    rows: int
    root: str
    buckets: tuple[str, ...]

    def changed(self, since: Side) -> list[int]:
        """The numbers of the buckets that are not as they were."""
        return [number for number in range(BUCKETS) if self.buckets[number] != since.buckets[number]]


@dataclass(frozen=True)
class Roots:
    """``old`` is what the legacy rows become, without those in quarantine; ``new`` the target rows of the mapping.

    ``statements`` gave the two; ``$1`` in them is the migration.
    """

    old: Side
    new: Side
    statements: tuple[str, str]


def roots(connection: Connection, migration: Migration, mapping: Mapping, *, exact: bool) -> Roots:
    """Reads both tables whole. ``exact`` takes values as they are spelled, else equal numbers have one spelling.

    Raises Drift or Refused where the tables do not have the mapping's shape, or were rewritten after the snapshot was
    taken, psycopg.Error where the server fails.
    """
    for name, value in (PINNED | TUNED).items():
        connection.execute("SELECT set_config(%s, %s, true)", (name, value))
    source, target = (catalog.named(connection, name) for name in (migration.source_table, migration.target_table))
    for table in (source, target):
        hold(connection, table.name, table.oid)
    compiled = Leaves(parity(bind(mapping, source, target), target.columns, exact=exact))
    statements = compiled.old(), compiled.new()
    old, new = (_side(connection, statement, migration.migration_id) for statement in statements)
    return Roots(old, new, (statements[0].as_string(connection), statements[1].as_string(connection)))


def _side(connection: Connection, statement: sql.Composed, migration_id: int) -> Side:
    found = {row["bucket"]: row for row in rows(connection, statement, migration_id)}
    empty = sha256().digest()
    digests = [bytes(found[number]["digest"]) if number in found else empty for number in range(BUCKETS)]
    return Side(
        rows=sum(row["rows"] for row in found.values()),
        root=sha256(b"".join(digests)).hexdigest(),
        buckets=tuple(digest.hex() for digest in digests),
    )
