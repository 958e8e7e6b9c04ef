"""Legacy tables with the compatibility view in their place, and a plain copy of each to hold the view against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.carry.tables import Tables, find_tables
from spine_migrate.cutover import view
from spine_migrate.db.connect import Connection, connect
from spine_migrate.mapping.load import load
from spine_migrate.mapping.model import Mapping
from tests.legacy import Legacy


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


_STRICT: LiteralString = """
    CREATE TABLE feeds (feed_id uuid PRIMARY KEY);
    INSERT INTO feeds VALUES ('f0000000-0000-4000-8000-000000000001');
    ALTER TABLE executions ALTER COLUMN pipeline_name SET NOT NULL, ALTER COLUMN lane TYPE varchar(10),
        ADD CONSTRAINT ends_after_start CHECK (completed_at >= started_at),
        ADD CONSTRAINT of_feed FOREIGN KEY (feed_id) REFERENCES feeds,
        ADD CONSTRAINT of_parent FOREIGN KEY (parent_execution_id) REFERENCES executions;
    COMMENT ON TABLE executions IS 'what ran';
    COMMENT ON COLUMN executions.lane IS 'where it ran';
    ALTER TABLE execution_events DROP CONSTRAINT execution_events_execution_id_fkey,
        ADD FOREIGN KEY (execution_id) REFERENCES executions ON DELETE CASCADE;
"""


def strict(legacy: Legacy) -> None:
    """Views in the place of executions with rules of their own, and of events and jobs as the demo has them."""
    legacy.execute(_STRICT)
    with connect(legacy.url) as tool:
        events = find_tables(tool, load("capture-spine/execution_events"), source_schema="public", target_schema=None)
        executions = switch(tool, "capture-spine/executions", others=[events])
        switch(tool, "capture-spine/execution_events", parent=executions.facts)
        switch(tool, "capture-spine/jobs")


def refused(
    connection: psycopg.Connection[Any], statement: LiteralString, *values: object
) -> tuple[str | None, str, str | None]:
    """SQLSTATE, message and constraint."""
    with pytest.raises(psycopg.Error) as caught, connection.transaction():
        connection.execute(statement, values)
    diag = caught.value.diag
    return caught.value.sqlstate, diag.message_primary or "", diag.constraint_name
