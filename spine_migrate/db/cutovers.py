"""Cutovers, as the ledger has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query


@dataclass(frozen=True)
class Cutover:
    """The last one of a migration. ``source_table`` is the application's name for it, ``legacy_table`` what the table
    is called since; both quoted. ``triggers``: those that were switched off, with how they fired (pg_trigger's
    tgenabled). ``remade``: statements that point views and functions to whatever has the application's name.
    ``foreign_keys``: of other tables, as they were (``cutover.foreign_keys``). ``settled_at``: since when the target
    has followed the legacy table again, after a rollback.
    """

    migration_id: int
    at: datetime
    source_table: str
    legacy_table: str
    view: bool
    triggers: dict[str, str]
    remade: list[str]
    foreign_keys: list[dict[str, Any]]
    rolled_back_at: datetime | None
    settled_at: datetime | None


def installed(connection: Connection) -> bool:
    """Whether the ledger knows cutovers."""
    ((found,),) = connection.execute(query("cutover", "installed")).fetchall()
    return bool(found)


def cutovers(connection: Connection, migrations: Sequence[int]) -> dict[int, Cutover]:
    """By migration; none where the ledger is older than cutovers."""
    if not installed(connection):
        return {}
    with connection.cursor(row_factory=class_row(Cutover)) as cursor:
        found = cursor.execute(query("cutover", "cutovers"), {"migrations": list(migrations)}).fetchall()
    return {one.migration_id: one for one in found}


def unsettled(connection: Connection, migrations: Sequence[int]) -> set[int]:
    """Those that were rolled back, and whose target rows are not set aside yet: an applier would write over them."""
    found = cutovers(connection, migrations).values()
    return {one.migration_id for one in found if one.rolled_back_at is not None and one.settled_at is None}


def unquoted(connection: Connection, quoted: str) -> Name:
    """The schema and table of a name as ``str(Name)`` writes it."""
    ((parts,),) = connection.execute(query("cutover", "parts"), {"name": quoted}).fetchall()
    schema, table = parts
    return Name(schema, table)
