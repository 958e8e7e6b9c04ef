"""What a run works on: the mapping bound to its tables, its migration in the ledger, and what it depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spine_migrate.backfill.batch import Batches, segments
from spine_migrate.carry import references
from spine_migrate.carry.rows import FOLLOWED, REPAIRS
from spine_migrate.carry.statements import Statements
from spine_migrate.carry.tables import Tables, guard_of, live, lock_name, parent_of
from spine_migrate.db import captures, catalog, ledger
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused


@dataclass(frozen=True)
class Setting:
    """``started`` is False for a migration that an earlier run began."""

    tables: Tables
    migration_id: int
    started: bool
    step: str
    batches: Batches


def open_setting(
    connection: Connection,
    tables: Tables,
    *,
    parts: int,
    options: dict[str, Any],
    also: Callable[[int], None],
) -> Setting:
    """Find the migration, or start it with its segments, and with what ``also`` does, in one transaction.

    Raises Refused: ``mapping-changed``, ``undo-unfinished``, ``parent-missing``, ``key-not-unique``,
    ``target-key-not-unique``, ``offline-load-under-way``, ``mapping-in-use``.
    """
    binding = tables.binding
    found = live(connection, tables)
    if found is not None and found.mapping_digest != binding.mapping.digest:
        raise Refused(
            "mapping-changed",
            f"The mapping {binding.mapping.name} has changed since migration {found.migration_id} began "
            f"(digest {found.mapping_digest[:12]}, now {binding.mapping.digest[:12]}); "
            f"restore the file, or see spine-migrate quarantine retry --accept-mapping, "
            f"or spine-migrate undo with the old file and start again.",
        )
    if found is not None and found.step == "undoing":
        raise Refused(
            "undo-unfinished", f"Migration {found.migration_id} is being undone; finish spine-migrate undo first."
        )
    _check_company(connection, tables)
    parent = parent_of(connection, tables)
    references.clear(connection, tables.target.oid)
    if found is None:
        _check_key(connection, tables)
        with connection.transaction():
            migration_id = ledger.start(
                connection,
                mapping=binding.mapping.name,
                digest=binding.mapping.digest,
                source_table=str(tables.source.name),
                target_table=str(tables.target.name),
                options=options,
                rows_estimated=tables.source.rows_estimated,
            )
            _add_segments(connection, tables, migration_id, parts)
            ledger.audit(connection, "backfill started", migration_id=migration_id, **options)
            also(migration_id)
    else:
        migration_id = found.migration_id
    # Also where the option is left out: an offline load that was cut short goes on as one.
    deferred = connection.execute(query("offline", "deferred"), {"migration_id": migration_id}).fetchone()
    statements = Statements(binding, parent, offline=deferred is not None)
    guard = guard_of(connection, tables)
    capture = captures.captured(connection, migration_id, captures.FORWARD)
    return Setting(
        tables,
        migration_id,
        started=found is None,
        step=found.step if found else "backfill",
        batches=Batches(
            migration_id,
            statements,
            guard,
            lock=lock_name(tables),
            capture_id=None if capture is None else capture.capture_id,
        ),
    )


def _add_segments(connection: Connection, tables: Tables, migration_id: int, parts: int) -> None:
    name = tables.source.name
    place = {"migration_id": migration_id, "leaf_schema": name.schema, "leaf_table": name.table}
    for number in (REPAIRS, FOLLOWED):
        connection.execute(query("backfill", "add_repairs"), {**place, "segment": number})
    for number, (leaf, low, high) in enumerate(segments(catalog.leaves(connection, tables.source.oid), parts)):
        connection.execute(
            query("backfill", "add_segment"),
            {
                "migration_id": migration_id,
                "segment": number,
                "leaf_schema": leaf.name.schema,
                "leaf_table": leaf.name.table,
                "filenode": leaf.filenode,
                "low_block": low,
                "high_block": high,
                "position": f"({low},0)",
            },
        )


def _check_company(connection: Connection, tables: Tables) -> None:
    """Whether other migrations leave room for this one on its target."""
    name, target = tables.binding.mapping.name, str(tables.target.name)
    names = {"mapping": name, "target_table": target}
    for (other,) in connection.execute(query("offline", "under_way"), names).fetchall():
        raise Refused(
            "offline-load-under-way",
            f"The indexes of {target} are away for the offline load of {other}; finish that one first.",
        )
    for other in ledger.migrations(connection):
        if (other.mapping, other.target_table) == (name, target) and other.source_table != str(tables.source.name):
            raise Refused(
                "mapping-in-use",
                f"Migration {other.migration_id} has moved {other.source_table} into {target} with the mapping {name}, "
                f"and rows tell only by the mapping where they come from; "
                f"give this source a copy of the mapping in a folder or file of another name.",
            )


def _check_key(connection: Connection, tables: Tables) -> None:
    """A key that is not unique would make two rows one; where no index proves it, the table is counted once. On the
    target nothing but an index keeps a row from being doubled.
    """
    catalog.require_unique(connection, tables.target, tables.binding.mapping.target.key)
    key = tables.binding.mapping.key
    if catalog.is_unique(connection, tables.source.oid, key):
        return
    duplicates = catalog.duplicates(connection, tables.source.name, key, limit=3)
    if duplicates:
        raise Refused(
            "key-not-unique",
            f"{tables.source.name}.{key} is not unique ({', '.join(duplicates)} stand more than once); "
            f"a row cannot be told from its double, remove the doubles first.",
        )
