"""How a table is defined, as far as something that takes its place must be like it. Reads only.

Expressions are SQL text over bare column names, as pg_get_expr prints them; names outside pg_catalog have their schema
as long as the session's search_path is pinned (``db.connect.PINNED``).
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.rows import class_row, dict_row

from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query


@dataclass(frozen=True)
class ColumnDefinition:
    """``collation`` is quoted, None for the type's own. ``identity``: '', a (always) or d (by default). ``sequence``:
    the one that the column owns, quoted. ``labels`` of an enum, in its order.
    """

    name: str
    sql_type: str
    collation: str | None
    not_null: bool
    never_null: bool
    default_value: str | None
    generated: str | None
    identity: str
    sequence: str | None
    labels: list[str]
    comment: str | None


@dataclass(frozen=True)
class Check:
    name: str
    expression: str
    columns: list[str]


@dataclass(frozen=True)
class ForeignKey:
    """``operators``, as SQL, compare a referenced column with a referencing one. ``on_delete`` and ``on_update`` as
    pg_constraint has them: a no action, r restrict, c cascade, n set null, d set default. ``takes_not_valid``: whether
    the server makes it anew without looking at the rows.
    """

    name: str
    oid: int
    schema: str
    table_name: str
    referenced_oid: int
    referenced_schema: str
    referenced_table: str
    columns: list[str]
    referenced: list[str]
    operators: list[str]
    on_delete: str
    on_update: str
    definition: str
    takes_not_valid: bool

    @property
    def table(self) -> Name:
        return Name(self.schema, self.table_name)

    @property
    def to(self) -> Name:
        return Name(self.referenced_schema, self.referenced_table)

    @property
    def to_itself(self) -> bool:
        return self.oid == self.referenced_oid


@dataclass(frozen=True)
class Grant:
    """``role`` is None for PUBLIC, ``column_name`` None for the whole table."""

    role: str | None
    column_name: str | None
    privilege: str
    grantable: bool


@dataclass(frozen=True)
class Definition:
    """``columns`` in the table's order; ``inbound``: foreign keys of other tables, and of its own, that point to it."""

    name: Name
    oid: int
    owner: str
    comment: str | None
    row_security: bool
    server_version: int
    columns: tuple[ColumnDefinition, ...]
    checks: tuple[Check, ...]
    foreign_keys: tuple[ForeignKey, ...]
    inbound: tuple[ForeignKey, ...]
    grants: tuple[Grant, ...]


def definition(connection: Connection, name: Name, oid: int) -> Definition:
    """``name``: what the table is called, which may be another by the time that the answer is used."""
    values = {"oid": oid}
    with connection.cursor(row_factory=dict_row) as cursor:
        ((relation),) = cursor.execute(query("definition", "relation"), values).fetchall()
    with connection.cursor(row_factory=class_row(ColumnDefinition)) as cursor:
        columns = tuple(cursor.execute(query("definition", "columns"), values).fetchall())
    with connection.cursor(row_factory=class_row(Check)) as cursor:
        checks = tuple(cursor.execute(query("definition", "checks"), values).fetchall())
    with connection.cursor(row_factory=class_row(ForeignKey)) as cursor:
        keys = cursor.execute(query("definition", "foreign_keys"), values).fetchall()
    return Definition(
        name=name,
        oid=oid,
        owner=relation["owner"],
        comment=relation["comment"],
        row_security=relation["row_security"],
        server_version=relation["server_version"],
        columns=columns,
        checks=checks,
        foreign_keys=tuple(one for one in keys if one.oid == oid),
        inbound=tuple(one for one in keys if one.referenced_oid == oid),
        grants=tuple(grants(connection, oid)),
    )


def grants(connection: Connection, oid: int) -> list[Grant]:
    with connection.cursor(row_factory=class_row(Grant)) as cursor:
        return cursor.execute(query("definition", "grants"), {"oid": oid}).fetchall()
