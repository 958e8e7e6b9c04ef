"""Changes that are captured and not applied yet: what differs in a row of theirs is on its way, not wrong.

The log is read in the snapshot of the comparison. A change is committed with its entry in the log, so a row without an
entry there must be on the target as it is on the legacy side: its difference is a real one, whatever is written.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from psycopg import sql

from spine_migrate.db import captures
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.sql import key
from spine_migrate.parity.model import Difference, Reason
from spine_migrate.parity.tables import Tables

# With more changes than this in the log, which rows they are about is not looked up.
MOST = 100_000
IN_FLIGHT = "in-flight"


@dataclass(frozen=True)
class InFlight:
    """``keys`` of legacy rows and ``target_keys`` they lead to, as text; ``everything``: any row may be on its way."""

    everything: bool = False
    keys: frozenset[str] = field(default_factory=frozenset)
    target_keys: frozenset[str] = field(default_factory=frozenset)

    @property
    def nothing(self) -> bool:
        return not (self.everything or self.keys)

    def has(self, one: Difference) -> bool:
        return self.everything or one.key in self.keys or one.target_key in self.target_keys

    def explains(self, differences: Iterable[Difference], total: int) -> bool:
        """Whether nothing is certain to differ: none that is named is of a row that is not on its way. ``total`` is how
        many there are with those that are not named.
        """
        named = list(differences)
        return not self.nothing and total > 0 and all(map(self.has, named))


def in_flight(tables: Tables) -> InFlight:
    """As the ledger stands in the comparison's snapshot."""
    found = captures.captured(tables.connection, tables.migration_id, captures.FORWARD)
    if found is None:
        return InFlight()
    rows = tables.connection.execute(
        query("capture", "in_flight"), {"capture_id": found.capture_id, "limit": MOST + 1}
    ).fetchall()
    if len(rows) > MOST or any(row_key is None for (row_key,) in rows):
        return InFlight(everything=True)
    keys = [row_key for (row_key,) in rows]
    return InFlight(keys=frozenset(keys), target_keys=frozenset(_led_to(tables.connection, tables, keys)))


def _led_to(connection: Connection, tables: Tables, keys: list[str]) -> list[str]:
    binding = tables.parity.binding
    statement = sql.SQL("SELECT ({})::text FROM unnest($1::text[]::{}[]) AS s ({})").format(
        key(binding, "s"), tables.parity.source_key_type, sql.Identifier(binding.mapping.key)
    )
    return [target_key for (target_key,) in execute(connection, statement, keys)]


def reason(found: InFlight) -> Reason:
    how_many = "rows" if found.everything else f"{len(found.keys)} rows"
    return Reason(
        IN_FLIGHT,
        f"Changes of {how_many} are captured and not applied yet, and no other row is known to differ; compare again "
        f"when spine-migrate sync status says that the target is up to date.",
    )
