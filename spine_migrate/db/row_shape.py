"""What a row of a table will hold after an INSERT that names only some of its columns."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.rows import class_row

from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query


@dataclass(frozen=True)
class Filled:
    """A column and what fills it by itself.

    ``type`` has no length, so that a cast to it cuts nothing. ``expression`` is SQL text: the default, or, where
    ``generated``, over bare column names; None where the value cannot be known before.
    """

    name: str
    type: str
    collation: str | None
    expression: str | None
    generated: bool


def row_shape(connection: Connection, oid: int) -> tuple[Filled, ...]:
    """All columns of the table, in its order."""
    with connection.cursor(row_factory=class_row(Filled)) as cursor:
        return tuple(cursor.execute(query("plan", "row_shape"), {"oid": oid}).fetchall())
