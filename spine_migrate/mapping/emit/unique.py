"""SQL that finds collisions on the target's unique indexes before the server refuses a row.

``candidates`` below is always a SELECT with ``source_key text``, ``tid tid`` and every column of the target table under
its own name, as ``candidates()`` builds it. An index's expressions and predicate are text over bare column names, so
what they are evaluated against goes by the target's own name (an index over a whole row writes ``runs.*``).

What equality means is the index's: NULLs differ unless it says NULLS NOT DISTINCT (PostgreSQL manual, CREATE INDEX),
and rows outside its predicate never collide. An index on an expression compares in the column's collation.
"""

from __future__ import annotations

from itertools import product

from psycopg import sql

from spine_migrate.db.catalog import UniqueIndex
from spine_migrate.db.row_shape import Filled
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.sql import forward
from spine_migrate.mapping.transforms.base import Sql

# With more nullable parts than this, one query per combination of NULLs would cost more than it saves.
_MOST_NULLABLE = 4


def source_key(binding: Binding, alias: str) -> Sql:
    """The key of a legacy row as text, as quarantine and reports write it."""
    return sql.SQL("{}::text").format(sql.Identifier(alias, binding.mapping.key))


def candidates(binding: Binding, table: Sql, condition: Sql, shape: tuple[Filled, ...]) -> sql.Composed:
    """Legacy rows as the target rows they become: ``source_key``, ``tid``, ``leaf`` (oid), then the target's columns.

    ``table`` is a FROM item called ``s``; ``condition`` must leave out the rows that the judge refuses, since forward
    expressions may fail on those. Columns of the target's ``shape`` that no rule produces have their default, or NULL.
    """
    values = forward(binding, "s")
    columns = [
        sql.SQL("{} AS source_key").format(source_key(binding, "s")),
        sql.SQL("s.ctid AS tid"),
        sql.SQL("s.tableoid AS leaf"),
    ]
    for column in shape:
        if not column.generated:
            value = values.get(column.name) or _text(column.expression or "NULL")
            columns.append(sql.SQL("{} AS {}").format(_typed(value, column), sql.Identifier(column.name)))
    base = sql.SQL("SELECT {} FROM {} WHERE {}").format(sql.SQL(", ").join(columns), table, condition)
    generated = [column for column in shape if column.generated]
    if not generated:
        return base
    return sql.SQL("SELECT {table}.*, {generated} FROM ({base}) AS {table}").format(
        table=sql.Identifier(binding.target.table),
        generated=sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(_typed(_text(column.expression or "NULL"), column), sql.Identifier(column.name))
            for column in generated
        ),
        base=base,
    )


def with_target(binding: Binding, index: UniqueIndex, candidates: Sql) -> sql.Composed:
    """Candidates whose place in the index is taken by a target row of another key.

    Rows: source_key text, tid, colliding_key text, colliding_row text (JSON). One index probe per candidate.
    """
    table = sql.Identifier(binding.target.table)
    key = sql.Identifier(binding.mapping.target.key)
    parts = {
        "table": table,
        "target": binding.target.identifier,
        "key": key,
        "predicate": predicate(index),
    }
    arms = [
        sql.SQL(
            "SELECT {table}.{key}::text AS colliding_key, row_to_json({table}.*)::text AS colliding_row"
            " FROM {target} AS {table} WHERE {match} AND {predicate}"
            " AND {table}.{key} IS DISTINCT FROM spine_candidate.target_key"
        ).format(match=match, **parts)
        for match in _matches(index)
    ]
    # LIMIT, not needed for the result, keeps this a probe per candidate whatever the planner believes of the table.
    return sql.SQL(
        "SELECT spine_candidate.source_key, spine_candidate.tid, taken.colliding_key, taken.colliding_row"
        " FROM ({keyed}) AS spine_candidate CROSS JOIN LATERAL (SELECT * FROM ({arms}) AS arm LIMIT 1) AS taken"
    ).format(keyed=_keyed(binding, index, candidates), arms=sql.SQL(" UNION ALL ").join(arms))


def within(binding: Binding, index: UniqueIndex, candidates: Sql) -> sql.Composed:
    """Candidates that would take a place in the index which an earlier candidate (by tid, then key) takes.

    Rows: source_key text, tid, first_key text (the earlier one's source key).
    """
    return sql.SQL(
        "SELECT source_key, tid, first_key FROM ("
        "SELECT source_key, tid, first_value(source_key) OVER place AS first_key, row_number() OVER place AS number"
        " FROM ({keyed}) AS keyed WINDOW place AS (PARTITION BY {parts} ORDER BY tid, source_key)"
        ") AS ranked WHERE number > 1"
    ).format(keyed=_keyed(binding, index, candidates), parts=_parts(index))


