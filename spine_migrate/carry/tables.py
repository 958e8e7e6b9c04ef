"""A mapping bound to the live tables it works between, and what stands in the ledger about them."""

from __future__ import annotations

from dataclasses import dataclass

from spine_migrate.carry.collisions import Guard
from spine_migrate.carry.statements import Parent
from spine_migrate.db import catalog, cutovers, ledger
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
    source = find_legacy(connection, mapping.source_table, source_schema or mapping.source_schema)
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


def find_legacy(connection: Connection, table: str, schema: str | None) -> catalog.Relation:
    """As ``catalog.find``, and where there is no table because it was cut over, that is what Refused says."""
    try:
        return catalog.find(connection, table, schema)
    except Refused as error:
        if error.precondition in ("not-a-table", "table-missing"):
            cutovers.refuse(connection, table=table, schema=schema)
        raise


def lock_name(tables: Tables) -> str:
    """What one run at a time may hold: a mapping between two tables."""
    return f"{tables.binding.mapping.name}|{tables.source.name}|{tables.target.name}"


def is_started(connection: Connection, tables: Tables) -> bool:
    """Whether an earlier run began this migration and nobody undid it."""
    return live(connection, tables) is not None


def live(connection: Connection, tables: Tables) -> ledger.Migration | None:
    names = (tables.binding.mapping.name, str(tables.source.name), str(tables.target.name))
    return ledger.live(connection, *names)


def parent_of(connection: Connection, tables: Tables) -> Parent | None:
    """The migration that this one's rows depend on; it must have moved everything first."""
    field, mapping = tables.binding.mapping.required, required(tables.binding.mapping)
    if field is None or mapping is None:
        return None
    source = find_legacy(connection, mapping.source_table, tables.source.name.schema)
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


def guard_of(connection: Connection, tables: Tables) -> Guard:
    """The unique indexes of the target that moved rows can collide in."""
    return Guard(
        [index for index in catalog.unique_indexes(connection, tables.target.oid) if index.valid],
        row_shape(connection, tables.target.oid),
        catalog.primary_keys(connection, tables.target.oid),
    )
