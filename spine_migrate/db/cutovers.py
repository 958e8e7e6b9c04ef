"""Cutovers, as the ledger has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg.rows import class_row

from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.retirements import refusal
from spine_migrate.errors import Refused


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


def refuse(
    connection: Connection, migrations: Sequence[int] = (), *, table: str | None = None, schema: str | None = None
) -> None:
    """Raises Refused (``cut-over``, ``retired``) where one of these migrations is cut over, or one whose legacy table
    has this name, in any schema where none is given; and where this role may know of it.
    """
    ((readable,),) = connection.execute(query("cutover", "readable")).fetchall()
    if not readable:
        return
    names = {"migrations": list(migrations), "table": table, "schema": schema}
    for number, mapping, step, at, by in connection.execute(query("cutover", "over"), names).fetchall():
        if step == "retired":
            raise refusal(connection, number, mapping)
        raise Refused(
            "cut-over",
            f"{mapping} was cut over on {at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC by {by}: the application works on "
            f"the target since. To go back to the legacy tables, run spine-migrate rollback.",
        )


def unsettled(connection: Connection, migrations: Sequence[int]) -> set[int]:
    """Those that were rolled back, and whose target rows are not set aside yet: an applier would write over them."""
    found = cutovers(connection, migrations).values()
    return {one.migration_id for one in found if one.rolled_back_at is not None and one.settled_at is None}


def unquoted(connection: Connection, quoted: str) -> Name:
    """The schema and table of a name as ``str(Name)`` writes it."""
    ((parts,),) = connection.execute(query("cutover", "parts"), {"name": quoted}).fetchall()
    schema, table = parts
    return Name(schema, table)
