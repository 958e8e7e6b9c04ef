"""The sweep: does the ledger account for every source row, and if not, which are missing?

The scan reads blocks in physical order, so a row that an application moves to another block while it runs could be
missed. Counts and row versions tell whether that can be; the anti-join finds; what is found is moved by key.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg
from psycopg import sql

from spine_migrate.backfill.batch import Batches
from spine_migrate.backfill.pace import Pace
from spine_migrate.carry.rows import Care, Carrier, Done, halved
from spine_migrate.carry.scope import Keys
from spine_migrate.carry.steady import level, steady
from spine_migrate.db.captures import batch_in_flight, unless_rewritten
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.sql import is_ours, key

BATCH = 5_000
# Finding reads both tables, so as many keys as memory bears are found at a time.
LOOK_AHEAD = 100_000


@dataclass(frozen=True)
class Account:
    """Source rows against what the ledger accounts for, at one moment. ``written``: source rows that are newer than the
    migration, or might be. ``unscanned``: rows may be there that no scan has met, however old they are.
    """

    source_rows: int
    written: int
    unscanned: bool
    moved: int
    adopted: int
    quarantined: int

    @property
    def proven(self) -> bool:
        """Nothing can be missing. Equal counts alone would not do: a row that was deleted after its move makes up for
        one that the scan missed. But a row can only be missed if it was written since the scan began, or if its file
        came since, or if it was left to an applier.
        """
        return not (self.written or self.unscanned) and self.source_rows == self.moved + self.adopted + self.quarantined


def account(connection: Connection, binding: Binding, migration_id: int) -> Account:
    """Counts the source, which is a scan of it, and reads the ledger, in one snapshot."""
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        ((since,),) = connection.execute(query("backfill", "since"), {"migration_id": migration_id}).fetchall()
        ((source_rows, written),) = execute(connection, _count(binding), since).fetchall()
        (counts,) = connection.execute(query("backfill", "counts"), {"migration_id": migration_id}).fetchall()
        values = {"migration_id": migration_id, "source": str(binding.source)}
        ((unscanned,),) = connection.execute(query("backfill", "unscanned"), values).fetchall()
        unless_rewritten(connection, binding.source)
    return Account(source_rows, written, unscanned, *counts)


def sweep(connection: Connection, binding: Binding, batches: Batches, pace: Pace) -> bool:
    """Move what was missed; whether nothing is missing any more, or the limit or a stop came first."""
    statement, values = batches.statements.release(batches.migration_id)
    execute(connection, statement, *values)
    while missing := find(connection, batches):
        while missing:
            pace.ready()
            granted = pace.take(min(BATCH, len(missing)))
            if not granted:
                return False
            used = 0
            try:
                began = time.monotonic()
                for done in move_keys(connection, binding, batches, missing[:granted]):
                    used += done.rows
                    pace.count(done, seconds=time.monotonic() - began)
                    began = time.monotonic()
            finally:
                pace.settle(granted, used=used)
            missing = missing[granted:]
    return True


def find(connection: Connection, batches: Carrier) -> list[str]:
    """Keys of rows that are missing, at most ``LOOK_AHEAD``."""
    binding = batches.statements.binding
    statement = _missing(binding, captured=batches.capture_id is not None)
    values = (batches.migration_id, LOOK_AHEAD, *([] if batches.capture_id is None else [batches.capture_id]))
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        missing = [row[0] for row in execute(connection, statement, *values).fetchall()]
        unless_rewritten(connection, binding.source, binding.target)
    return missing


def move_keys(connection: Connection, binding: Binding, batches: Batches, keys: list[str]) -> Iterator[Done]:
    """Move rows by key with every care. Gives what each batch did, once it has."""
    care = Care(orphans=True, collisions=True)
    return halved(keys, care, lambda part, care: _move(connection, binding, batches, part, care))


def _move(connection: Connection, binding: Binding, batches: Batches, keys: list[str], care: Care) -> Done:
    connection.isolation_level = level(held=care.held)
    with ExitStack() as whole:
        whole.enter_context(batch_in_flight(connection, batches.lock))
        whole.enter_context(connection.transaction())
        if care.held:
            whole.enter_context(steady(connection, binding, keys, None))
        done = batches.move_keys(connection, Keys(binding, keys), care)
        unless_rewritten(connection, binding.source, binding.target)
    return done


def _count(binding: Binding) -> sql.Composed:
    """Only 32 bits of a transaction id are kept, and wrap: an age is right for ids less than half of the circle old
    (PostgreSQL manual, 24.1.5). A row that is older only costs a look.
    """
    return sql.SQL(
        "SELECT count(*), count(*) FILTER (WHERE age(s.xmin) <= (SELECT age(($1::bigint & 4294967295)::text::xid)))"
        " FROM {} AS s"
    ).format(binding.source.identifier)


def _missing(binding: Binding, *, captured: bool) -> sql.Composed:
    """Keys of source rows that are neither on the target, as rows of ours, nor in quarantine, nor left to the applier
    of changes.
    """
    ahead: sql.Composable = sql.SQL("")
    if captured:
        ahead = sql.SQL(
            " AND NOT EXISTS (SELECT FROM spine_migrate.change_log AS l"
            " WHERE l.capture_id = $3 AND l.row_key = {key}::text)"
            " AND NOT EXISTS (SELECT FROM spine_migrate.pending AS p"
            " WHERE p.capture_id = $3 AND p.why = 'deferred' AND p.row_key = {key}::text)"
        ).format(key=sql.Identifier("s", binding.mapping.key))
    return sql.SQL(
        "SELECT {key}::text FROM {source} AS s"
        " WHERE NOT EXISTS (SELECT FROM {target} AS t WHERE t.{target_key} = {forward_key} AND {ours})"
        " AND NOT EXISTS (SELECT FROM spine_migrate.quarantine AS q"
        " WHERE q.migration_id = $1 AND q.source_key = {key}::text){ahead} LIMIT $2"
    ).format(
        key=sql.Identifier("s", binding.mapping.key),
        source=binding.source.identifier,
        target=binding.target.identifier,
        target_key=sql.Identifier(binding.mapping.target.key),
        forward_key=key(binding, "s"),
        ours=is_ours(binding, "t"),
        ahead=ahead,
    )
