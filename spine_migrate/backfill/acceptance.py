"""Accepting quarantined rows by name: they will stay behind at the cutover, and somebody has said why.

An accepted row stays in quarantine, whole, and in the legacy table. It is accepted as it is: when it changes, and is
refused again, it is open again.
"""

from __future__ import annotations

from collections.abc import Sequence

from spine_migrate.backfill.quarantine import Selected, absent
from spine_migrate.db import cutovers, ledger
from spine_migrate.db.connect import Connection
from spine_migrate.db.ledger import Migration
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused


def accept(connection: Connection, migrations: Sequence[Migration], selected: Selected, *, why: str) -> dict[str, int]:
    """Gives the number by reason; in one transaction. Raises Refused (``not-in-quarantine``, ``ledger-outdated``)."""
    if not cutovers.installed(connection):
        raise Refused("ledger-outdated", "Acceptance needs the revision spine_0008; run spine-migrate db upgrade.")
    numbers = [one.migration_id for one in migrations]
    values = {"migrations": numbers, "reasons": selected.reasons, "keys": selected.keys, "why": why}
    total: dict[str, int] = {}
    with connection.transaction():
        missing = absent(connection, migrations, selected.keys or [])
        if missing:
            raise Refused("not-in-quarantine", f"Not in quarantine: {', '.join(missing)}; nothing was accepted.")
        for number, reason, count in connection.execute(query("cutover", "accept"), values).fetchall():
            ledger.audit(connection, "quarantine accepted", migration_id=number, why=why, rows={reason: count})
            total[reason] = total.get(reason, 0) + count
    return total
