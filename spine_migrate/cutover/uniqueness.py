"""Whether the target keeps apart what a unique index of the legacy table keeps apart.

A target index does where its parts are made of nothing but the legacy index's columns (and constants), so that rows
that agree there agree here, and where it covers every row that the legacy one covers. Whether its predicate does is
asked of the server, for each value that a closed value map knows; what cannot be told so counts as no.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import psycopg
from psycopg import sql

from spine_migrate.db.catalog import UniqueIndex
from spine_migrate.db.connect import Connection
from spine_migrate.db.raw import execute
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.sql import forward_value
from spine_migrate.mapping.model import Field
from spine_migrate.mapping.transforms.value_map import ValueMap

# As pg_get_indexdef prints a key of a JSON column.
_JSON_KEY = re.compile(r"^\(*(?P<column>\w+) ->> '(?P<key>(?:[^']|'')*)'::text\)*$")


def keeper(
    connection: Connection, binding: Binding, index: UniqueIndex, candidates: Iterable[UniqueIndex]
) -> UniqueIndex | None:
    """The target's unique index that stands for one of the legacy table."""
    return next(
        (
            one
            for one in candidates
            if one.valid and _made_of(binding, one, index.columns) and _covers(connection, binding, one, index)
        ),
        None,
    )


def sources(binding: Binding, index: UniqueIndex) -> frozenset[str] | None:
    """The legacy columns that decide a target index; None where the mapping does not write all of its parts."""
    fields = [_field(binding, *part) for part in zip(index.expressions, index.columns, strict=True)]
    if not all(fields):
        return None
    return frozenset(
        name for one in fields if one is not None for name in (one.column, one.when_present) if name is not None
    )


def _made_of(binding: Binding, index: UniqueIndex, columns: tuple[str, ...]) -> bool:
    """Whether rows that agree in ``columns``, none of them NULL, agree in the index."""
    for expression, column in zip(index.expressions, index.columns, strict=True):
        field = _field(binding, expression, column)
        if field is None:
            return False
        sources = {one for one in (field.column, field.when_present) if one is not None}
        if not sources <= set(columns) or not all(step.total for step in field.steps):
            return False
    return "" not in columns


def _field(binding: Binding, expression: str, column: str) -> Field | None:
    """The rule behind a part of a target index."""
    if column:
        return binding.mapping.base(column)
    found = _JSON_KEY.match(expression)
    if found is None:
        return None
    path = (found["key"].replace("''", "'"),)
    return next((one for one in binding.mapping.fields if one.target == found["column"] and one.path == path), None)


def _covers(connection: Connection, binding: Binding, index: UniqueIndex, legacy: UniqueIndex) -> bool:
    if index.predicate is None or index.predicate == legacy.predicate:
        return index.predicate is None or _same_column(binding, index.predicate)
    return any(
        _implied(connection, binding, field, index.predicate, legacy.predicate)
        for field in binding.mapping.fields
        if not field.path and field.column in binding.live and _closed(field)
    )


def _same_column(binding: Binding, predicate: str) -> bool:
    """Whether a predicate that both tables have means the same in both: of columns that are carried as they are."""
    carried = {
        one.target for one in binding.mapping.fields if one.column == one.target and not one.path and not one.steps
    }
    words = set(re.findall(r"[a-z_]\w*", re.sub(r"'[^']*'|::[\w ]+", "", predicate), re.IGNORECASE))
    return words - {"is", "not", "null", "IS", "NOT", "NULL", "AND", "OR", "ANY", "ARRAY"} <= carried


def _closed(field: Field) -> bool:
    return any(isinstance(step, ValueMap) and not step.others_pass for step in field.steps)


def _implied(connection: Connection, binding: Binding, field: Field, predicate: str, given: str | None) -> bool:
    """Whether every value of the field's column for which ``given`` holds becomes one for which ``predicate`` does."""
    step = next(step for step in field.steps if isinstance(step, ValueMap))
    source = sql.Identifier(field.source)
    values = sql.SQL("(SELECT v::{} AS {} FROM unnest({}::text[]) AS u (v))").format(
        sql.SQL(binding.live[field.source].sql_type), source, sql.Literal([str(value) for value in step.values])
    )
    # Each predicate sees its own table's column alone: they may have one name.
    statement = sql.SQL(
        "SELECT count(*) FROM (SELECT s.{source} AS spine_value FROM {values} AS s WHERE ({given}) IS TRUE) AS g"
        " CROSS JOIN LATERAL (SELECT {forward} AS {target} FROM (SELECT g.spine_value AS {source}) AS s) AS t"
        " WHERE (SELECT ({predicate}) FROM (SELECT t.{target}) AS {table}) IS NOT TRUE"
    ).format(
        source=source,
        values=values,
        given=sql.SQL(given or "true"),
        forward=forward_value(binding, field, "s"),
        target=sql.Identifier(field.target),
        predicate=sql.SQL(predicate),
        table=sql.Identifier(binding.target.table),
    )
    try:
        with connection.transaction():
            ((outside,),) = execute(connection, statement).fetchall()
    except psycopg.errors.UndefinedColumn:
        # One of the predicates is about other columns as well.
        return False
    return bool(outside == 0)
