"""Conditions for a part of the rows, over a row ``x`` of either side; and which rows given legacy keys stand for."""

from __future__ import annotations

from datetime import datetime

from psycopg import sql

from spine_migrate.mapping.emit.checks import cell
from spine_migrate.mapping.emit.chosen import Chosen, parameter
from spine_migrate.mapping.emit.digest import place
from spine_migrate.mapping.emit.sides import Sides
from spine_migrate.mapping.emit.sql import key
from spine_migrate.mapping.transforms.base import Sql

# The target's columns that say when a row came to be; a mapping has one of them at most.
TIMES = ("created_at", "timestamp")
# The bits of a hash that a sample goes by are not those that name its bucket.
_SHIFT, _BITS = 24, 40


def sampled(sides: Sides, share: float) -> Sql:
    """A share (0 to 1) of the target keys, the same at any time and on any side."""
    bound = round(share * 2**_BITS) - 2 ** (_BITS - 1)
    return sql.SQL("({} >> {}) < {}").format(place(sides, "x"), sql.Literal(_SHIFT), sql.Literal(bound))


def time_column(sides: Sides) -> int | None:
    """The number of the column that carries the legacy rows' time, None where the mapping has none."""
    carried = {field.target for field in sides.binding.mapping.fields if field.column is not None and not field.path}
    return next((number for number, name in enumerate(sides.produced) if name in TIMES and name in carried), None)


def since(column: int, when: datetime) -> Sql:
    return sql.SQL("{} >= {}::timestamptz").format(cell("x", column), sql.Literal(when.isoformat()))


def targets(sides: Sides) -> sql.Composed:
    """Pairs ``source_key, target_key`` of the legacy keys in ``$2``, an array of text; where the key alone decides,
    whether or not there are such rows. ``$1`` is that of ``Sides``.
    """
    mapping = sides.binding.mapping
    listed = sql.SQL("{}::{}[]").format(parameter(2, sql.SQL("text[]")), sides.source_key_type)
    if mapping.key_field.column == mapping.key:
        return sql.SQL("SELECT s.{name}::text, {key}::text FROM unnest({listed}) AS s ({name}) WHERE {first}").format(
            name=sql.Identifier(mapping.key),
            key=key(sides.binding, "s"),
            listed=listed,
            first=sql.SQL("{} IS NOT NULL").format(parameter(1, sql.SQL("text"))),
        )
    return sql.SQL("SELECT o.key::text, {}::text FROM {} AS o").format(
        cell("o", sides.key_number),
        sides.old(sql.SQL("s.{} = ANY({})").format(sql.Identifier(mapping.key), listed)),
    )


def of_targets(sides: Sides) -> sql.Composed:
    """The legacy rows that lead to the target keys in ``$2``, an array of text. Rows: ``source_key``."""
    return sql.SQL("SELECT o.key::text FROM {} AS o WHERE {} = ANY({}::{}[])").format(
        sides.old(),
        cell("o", sides.key_number),
        parameter(2, sql.SQL("text[]")),
        sides.target_key_type,
    )


def size(relation: Sql) -> sql.Composed:
    """How many rows a relation of ``Sides`` has; ``$1`` as there."""
    return sql.SQL("SELECT count(*) FROM {} AS x WHERE {} IS NOT NULL").format(relation, parameter(1, sql.SQL("text")))


def sizes(chosen: Chosen) -> sql.Composed:
    """How many rows of each side are chosen, the target's without others than ours. ``$1`` is the migration."""
    return sql.SQL("SELECT (SELECT count(*) FROM {} AS o), (SELECT count(*) FROM {} AS n)").format(
        chosen.old, chosen.new
    )
