"""What the live catalog says of a table: columns, unique indexes, leaf partitions, foreign keys. Reads only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused


@dataclass(frozen=True)
class Name:
    """A table's schema and name, unquoted."""

    schema: str
    table: str

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.table)

    def __str__(self) -> str:
        return self.identifier.as_string(None)


@dataclass(frozen=True)
class Column:
    """``type`` is the base name as format_type prints it, or ``enum``; ``length`` in characters, None for no limit."""

    name: str
    type: str
    sql_type: str
    length: int | None
    not_null: bool
    has_default: bool
    generated: bool


@dataclass(frozen=True)
class UniqueIndex:
    """``expressions`` and ``predicate`` are SQL over bare column names, as pg_get_indexdef and pg_get_expr print it."""

    name: str
    expressions: tuple[str, ...]
    predicate: str | None
    nulls_distinct: bool
    columns: tuple[str, ...]
    """The plain columns it covers; empty strings stand for expressions."""
    valid: bool
    reads: tuple[str, ...] = ()
    """All columns that decide where a row stands in it, those that its expressions and predicate speak of included."""


@dataclass(frozen=True)
class Leaf:
    """A table that holds rows itself: the table, or a partition or child of it. ``blocks`` are of 8 kB, as of now."""

    name: Name
    filenode: int
    blocks: int


@dataclass(frozen=True)
class Relation:
    name: Name
    oid: int
    kind: str
    columns: dict[str, Column]
    row_security: bool
    bytes_total: int
    rows_estimated: int


_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "i": "an index"}


def find(connection: psycopg.Connection[Any], table: str, schema: str | None) -> Relation:
    """The table, by search_path where no schema is named.

    Raises Refused: ``table-missing`` where there is none, ``not-a-table`` for a view, a foreign table and the like,
    ``foreign-partition`` where one of its partitions or children is a foreign table.
    """
    with connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute(query("catalog", "relation"), {"schema": schema, "table": table}).fetchone()
        if found is None:
            place = f"the schema {schema!r}" if schema else "the search_path"
            raise Refused("table-missing", f"There is no table {table!r} in {place} of the database.")
        if found["relkind"] not in ("r", "p"):
            kind = _KINDS.get(found["relkind"], f"of kind {found['relkind']!r}")
            raise Refused("not-a-table", f"{found['nspname']}.{table} is {kind}, not a table.")
        foreign = cursor.execute(query("catalog", "foreign_child"), {"oid": found["oid"]}).fetchone()
        if foreign is not None:
            raise Refused(
                "foreign-partition",
                f"{found['nspname']}.{table} has a part that is a foreign table ({foreign['name']}), whose rows are on "
                f"another server; detach it, and move it by itself there.",
            )
        columns = cursor.execute(query("catalog", "columns"), {"oid": found["oid"]}).fetchall()
    return Relation(
        name=Name(found["nspname"], found["relname"]),
        oid=found["oid"],
        kind=found["relkind"],
        columns={
            row["name"]: Column(
                name=row["name"],
                type=row["type"],
                sql_type=row["sql_type"],
                length=row["length"],
                not_null=row["not_null"],
                has_default=row["has_default"],
                generated=row["generated"],
            )
            for row in columns
        },
        row_security=found["relrowsecurity"],
        bytes_total=found["bytes_total"],
        rows_estimated=found["rows_estimated"],
    )


def named(connection: psycopg.Connection[Any], quoted: str) -> Relation:
    """The table by its quoted, schema-qualified name, as ``str(Name)`` writes it. Raises as ``find`` does."""
    ((parts,),) = connection.execute(query("catalog", "name_parts"), {"name": quoted}).fetchall()
    schema, table = parts
    return find(connection, table, schema)


def leaves(connection: psycopg.Connection[Any], oid: int) -> list[Leaf]:
    """The tables that hold the rows of ``oid``, itself included, with their size now, in a stable order."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query("catalog", "leaves"), {"oid": oid}).fetchall()
    return [Leaf(Name(row["nspname"], row["relname"]), row["filenode"], row["blocks"]) for row in rows]


def child_columns(connection: psycopg.Connection[Any], oid: int) -> list[str]:
    """Columns that tables inheriting from ``oid`` have of their own, each as ``schema.table.column``."""
    return [row[0] for row in connection.execute(query("catalog", "child_columns"), {"oid": oid}).fetchall()]


def unique_indexes(connection: psycopg.Connection[Any], oid: int) -> list[UniqueIndex]:
    """All unique indexes but the primary key's, in name order."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query("catalog", "unique_indexes"), {"oid": oid}).fetchall()
    return [
        UniqueIndex(
            name=row["name"],
            expressions=tuple(row["expressions"]),
            predicate=row["predicate"],
            nulls_distinct=row["nulls_distinct"],
            columns=tuple(row["columns"]),
            valid=row["valid"],
            reads=tuple(row["reads"]),
        )
        for row in rows
    ]


def primary_keys(connection: psycopg.Connection[Any], oid: int) -> frozenset[str]:
    """Names of the indexes of a table's primary key, those of its partitions included."""
    return frozenset(name for (name,) in connection.execute(query("catalog", "primary_keys"), {"oid": oid}))


def is_unique(connection: psycopg.Connection[Any], oid: int, column: str, *, children: bool = True) -> bool:
    """Whether a valid unique index or primary key over exactly this column proves it; ``children``: of the tables that
    inherit from it as well.
    """
    values = {"oid": oid, "column": column, "children": children}
    row = connection.execute(query("catalog", "is_unique"), values).fetchone()
    return bool(row and row[0])


def require_unique(connection: psycopg.Connection[Any], target: Relation, column: str) -> None:
    """Raises Refused where two sessions that write the same row to a target could write it twice, as to one that is
    partitioned by time.
    """
    if not is_unique(connection, target.oid, column, children=False):
        raise Refused(
            "target-key-not-unique",
            f"No valid unique index covers {target.name}.{column} alone, so nothing keeps a row from being doubled; "
            f"add a primary key or a unique index on {column}, which a table that is partitioned by something else "
            f"cannot have.",
        )


def duplicates(connection: psycopg.Connection[Any], name: Name, column: str, *, limit: int) -> list[str]:
    """Values of a column that stand more than once, as text, at most ``limit``. Scans the table."""
    statement = sql.SQL("SELECT {0}::text FROM {1} GROUP BY {0} HAVING count(*) > 1 LIMIT {2}").format(
        sql.Identifier(column), name.identifier, sql.Literal(limit)
    )
    return [row[0] for row in execute(connection, statement).fetchall()]