def groups(binding: Binding, index: UniqueIndex, candidates: Sql, limit: int) -> sql.Composed:
    """How many candidates would collide among themselves; one pass with a hash aggregate.

    One row: groups bigint, losers bigint (all but one of each group), examples json (at most ``limit`` objects with
    ``rows``, ``first`` and ``last``: the size of a group and the least and greatest of its source keys as text).
    """
    return sql.SQL(
        'WITH collision AS (SELECT count(*) AS rows, min(source_key COLLATE "C") AS first,'
        ' max(source_key COLLATE "C") AS last FROM ({keyed}) AS keyed GROUP BY {parts} HAVING count(*) > 1)'
        " SELECT count(*) AS groups, coalesce(sum(rows - 1), 0)::bigint AS losers,"
        " (SELECT coalesce(json_agg(example), '[]') FROM"
        " (SELECT * FROM collision ORDER BY first LIMIT {limit}) AS example) AS examples FROM collision"
    ).format(keyed=_keyed(binding, index, candidates), parts=_parts(index), limit=sql.Literal(limit))


def _keyed(binding: Binding, index: UniqueIndex, candidates: Sql) -> sql.Composed:
    """The candidates that the index covers and that can collide, with its parts as k1, k2, ... and their target key.

    OFFSET 0 keeps the predicate from being evaluated on rows that the candidates' own WHERE leaves out.
    """
    table = sql.Identifier(binding.target.table)
    conditions = [predicate(index)]
    if index.nulls_distinct:
        conditions += [sql.SQL("({}) IS NOT NULL").format(_text(part)) for part in index.expressions]
    return sql.SQL(
        "SELECT {table}.source_key, {table}.tid, {table}.{key} AS target_key, {parts}"
        " FROM (SELECT * FROM ({candidates}) AS fenced OFFSET 0) AS {table} WHERE {conditions}"
    ).format(
        table=table,
        key=sql.Identifier(binding.mapping.target.key),
        parts=sql.SQL(", ").join(
            sql.SQL("({}) AS {}").format(_text(part), sql.Identifier(f"k{number}"))
            for number, part in enumerate(index.expressions, 1)
        ),
        candidates=candidates,
        conditions=sql.SQL(" AND ").join(conditions),
    )


def _matches(index: UniqueIndex) -> list[Sql]:
    """Conditions that together say "same place in the index", each of which the index can answer.

    With NULLS NOT DISTINCT there is one for each combination of NULLs; a candidate takes the one arm that fits it.
    """
    parts = [
        (sql.SQL("({})").format(_text(part)), sql.Identifier("spine_candidate", f"k{number}"))
        for number, part in enumerate(index.expressions, 1)
    ]
    equal = [sql.SQL("{} = {}").format(part, value) for part, value in parts]
    if index.nulls_distinct:
        return [sql.SQL(" AND ").join(equal)]
    if len(parts) > _MOST_NULLABLE:
        return [sql.SQL(" AND ").join(sql.SQL("{} IS NOT DISTINCT FROM {}").format(*pair) for pair in parts)]
    empty = [sql.SQL("{} IS NULL AND {} IS NULL").format(part, value) for part, value in parts]
    return [sql.SQL(" AND ").join(choice) for choice in product(*zip(equal, empty, strict=True))]


def _parts(index: UniqueIndex) -> Sql:
    return sql.SQL(", ").join(sql.Identifier(f"k{number}") for number in range(1, len(index.expressions) + 1))


def predicate(index: UniqueIndex) -> Sql:
    """Which of the candidates are in an index."""
    return sql.SQL("({})").format(_text(index.predicate or "true"))


def _typed(value: Sql, column: Filled) -> Sql:
    """As the live column has it: an enum or citext compares otherwise than the text that the mapping produces."""
    typed = sql.SQL("({})::{}").format(value, _text(column.type))
    return sql.SQL("{} COLLATE {}").format(typed, _text(column.collation)) if column.collation else typed


def _text(fragment: str) -> sql.SQL:
    """SQL text that the catalog printed."""
    return sql.SQL(fragment)
