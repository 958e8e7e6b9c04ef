"""The locks that a retire takes, as ``retire --dry-run`` shows them. What ``cutover.retire`` does, not done."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from spine_migrate.carry.known import Known
from spine_migrate.cutover.hanging import places
from spine_migrate.cutover.retire_gates import Drop
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.cutovers import cutovers
from spine_migrate.db.lock_modes import LockMode
from spine_migrate.db.patience import Patience
from spine_migrate.plan.locking import MOMENT, Taking

STAGE = "retire"
_COMPARED = "while the archive is compared with it, and again until the commit of the drop"


def takings(
    connection: Connection, members: Sequence[Known], drops: Sequence[Drop], patience: Patience
) -> list[Taking]:
    """In the order in which they are taken: the legacy tables against writers, then what the application may want."""
    legacy = [one.tables.source.name for one in members]
    views = [
        one.name
        for one in places(connection, members, cutovers(connection, [one.migration.migration_id for one in members]))
        if one.name not in legacy
    ]
    targets = list(dict.fromkeys(one.tables.target.name for one in members))
    found = [
        Taking(
            STAGE,
            table,
            LockMode.SHARE_ROW_EXCLUSIVE,
            f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE",
            ("the rows are read, for the archive and its digest",),
            _COMPARED,
            patience.lock_timeout,
        )
        for table in legacy
    ]
    for tables, kinds in ((views, ["view"]), (targets, ["trigger", "index"]), (legacy, ["foreign key", "table"])):
        found += _dropped(tables, [one.statement for one in drops if one.kind in kinds], patience)
    return found


def _dropped(tables: Collection[Name], statements: Sequence[str], patience: Patience) -> list[Taking]:
    if not statements:
        return []
    asks, *under = statements
    return [
        Taking(STAGE, table, LockMode.ACCESS_EXCLUSIVE, asks, tuple(under), MOMENT, patience.lock_timeout)
        for table in tables
    ]
