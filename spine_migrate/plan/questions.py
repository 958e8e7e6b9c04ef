"""The plan's questions to the data, as SQL. Each is one pass over the source, set-based.

Examples come back as a JSON array of key and detail, as text. Rejected rows are dealt into ``BUCKETS`` by a hash of
their key and each bucket gives its least one, so that examples cost no memory, however many rows are rejected.
"""

from __future__ import annotations

from psycopg import sql

from spine_migrate.db.catalog import UniqueIndex
from spine_migrate.db.row_shape import Filled
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit import unique
from spine_migrate.mapping.emit.sql import forward_value, is_ours, judgements, key, verdict
from spine_migrate.mapping.model import Field
from spine_migrate.mapping.transforms.base import Sql

BUCKETS = 16


def passes(binding: Binding, alias: str) -> Sql:
    """Whether the judge lets a legacy row through."""
    return sql.SQL("({}) IS NULL").format(verdict(list(judgements(binding, alias)), "reason"))


def judged(binding: Binding) -> sql.Composed:
    """Rows: reason text, field text, rows bigint, example text. Reason and field are NULL for the rows that pass."""
    found = list(judgements(binding, "s"))
    # OFFSET 0: the verdict is worked out once for a row, its field and sentence only where there is one.
    return sql.SQL(
        'SELECT j.reason, j.field, count(*) AS rows, min(j.example COLLATE "C") AS example FROM ('
        "SELECT s.spine_reason AS reason, CASE WHEN s.spine_reason IS NOT NULL THEN {field} END AS field,"
        " {bucket} AS bucket, CASE WHEN s.spine_reason IS NOT NULL THEN {example} END AS example"
        " FROM (SELECT s.*, {reason} AS spine_reason FROM {source} AS s OFFSET 0) AS s"
        ") AS j GROUP BY j.reason, j.field, j.bucket"
    ).format(
        field=verdict(found, "field"),
        bucket=_bucket(sql.SQL("s.spine_reason IS NOT NULL"), unique.source_key(binding, "s")),
        example=_example(unique.source_key(binding, "s"), verdict(found, "detail")),
        reason=verdict(found, "reason"),
        source=binding.source.identifier,
    )


def keys(binding: Binding) -> sql.Composed:
    """Passing rows whose key is on the target. Rows: ours boolean, rows bigint, example text."""
    own = sql.Identifier(binding.mapping.target.key)
    return sql.SQL(
        'SELECT j.ours, count(*) AS rows, min(j.example COLLATE "C") AS example FROM ('
        "SELECT {ours} IS TRUE AS ours, json_build_array(s.source_key, t.{own}::text)::text AS example,"
        " {bucket} AS bucket FROM (SELECT {source_key} AS source_key, {key} AS target_key FROM {source} AS s"
        " WHERE {passes} OFFSET 0) AS s JOIN {target} AS t ON t.{own} = s.target_key"
        ") AS j GROUP BY j.ours, j.bucket"
    ).format(
        ours=is_ours(binding, "t"),
        bucket=_bucket(sql.SQL("true"), sql.SQL("s.source_key")),
        source_key=unique.source_key(binding, "s"),
        key=key(binding, "s"),
        source=binding.source.identifier,
        passes=passes(binding, "s"),
        target=binding.target.identifier,
        own=own,
    )


def parents(
    binding: Binding, field: Field, parent: Binding, indexes: list[UniqueIndex], shape: tuple[Filled, ...]
) -> sql.Composed:
    """Passing rows whose parent will not be there. Rows: reason (orphan, parent_quarantined), rows bigint, example.

    ``indexes`` and ``shape`` are of the parent's target: a parent that loses its place in an index is not there either.
    """
    own = sql.Identifier(parent.mapping.target.key)
    name = parent.mapping.name
    return sql.SQL(
        'SELECT j.reason, count(*) AS rows, min(j.example COLLATE "C") AS example FROM ('
        "SELECT k.reason, json_build_array(k.source_key, CASE WHEN k.reason = 'orphan' THEN {orphan}"
        " ELSE {lost} || k.why || ')' END)::text AS example, {bucket} AS bucket FROM ("
        "SELECT s.source_key, coalesce(p.why, 'key_taken') AS why,"
        " CASE WHEN t.{own} IS NULL AND p.known IS NULL THEN 'orphan'"
        " WHEN p.why IS NOT NULL AND t.{own} IS NULL THEN 'parent_quarantined'"
        " WHEN p.known AND t.{own} IS NOT NULL AND NOT coalesce({ours}, false) THEN 'parent_quarantined' END AS reason"
        " FROM (SELECT {source_key} AS source_key, {column} AS legacy, {wanted} AS wanted FROM {source} AS s"
        " WHERE {passes} OFFSET 0) AS s LEFT JOIN ({parents}) AS p ON {same}"
        " LEFT JOIN {parent_target} AS t ON t.{own} = s.wanted"
        ") AS k WHERE k.reason IS NOT NULL) AS j GROUP BY j.reason, j.bucket"
    ).format(
        orphan=sql.Literal(f"{field.column} names no row that {name} has or has moved"),
        lost=sql.Literal(f"{field.column} names a row of {name} that goes to quarantine ("),
        bucket=_bucket(sql.SQL("true"), sql.SQL("k.source_key")),
        own=own,
        ours=is_ours(parent, "t"),
        source_key=unique.source_key(binding, "s"),
        column=sql.Identifier("s", str(field.column)),
        wanted=forward_value(binding, field, "s"),
        source=binding.source.identifier,
        passes=passes(binding, "s"),
        parents=_fates(parent, indexes, shape),
        same=_same(binding, field, parent),
        parent_target=parent.target.identifier,
    )


