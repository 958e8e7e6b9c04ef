"""Two servers: legacy rows are carried forward on the source's and looked at on the target's."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit import carried as emit
from spine_migrate.parity.model import Difference
from spine_migrate.parity.rows import GONE, Gone, Keys, Part
from spine_migrate.parity.tables import Tables

_BROKEN = sql.SQL(
    "SELECT DISTINCT wanted FROM spine_migrate.link"
    " WHERE migration_id = $1 AND state = 'broken' AND target_key = ANY($2::text[])"
)
_HELD = sql.SQL("SELECT source_key, discarded_at IS NOT NULL FROM spine_migrate.quarantine WHERE migration_id = $1")


@dataclass(frozen=True)
class Apart:
    """The ``Source`` of rows on another server. ``legacy`` is ``$1`` of the legacy side: the keys in quarantine."""

    tables: Tables
    legacy: list[str]

    def part(self, keys: Keys, first: int) -> Part:
        chosen, columns = emit.carried(self.tables.parity, first)
        rows = execute(
            self.tables.source.connection, emit.carry(self.tables.legacy_side), self.legacy, keys.source
        ).fetchall()
        arrays = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(columns)]
        return Part(chosen, (*arrays, keys.target, self._come(keys.target)))

    def _come(self, targets: list[str]) -> list[str]:
        """What links of these rows lead to that the ledger calls broken, as far as a legacy row is there by now."""
        wanted = [key for (key,) in execute(self.tables.connection, _BROKEN, self.tables.migration_id, targets)]
        return [key for key, _ in self.led_to(wanted)] if wanted else []

    def led_to(self, targets: list[str]) -> list[tuple[str, str]]:
        """Pairs of these target keys and the keys of legacy rows that lead to them."""
        statement = emit.led_to(self.tables.legacy_side)
        return execute(self.tables.source.connection, statement, self.legacy, targets).fetchall()

    def gone(self, named: int) -> Gone:
        """Legacy rows that were deleted after they had gone to quarantine."""
        held = execute(self.tables.connection, _HELD, self.tables.migration_id).fetchall()
        keys = [key for key, _ in held]
        present = {
            key for (key,) in execute(self.tables.source.connection, emit.present(self.tables.legacy_side), keys)
        }
        missing = [(key, discarded) for key, discarded in held if key not in present]
        left = sorted(key for key, discarded in missing if not discarded)
        listed = [Difference("gone", key, None, note=GONE) for key in left[:named]]
        return Gone(len(missing), len(missing) - len(left), listed)
