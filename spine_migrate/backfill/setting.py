"""What a run works on: the mapping bound to its tables, its migration in the ledger, and what it depends on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spine_migrate.backfill import references
from spine_migrate.backfill.batch import REPAIRS, Batches, segments
from spine_migrate.backfill.collisions import Guard
from spine_migrate.backfill.statements import Parent, Statements
from spine_migrate.db import catalog, ledger
from spine_migrate.db.connect import Connection, pin
from spine_migrate.db.queries import query
from spine_migrate.db.row_shape import row_shape
from spine_migrate.db.version_table import recorded_target
from spine_migrate.errors import Drift, Refused
from spine_migrate.mapping.bind import Binding, bind
from spine_migrate.mapping.load import required
from spine_migrate.mapping.model import Mapping


@dataclass(frozen=True)
class Tables:
    """A mapping bound to the live source and target."""

    binding: Binding
    source: catalog.Relation
    target: catalog.Relation


@dataclass(frozen=True)
class Setting:
    """``started`` is False for a migration that an earlier run began."""

    tables: Tables
    migration_id: int
    started: bool
    step: str
    batches: Batches


def find_tables(
    connection: Connection, mapping: Mapping, *, source_schema: str | None, target_schema: str | None
) -> Tables:
    """Look both tables up and hold the mapping against them. From then on the session's search_path is pinned.

    Raises Refused (a table is missing or no table, row security, no privilege) and Drift.
    """
    if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
        raise Refused(
            "encoding-unknown",
            "The database has the encoding SQL_ASCII, so the server does not know what its text means; "
            "move it to a database in UTF8 first.",
        )
    source = catalog.find(connection, mapping.source_table, source_schema or mapping.source_schema)
    schema = target_schema or mapping.target_schema or recorded_target(connection)
    try:
        target = catalog.find(connection, mapping.target.name, schema)
    except Refused as error:
        raise Refused(error.precondition, f"{error.sentence} Run spine-migrate db upgrade first.") from error
    pin(connection)
    # Once more, so that types are written with their schema.
    source = catalog.find(connection, source.name.table, source.name.schema)
    target = catalog.find(connection, target.name.table, target.name.schema)
    binding = bind(mapping, source, target)
    if unknown := catalog.child_columns(connection, source.oid):
        raise Drift([f"{place} is in no rule of the mapping" for place in unknown])
    return Tables(binding, source, target)


def lock_name(tables: Tables) -> str:
    """What one run at a time may hold: a mapping between two tables."""
    return f"{tables.binding.mapping.name}|{tables.source.name}|{tables.target.name}"


def is_started(connection: Connection, tables: Tables) -> bool:
    """Whether an earlier run began this migration and nobody undid it."""
    return _live(connection, tables) is not None


def _live(connection: Connection, tables: Tables) -> ledger.Migration | None:
    names = (tables.binding.mapping.name, str(tables.source.name), str(tables.target.name))
    return ledger.live(connection, *names)


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
    ``offline-load-under-way``, ``mapping-in-use``.
    """
    binding = tables.binding
    found = _live(connection, tables)
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
    parent = _parent(connection, tables)
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
    guard = Guard(
        [index for index in catalog.unique_indexes(connection, tables.target.oid) if index.valid],
        row_shape(connection, tables.target.oid),
    )
    return Setting(
        tables,
        migration_id,
        started=found is None,
        step=found.step if found else "backfill",
        batches=Batches(migration_id, statements, guard),
    )


def _add_segments(connection: Connection, tables: Tables, migration_id: int, parts: int) -> None:
    name = tables.source.name
    place = {"migration_id": migration_id, "leaf_schema": name.schema, "leaf_table": name.table}
    connection.execute(query("backfill", "add_repairs"), {**place, "segment": REPAIRS})
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


def _parent(connection: Connection, tables: Tables) -> Parent | None:
    """The migration that this one's rows depend on; it must have moved everything first."""
    field, mapping = tables.binding.mapping.required, required(tables.binding.mapping)
    if field is None or mapping is None:
        return None
    source = catalog.find(connection, mapping.source_table, tables.source.name.schema)
    target = catalog.find(connection, mapping.target.name, tables.target.name.schema)
    found = ledger.live(connection, mapping.name, str(source.name), str(target.name))
    if found is None or found.step != "done":
        raise Refused(
            "parent-missing",
            f"{tables.binding.mapping.name} needs the rows of {mapping.name}, which "
            f"{'have not been moved' if found is None else f'are not all moved (migration {found.migration_id})'}; "
            f"move those first.",
        )
    row = connection.execute(query("backfill", "has_quarantine"), {"migration_id": found.migration_id}).fetchone()
    return Parent(field, bind(mapping, source, target), found.migration_id, has_quarantine=bool(row and row[0]))


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
    """A key that is not unique would make two rows one. Where no index proves it, the table is counted once."""
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