def _fates(binding: Binding, indexes: list[UniqueIndex], shape: tuple[Filled, ...]) -> sql.Composed:
    """Every legacy row with why it is not moved: legacy (its key), known true, why text or NULL.

    Of rows that want one place in an index the first in physical order gets it.
    """
    rows = candidates(binding, shape)
    losers: list[Sql] = [sql.SQL("SELECT NULL::text AS source_key WHERE false")]
    for index in indexes:
        losers.append(sql.SQL("SELECT source_key FROM ({}) AS w").format(unique.within(binding, index, rows)))
        losers.append(sql.SQL("SELECT source_key FROM ({}) AS w").format(unique.with_target(binding, index, rows)))
    return sql.SQL(
        "SELECT p.legacy, true AS known, coalesce(p.why, CASE WHEN l.source_key IS NOT NULL THEN 'unique_conflict' END)"
        " AS why FROM"
        " (SELECT {key} AS legacy, {source_key} AS source_key, {why} AS why FROM {source} AS p OFFSET 0) AS p"
        " LEFT JOIN (SELECT DISTINCT source_key FROM ({losers}) AS u) AS l ON l.source_key = p.source_key"
    ).format(
        key=sql.Identifier("p", binding.mapping.key),
        source_key=unique.source_key(binding, "p"),
        why=verdict(list(judgements(binding, "p")), "reason"),
        source=binding.source.identifier,
        losers=sql.SQL(" UNION ALL ").join(losers),
    )


def _same(binding: Binding, field: Field, parent: Binding) -> Sql:
    """Whether a row names a legacy parent; as text where the two columns are of different types."""
    types = {binding.live[str(field.column)].type, parent.live[parent.mapping.key].type}
    return sql.SQL("p.legacy = s.legacy" if len(types) == 1 else "p.legacy::text = s.legacy::text")


def broken_links(binding: Binding, link: Field) -> sql.Composed:
    """Passing rows whose link leads to a row that is in neither table. Rows: rows bigint, example text."""
    return sql.SQL(
        'SELECT count(*) AS rows, min(j.example COLLATE "C") AS example FROM ('
        "SELECT json_build_array(s.source_key, {detail} || s.wanted::text)::text AS example, {bucket} AS bucket"
        " FROM (SELECT {source_key} AS source_key, {wanted} AS wanted FROM {source} AS s"
        " WHERE {wanted} IS NOT NULL AND {passes} OFFSET 0) AS s"
        " WHERE NOT EXISTS (SELECT FROM {source} AS p WHERE {key} = s.wanted)"
        " AND NOT EXISTS (SELECT FROM {target} AS t WHERE t.{own} = s.wanted)"
        ") AS j GROUP BY j.bucket"
    ).format(
        detail=sql.Literal(f"{link.column} leads nowhere: "),
        bucket=_bucket(sql.SQL("true"), sql.SQL("s.source_key")),
        source_key=unique.source_key(binding, "s"),
        wanted=forward_value(binding, link, "s"),
        source=binding.source.identifier,
        passes=passes(binding, "s"),
        key=key(binding, "p"),
        target=binding.target.identifier,
        own=sql.Identifier(binding.mapping.target.key),
    )


def candidates(binding: Binding, shape: tuple[Filled, ...]) -> sql.Composed:
    """All passing rows as target rows; see ``mapping.emit.unique``."""
    table = sql.SQL("{} AS s").format(binding.source.identifier)
    return unique.candidates(binding, table, passes(binding, "s"), shape)


def taken(binding: Binding, index: UniqueIndex, shape: tuple[Filled, ...], limit: int) -> sql.Composed:
    """Passing rows that collide with a target row. One row: taken bigint, examples json (source_key, colliding_key)."""
    return sql.SQL(
        "WITH taken AS MATERIALIZED (SELECT source_key, colliding_key FROM ({found}) AS found)"
        " SELECT count(*) AS taken, (SELECT coalesce(json_agg(one), '[]') FROM"
        " (SELECT * FROM taken ORDER BY source_key LIMIT {limit}) AS one) AS examples FROM taken"
    ).format(found=unique.with_target(binding, index, candidates(binding, shape)), limit=sql.Literal(limit))


def collisions(
    binding: Binding, index: UniqueIndex, shape: tuple[Filled, ...], limit: int, *, target_has_rows: bool
) -> sql.Composed:
    """Passing rows that collide among themselves; columns as in ``unique.groups``.

    Where the target has rows, those that are there already or collide with one that is are left out: they are counted
    by ``keys`` and ``taken``.
    """
    rows = candidates(binding, shape)
    if target_has_rows:
        rows = sql.SQL(
            "SELECT c.* FROM ({rows}) AS c WHERE c.source_key NOT IN (SELECT w.source_key FROM ({taken}) AS w)"
            " AND NOT EXISTS (SELECT FROM {target} AS t WHERE t.{own} = c.{own})"
        ).format(
            rows=rows,
            taken=unique.with_target(binding, index, rows),
            target=binding.target.identifier,
            own=sql.Identifier(binding.mapping.target.key),
        )
    return unique.groups(binding, index, rows, limit)


def _bucket(condition: Sql, source_key: Sql) -> Sql:
    return sql.SQL("CASE WHEN {} THEN hashtext({}) & {} ELSE 0 END").format(
        condition, source_key, sql.Literal(BUCKETS - 1)
    )


def _example(source_key: Sql, detail: Sql) -> Sql:
    return sql.SQL("json_build_array({}, {})::text").format(source_key, detail)
