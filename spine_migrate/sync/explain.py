"""The locks that the beginning of a capture takes, as the plan shows them. What ``start`` does, not done."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg import sql

from spine_migrate.carry import references
from spine_migrate.carry.tables import Tables, live
from spine_migrate.db import captures, ledger
from spine_migrate.db.connect import Connection
from spine_migrate.db.lock_modes import LockMode
from spine_migrate.db.patience import Patience
from spine_migrate.mapping.emit.capture import Capture, Key
from spine_migrate.plan.locking import MOMENT, Taking
from spine_migrate.sync import capture
from spine_migrate.sync.start import require

STAGE = "capture"


def takings(connection: Connection, tables: Tables, patience: Patience) -> list[Taking]:
    """In the order in which they are taken; none where the table is captured already. Raises Refused as ``start`` would
    before it takes a lock.
    """
    ledger.require(connection)
    require(connection, tables)
    migration = live(connection, tables)
    if migration is not None and captures.captured(connection, migration.migration_id, captures.FORWARD) is not None:
        return []
    return [
        *_indexes(connection, tables, patience, growing=migration is None or migration.step == "backfill"),
        *_triggers(connection, tables, patience),
    ]


def _indexes(connection: Connection, tables: Tables, patience: Patience, *, growing: bool) -> Iterator[Taking]:
    found = references.references(connection, tables.target.oid)
    for one in references.needed(found, growing=growing):
        yield Taking(
            STAGE,
            one.table,
            LockMode.SHARE_UPDATE_EXCLUSIVE,
            one.build().as_string(None),
            (),
            f"while the index is built, which waits for every transaction that is older, for {patience.seconds:g} s",
            None,
            behind=LockMode.SHARE,
        )


def _triggers(connection: Connection, tables: Tables, patience: Patience) -> Iterator[Taking]:
    oid = tables.source.oid
    made = Capture(0, capture.row_style(connection, oid) is not None, Key.column(tables.binding.mapping.key))
    for member in capture.members_of(connection, oid):
        count = sum(1 for _ in made.triggers(member.table, partition=member.partition)) // 2
        asks = sql.SQL("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE").format(member.table.identifier)
        yield Taking(
            STAGE,
            member.table,
            LockMode.SHARE_ROW_EXCLUSIVE,
            asks.as_string(None),
            (
                f"CREATE TRIGGER, {count} times; each appends keys to spine_migrate.change_log, and nothing else",
                "ALTER TABLE … ENABLE ALWAYS TRIGGER, for each of them",
            ),
            MOMENT,
            patience.lock_timeout,
        )
