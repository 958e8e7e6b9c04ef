"""Pieces of the compatibility view's trigger functions (PL/pgSQL) that more than one of their parts is made of.

A body has the variables NEW and OLD, rows of the view. What a name in a statement means is decided for the column
(#variable_conflict use_column).

What is evaluated for each row is written over the variables themselves and without a FROM: PL/pgSQL evaluates such an
expression by itself, where anything with a subquery is a statement that is started and ended.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from spine_migrate.mapping.emit.legacy_form import LegacyForm
from spine_migrate.mapping.transforms.base import Sql

NEW, OLD = "new", "old"


def row(variable: str, columns: Iterable[str], alias: str) -> sql.Composed:
    """A FROM item: one row under ``alias``, with the columns of a variable."""
    return sql.SQL("(SELECT {}) AS {}").format(
        sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(sql.Identifier(variable, name), sql.Identifier(name)) for name in columns
        ),
        sql.Identifier(alias),
    )


def differ(form: LegacyForm, name: str, one: str, other: str) -> sql.Composed:
    """Whether two variables differ in a column, to the byte: what is equal need not look the same (1.0 and 1.00)."""
    both = sql.Identifier(one, name), sql.Identifier(other, name)
    if name in form.plain:
        return sql.SQL("{} IS DISTINCT FROM {}").format(*both)
    # A cast, since ROW(...) *<> ROW(...) would compare part by part, which scalars have no such operator for.
    return sql.SQL("ROW({})::record *<> ROW({})::record").format(*both)


def changed(form: LegacyForm, names: Iterable[str]) -> Sql:
    """Whether an UPDATE changes any of these columns."""
    return either(differ(form, name, NEW, OLD) for name in sorted(names))


def either(conditions: Iterable[Sql]) -> Sql:
    found = list(conditions)
    return sql.SQL("({})").format(sql.SQL(" OR ").join(found)) if found else sql.SQL("false")


def when(condition: Sql, *statements: Sql) -> sql.Composed:
    # In parentheses, since PL/pgSQL would take the THEN of a CASE for its own.
    return sql.SQL("IF ({}) THEN\n{}\nEND IF;").format(condition, sql.SQL("\n").join(statements))


def fail(sqlstate: str, message: Sql, **fields: str) -> sql.Composed:
    """RAISE; ``fields`` as PL/pgSQL names them (column, constraint, table, schema, detail, hint)."""
    return sql.SQL("RAISE EXCEPTION USING ERRCODE = {}, MESSAGE = {}{};").format(
        sql.Literal(sqlstate),
        message,
        sql.SQL("").join(
            sql.SQL(", {} = {}").format(sql.SQL(name.upper()), sql.Literal(value)) for name, value in fields.items()
        ),
    )
