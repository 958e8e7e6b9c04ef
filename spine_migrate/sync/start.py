"""Beginning and ending the capture of a migration's changes."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from psycopg import sql

from spine_migrate.carry import references
from spine_migrate.carry.control import broken_off_by
from spine_migrate.carry.rows import FOLLOWED
from spine_migrate.carry.tables import Tables, lock_name
from spine_migrate.db import captures, catalog, cutovers, ledger
from spine_migrate.db.advisory import ENDED, try_lock
from spine_migrate.db.captures import Captured
from spine_migrate.db.connect import Connection
from spine_migrate.db.patience import Patience
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused
from spine_migrate.mapping.emit.capture import Key
from spine_migrate.mapping.emit.repair import repairs
from spine_migrate.sync import capture
from spine_migrate.sync.applier import EVERYTHING


def start(
    connection: Connection, tables: Tables, migration_id: int, *, patience: Patience, stop: threading.Event
) -> Captured:
    """Capture every write to the legacy table from now on. What was moved before and has changed since is found by a
    comparison and left to the applier. The caller holds the migration's lock.

    Raises Refused (``ledger-outdated``, ``key-not-indexed``, ``target-key-not-unique``, ``index-missing``,
    ``capture-broken``, ``cut-over``), Interrupted.
    """
    if connection.execute(query("offline", "deferred"), {"migration_id": migration_id}).fetchone() is not None:
        raise Refused(
            "offline-unfinished",
            f"The offline load of {tables.binding.mapping.name} (migration {migration_id}) is not finished; run the "
            f"command that began it again first.",
        )
    require(connection, tables)
    ((step,),) = connection.execute(query("capture", "step"), {"migration_id": migration_id}).fetchall()
    if step in ("cutover", "retired"):
        cutovers.refuse(connection, [migration_id])
        raise Refused(
            "cut-over",
            f"{tables.binding.mapping.name} has been cut over: changes go from the target to the legacy table; "
            f"spine-migrate rollback turns that round.",
        )
    known = captures.captured(connection, migration_id, captures.FORWARD)
    with ExitStack() as until_captured:
        if known is None:
            connection.execute(query("capture", "forget_left"))
            # Each row that goes makes the server look for rows that point to it.
            target, growing = tables.target.oid, step == "backfill"
            with broken_off_by(stop, lambda: [connection]):
                until_captured.enter_context(references.alone(connection, target))
                references.serve(connection, target, growing=growing, longest=patience.seconds)
        made = capture.install(
            connection,
            migration_id=migration_id,
            direction=captures.FORWARD,
            relation=tables.source.name,
            oid=tables.source.oid,
            key=Key.column(tables.binding.mapping.key),
            patience=patience,
            stop=stop,
        )
    begun = {"migration_id": migration_id, "segment": FOLLOWED, "moved": 0, "adopted": 0, "quarantined": 0}
    connection.execute(query("backfill", "count_repairs"), begun)
    # A start that was killed before it had compared is ended by the next.
    if not made.caught_up:
        if _has_moved(connection, migration_id):
            catch_up(connection, tables, made, unfinished=step == "backfill")
        else:
            _caught_up(connection, made)
    return made


def stop_capture(
    connection: Connection, tables: Tables, found: Captured, *, patience: Patience, stop: threading.Event
) -> None:
    """Capture no more; what was logged and not applied is forgotten. The caller holds the migration's lock.

    Raises Refused (``already-running``) where an applier is at work, Interrupted where a lock cannot be had.
    """
    if not try_lock(connection, ("capture", "try_apply"), lock_name(tables), seconds=ENDED, stop=stop):
        raise Refused(
            "already-running",
            f"A process applies the changes of {tables.binding.mapping.name}; stop it first (Ctrl-C to sync run).",
        )
    capture.remove(connection, found, patience=patience, stop=stop)
    references.clear(connection, tables.target.oid)


def require(connection: Connection, tables: Tables) -> None:
    """What must be there before anything is captured. Raises Refused (``ledger-outdated``, ``key-not-indexed``,
    ``target-key-not-unique``).
    """
    ((installed,),) = connection.execute(query("capture", "installed")).fetchall()
    if not installed:
        raise Refused("ledger-outdated", "Change capture needs the revision spine_0007; run spine-migrate db upgrade.")
    if not catalog.is_unique(connection, tables.source.oid, tables.binding.mapping.key):
        raise Refused(
            "key-not-indexed",
            f"Each change is looked up by {tables.source.name}.{tables.binding.mapping.key}, over which there is no "
            f"unique index; create one (CREATE UNIQUE INDEX CONCURRENTLY) first.",
        )
    catalog.require_unique(connection, tables.target, tables.binding.mapping.target.key)


def _has_moved(connection: Connection, migration_id: int) -> bool:
    found = ledger.checkpoints(connection, migration_id)
    return any(point.batches for point in found if point.segment != FOLLOWED or point.rows_moved)


def catch_up(connection: Connection, tables: Tables, made: Captured, *, unfinished: bool = False) -> None:
    """Rows that were moved before their changes were captured, and are not as they should be. In an ``unfinished``
    backfill those that are missing are its own to bring.
    """
    found = repairs(tables.binding, tables.target.columns).found()
    with connection.transaction():
        execute(
            connection,
            sql.SQL(
                "INSERT INTO spine_migrate.pending (capture_id, why, row_key)"
                " SELECT $2::bigint, 'deferred', x.source_key FROM ({}) AS x WHERE x.source_key IS NOT NULL"
                " AND NOT (x.kind = 'missing' AND $3) ON CONFLICT (capture_id, why, row_key) DO NOTHING"
            ).format(found),
            made.migration_id,
            made.capture_id,
            unfinished,
        )
        everything = {"capture_id": made.capture_id, "why": "all", "keys": [EVERYTHING]}
        connection.execute(query("capture", "note_gone"), everything)
        _caught_up(connection, made)


def _caught_up(connection: Connection, made: Captured) -> None:
    connection.execute(query("capture", "caught_up"), {"capture_id": made.capture_id})
