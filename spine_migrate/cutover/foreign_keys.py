"""Foreign keys of other tables that point to a legacy table: they go along with the switch, and come back with it.

They are made anew in the switch's own transaction, NOT VALID, which looks at no row; VALIDATE comes after it and blocks
nobody (PostgreSQL manual, ALTER TABLE). Not before: NOT VALID checks new rows, and as long as the application writes
the legacy table, a row that it has just inserted reaches the target a moment later.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from spine_migrate.carry.known import Known
from spine_migrate.carry.tables import Tables
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.cutovers import unquoted
from spine_migrate.db.definition import ForeignKey, definition
from spine_migrate.db.patience import Patience, patiently
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Interrupted

_NOT_VALIDATED = (
    psycopg.errors.IntegrityError,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedObject,
    # The switch is done, and so it is told, whoever is tired of waiting for this.
    psycopg.errors.QueryCanceled,
    Interrupted,
)
_NAME = r'(?:[^()"]|"(?:[^"]|"")*")*'
# What stands behind the columns that are referenced, as pg_get_constraintdef prints it.
_TAIL = re.compile(rf"FOREIGN KEY \({_NAME}\) REFERENCES {_NAME}\({_NAME}\)(.*?)( NOT VALID)?")


@dataclass(frozen=True)
class Inbound:
    """``actions``: ON DELETE and the like, as SQL; None where the definition is not understood. ``valid``: it holds for
    all rows.
    """

    one: Known
    key: ForeignKey
    actions: str | None
    valid: bool

    @property
    def movable(self) -> bool:
        return movable(self.one.tables, self.key)

    @property
    def record(self) -> dict[str, Any]:
        """For the ledger: what it was."""
        return {
            "table": str(self.key.table),
            "oid": self.key.oid,
            "name": self.key.name,
            "definition": self.key.definition,
        }


def movable(tables: Tables, key: ForeignKey) -> bool:
    """Whether a row of the target has the very key that is referenced, the definition is understood, and nobody waits
    until its rows are looked at.
    """
    mapping = tables.binding.mapping
    same = tables.binding.live[mapping.key].type == tables.target.columns[mapping.target.key].type
    return (
        key.takes_not_valid
        and _TAIL.fullmatch(key.definition) is not None
        and key.referenced == [mapping.key]
        and not mapping.key_field.steps
        and mapping.key_field.column == mapping.key
        and same
    )


def inbound(connection: Connection, members: Sequence[Known]) -> list[Inbound]:
    """Those of tables that are not switched along."""
    along = {one.tables.source.oid for one in members}
    found = []
    for one in members:
        for key in definition(connection, one.tables.source.name, one.tables.source.oid).inbound:
            if key.oid not in along:
                match = _TAIL.fullmatch(key.definition)
                actions = None if match is None else match[1]
                found.append(Inbound(one, key, actions, not key.definition.endswith(" NOT VALID")))
    return found


def left_behind(connection: Connection, found: Inbound) -> int:
    """Rows that point to legacy rows which stay in quarantine, and so could not point to the target."""
    mapping = found.one.mapping
    statement = sql.SQL(
        "SELECT count(*) FROM {table} AS c JOIN spine_migrate.quarantine AS q"
        " ON q.migration_id = $1 AND q.source_key = c.{column}::text"
        " WHERE NOT EXISTS (SELECT FROM {target} AS t WHERE t.{key} = c.{column})"
    ).format(
        table=found.key.table.identifier,
        column=sql.Identifier(found.key.columns[0]),
        target=found.one.tables.target.name.identifier,
        key=sql.Identifier(mapping.target.key),
    )
    ((count,),) = execute(connection, statement, found.one.migration.migration_id).fetchall()
    return int(count)


def point_to_target(connection: Connection, found: Iterable[Inbound]) -> None:
    """In the switch's transaction, with the tables locked."""
    for one in found:
        execute(
            connection,
            sql.SQL(
                "ALTER TABLE {table} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} FOREIGN KEY ({column})"
                " REFERENCES {target} ({key}){actions} NOT VALID"
            ).format(
                table=one.key.table.identifier,
                name=sql.Identifier(one.key.name),
                column=sql.Identifier(one.key.columns[0]),
                target=one.one.tables.target.name.identifier,
                key=sql.Identifier(one.one.mapping.target.key),
                actions=sql.SQL(one.actions or ""),
            ),
        )


def still_there(
    connection: Connection, members: Sequence[Known], records: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Those of them that point to the targets, by the names that their tables have now: others were dropped since."""
    targets = [one.tables.target.oid for one in members]
    found = []
    for record in records:
        values = {"name": record["name"], "table": record["table"], "oid": record.get("oid"), "targets": targets}
        for schema, table in connection.execute(query("cutover", "pointing"), values).fetchall():
            found.append({**record, "table": str(Name(schema, table))})
    return found


def point_back(connection: Connection, records: Iterable[dict[str, Any]]) -> None:
    """In a rollback's transaction, with the legacy tables under their names again; what was dropped since stays so."""
    for record in records:
        text = str(record["definition"]).removesuffix(" NOT VALID")
        statement = sql.SQL("ALTER TABLE {0} DROP CONSTRAINT {1}, ADD CONSTRAINT {1} {2} NOT VALID").format(
            unquoted(connection, record["table"]).identifier, sql.Identifier(record["name"]), sql.SQL(text)
        )
        try:
            with connection.transaction():
                execute(connection, statement)
        except (psycopg.errors.UndefinedObject, psycopg.errors.UndefinedTable):
            continue


def validate(
    connection: Connection, records: Iterable[dict[str, Any]], *, patience: Patience, stop: threading.Event
) -> list[str]:
    """After a switch, those that held for all rows before. Gives those that do not, or could not be asked: they hold
    for new rows all the same.
    """
    open_: list[str] = []
    for record in records:
        if str(record["definition"]).endswith(" NOT VALID"):
            continue
        table, name = unquoted(connection, record["table"]), sql.Identifier(record["name"])
        statement = sql.SQL("ALTER TABLE {} VALIDATE CONSTRAINT {}").format(table.identifier, name)
        try:
            patiently(
                connection,
                partial(execute, query=statement),
                tables=[table],
                mode="share update exclusive",
                patience=patience,
                stop=stop,
            )
        except _NOT_VALIDATED:
            open_.append(named(record))
    return open_


def named(record: dict[str, Any]) -> str:
    """As ``"name" ON "schema"."table"``."""
    return f"{sql.Identifier(record['name']).as_string(None)} ON {record['table']}"


def tables(connection: Connection, records: Iterable[dict[str, Any]]) -> Iterator[Name]:
    """The tables that have them."""
    for record in records:
        yield unquoted(connection, record["table"])
