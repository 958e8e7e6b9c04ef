"""Legacy tables with the compatibility view in their place, and a plain copy of each to hold the view against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.carry.tables import Tables, find_tables
from spine_migrate.cutover import view
from spine_migrate.db.connect import Connection
from spine_migrate.mapping.load import load
from spine_migrate.mapping.model import Mapping


@dataclass(frozen=True)
class Switched:
    """``connection`` is the tool's, with its pinned search_path; ``application()`` is as an application's."""

    connection: Connection
    facts: view.Facts
    migration_id: int

    def drop(self) -> None:
        with self.connection.transaction():
            view.drop(self.connection, self.facts)


def start(connection: Connection, tables: Tables) -> int:
    """The migration's row in the ledger, as if all had been moved."""
    return int(
        connection.execute(
            "INSERT INTO spine_migrate.migration"
            " (mapping, mapping_digest, source_table, target_table, step, tool_version)"
            " VALUES (%s, %s, %s, %s, 'done', 'test') RETURNING migration_id",
            (
                tables.binding.mapping.name,
                tables.binding.mapping.digest,
                str(tables.source.name),
                str(tables.target.name),
            ),
        ).fetchall()[0][0]
    )


def switch(
    connection: Connection,
    mapping: Mapping | str,
    *,
    schema: str = "public",
    target_schema: str | None = None,
    parent: view.Facts | None = None,
    others: Sequence[Tables] = (),
) -> Switched:
    """Rename the legacy table, NAME_legacy, and create the view. The session's search_path is pinned from then on."""
    with connection.transaction():
        connection.execute(
            "CREATE TABLE IF NOT EXISTS spine_migrate.view_write (migration_id bigint NOT NULL,"
            " at timestamptz NOT NULL DEFAULT clock_timestamp(), role text NOT NULL, application text, operation text)"
        )
        tables = find_tables(
            connection,
            load(mapping) if isinstance(mapping, str) else mapping,
            source_schema=schema,
            target_schema=target_schema,
        )
        migration_id = start(connection, tables)
        facts = view.facts(connection, tables, migration_id, parent=parent, others=others)
        name = tables.source.name
        connection.execute(
            sql.SQL("ALTER TABLE {} RENAME TO {}").format(name.identifier, sql.Identifier(f"{name.table}_legacy"))
        )
        view.create(connection, facts)
    return Switched(connection, facts, migration_id)
