"""Changes that are captured and not applied yet: what differs in a row of theirs is on its way, not wrong.

The log is read in the snapshot of the comparison. A change is committed with its entry in the log, so a row without an
entry there must be on the target as it is on the legacy side: its difference is a real one, whatever is written. But
for a link that the ledger has as open although its row has come: that is completed by the applier a moment later.

After a TRUNCATE, and after ``sync start`` and a rollback, which find by a comparison what was written before, the
applier removes what has no legacy row. That is no entry for each row: it is about rows without a legacy row and no
others, so that a row that has one is judged by the log as ever.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from psycopg import sql

from spine_migrate.db import captures
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.sql import key
from spine_migrate.parity.model import Difference, Reason

# With more changes than this in the log, which rows they are about is not looked up.
MOST = 100_000
IN_FLIGHT = "in-flight"
# Differences that the removal of what has no legacy row makes an end of.
_WITHOUT_LEGACY = frozenset({"extra", "gone"})


@dataclass(frozen=True)
class InFlight:
    """``keys`` of legacy rows and ``target_keys`` they lead to, as text; ``everything``: any row may be on its way;
    ``removing``: what has no legacy row is removed next; ``followed``: changes are captured, so there is an applier to
    complete links.
    """

    followed: bool = False
    everything: bool = False
    removing: bool = False
    keys: frozenset[str] = field(default_factory=frozenset)
    target_keys: frozenset[str] = field(default_factory=frozenset)

    def has(self, one: Difference) -> bool:
        if self.followed and one.open_link:
            return True
        return self.everything or one.key in self.keys or one.target_key in self.target_keys

    def goes(self, one: Difference) -> bool:
        """Whether it is of a row that is removed next because it has no legacy row."""
        return self.removing and one.kind in _WITHOUT_LEGACY

    def explains(self, differences: Iterable[Difference], total: int) -> bool:
        """Whether nothing is certain to differ: none that is named is of a row that is not on its way. ``total`` is how
        many there are with those that are not named.
        """
        named = list(differences)
        if not named:
            return total > 0 and (self.everything or self.removing or bool(self.keys))
        return all(self.has(one) or self.goes(one) for one in named)


def in_flight(connection: Connection, migration_id: int, binding: Binding) -> InFlight:
    """As the ledger stands in the comparison's snapshot."""
    found = captures.captured(connection, migration_id, captures.FORWARD)
    if found is None:
        return InFlight()
    rows = connection.execute(
        query("capture", "in_flight"), {"capture_id": found.capture_id, "limit": MOST + 1}
    ).fetchall()
    if len(rows) > MOST:
        return InFlight(followed=True, everything=True)
    keys = [row_key for (row_key,) in rows if row_key is not None]
    return InFlight(
        followed=True,
        removing=len(keys) < len(rows),
        keys=frozenset(keys),
        target_keys=frozenset(_led_to(connection, binding, keys)),
    )


def _led_to(connection: Connection, binding: Binding, keys: list[str]) -> list[str]:
    statement = sql.SQL("SELECT ({})::text FROM unnest($1::text[]::{}[]) AS s ({})").format(
        key(binding, "s"), sql.SQL(binding.live[binding.mapping.key].sql_type), sql.Identifier(binding.mapping.key)
    )
    return [target_key for (target_key,) in execute(connection, statement, keys)]


def reason(found: InFlight) -> Reason:
    how_many = "rows" if found.everything or found.removing else f"{len(found.keys)} rows"
    return Reason(
        IN_FLIGHT,
        f"Changes of {how_many} are captured and not applied yet, but for open links no other row is known to differ; "
        f"compare again when spine-migrate sync status says that the target is up to date.",
    )
