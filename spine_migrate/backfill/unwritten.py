"""Target columns that no rule writes: a moved row has their default, and whoever changes that has touched the row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql
from psycopg.rows import class_row

from spine_migrate.carry.tables import Tables
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.mapping.transforms.base import Sql


@dataclass(frozen=True)
class Unwritten:
    """``type`` and ``expression`` are SQL as the catalog prints them; no expression means NULL."""

    name: str
    type: str
    expression: str | None

    def changed(self, alias: str) -> Sql:
        """Compared as text: not every type has an equality, and what a column's type does to its default is done."""
        default = sql.SQL(self.expression) if self.expression else sql.NULL
        return sql.SQL("{}::text IS DISTINCT FROM ({})::{}::text").format(
            sql.Identifier(alias, self.name), default, sql.SQL(self.type)
        )


def unwritten(connection: Connection, tables: Tables, written: Sequence[str]) -> list[Unwritten]:
    """Those whose value after an INSERT is known; defaults like now() or a sequence are not."""
    with connection.cursor(row_factory=class_row(Unwritten)) as cursor:
        values = {"oid": tables.target.oid, "written": list(written)}
        return cursor.execute(query("undo", "unwritten"), values).fetchall()


def changed(columns: Sequence[Unwritten], alias: str) -> Sql:
    """Whether any of them is not as an INSERT leaves it."""
    return sql.SQL("({})").format(sql.SQL(" OR ").join([sql.SQL("false"), *(one.changed(alias) for one in columns)]))
