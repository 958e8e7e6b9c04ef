"""Who owns the tables that a move touches, and the tables that point to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row

from spine_migrate.db.catalog import Name, Relation
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query


@dataclass(frozen=True)
class Owner:
    name: str
    superuser: bool


def ledger_owner(connection: Connection) -> Owner | None:
    """Who installed the ledger; None before the first upgrade."""
    return _owner(connection, "version_table_owner")


def owner_of(connection: Connection, table: Relation) -> Owner | None:
    return _owner(connection, "owner", oid=table.oid)


def pointing_to(connection: Connection, table: Relation) -> list[tuple[Name, Owner]]:
    """Tables that have a foreign key to it, by their owner."""
    found = connection.execute(query("privileges", "pointing"), {"oid": table.oid}).fetchall()
    return [(Name(schema, name), Owner(*held)) for schema, name, *held in found]


def here(connection: Connection) -> tuple[str, str]:
    """The database's name and the schema that CREATE TABLE would use."""
    ((database, schema),) = connection.execute(query("privileges", "here")).fetchall()
    return database, schema


def installed(connection: Connection) -> bool:
    """Whether ``db upgrade`` has run on this database."""
    return ledger_owner(connection) is not None


def _owner(connection: Connection, name: str, **parameters: Any) -> Owner | None:
    with connection.cursor(row_factory=class_row(Owner)) as cursor:
        return cursor.execute(query("privileges", name), parameters).fetchone()
