"""Legacy rows of another server, carried forward there and handed to the target's server as text.

As text every type of a target column comes back unchanged: sessions write timestamps in UTC and ISO, and jsonb keeps
the digits of its numbers (PostgreSQL manual, 8.14).
"""

from __future__ import annotations

from psycopg import sql

from spine_migrate.mapping.emit.checks import cell
from spine_migrate.mapping.emit.chosen import Chosen, of_source_keys, of_target_keys, parameter
from spine_migrate.mapping.emit.digest import Digest
from spine_migrate.mapping.emit.sides import EVERY, Sides
from spine_migrate.mapping.transforms.base import Sql

_TEXTS = sql.SQL("text[]")


def _columns(sides: Sides) -> list[str]:
    return ["key", "held", *(f"c{number}" for number in range(len(sides.produced))), *(f"r{n}" for n in sides.hidden)]


def carry(sides: Sides) -> sql.Composed:
    """On the source's server: the legacy rows whose keys are in ``$2``, each column as text, in the order in which
    ``carried`` takes them. ``$1`` is that of ``Sides``.
    """
    columns = sql.SQL(", ").join(sql.SQL("{}::text").format(sql.Identifier("o", name)) for name in _columns(sides))
    return sql.SQL("SELECT {} FROM {} AS o").format(columns, sides.old(of_source_keys(sides, 2)))


def carried(sides: Sides, first: int) -> tuple[Chosen, int]:
    """On the target's server: the rows of ``carry``, an array of text for each column from ``$first`` on; then two more
    such arrays: the target keys to look at, and the target keys that legacy rows lead to, among those that are wanted.
    With the number of the columns.
    """
    names = _columns(sides)
    kinds: list[Sql] = [sides.source_key_type, sides.source_key_type]
    kinds += [sides.type_of(number) for number in range(len(sides.produced))]
    kinds += [sql.SQL("boolean")] * len(sides.hidden)
    columns = []
    for name, kind in zip(names, kinds, strict=True):
        value: Sql = sql.SQL("{}::{}").format(sql.Identifier("g", name), kind)
        if name.startswith("c"):
            value = sides.comparable(sides.produced[int(name[1:])], value)
        columns.append(sql.SQL("{} AS {}").format(value, sql.Identifier(name)))
    keys = first + len(names)
    # Named here too, as not every statement has a use for it.
    given = sql.SQL("{} IS NOT NULL").format(parameter(keys + 1, _TEXTS))
    old = sql.SQL("(SELECT {} FROM unnest({}) AS g ({}) WHERE {})").format(
        sql.SQL(", ").join(columns),
        sql.SQL(", ").join(parameter(first + number, _TEXTS) for number in range(len(names))),
        sql.SQL(", ").join(map(sql.Identifier, names)),
        given,
    )
    come = sql.SQL("(SELECT c.key::{} AS {} FROM unnest({}) AS c (key))").format(
        sides.target_key_type, sql.Identifier(f"c{sides.key_number}"), parameter(keys + 1, _TEXTS)
    )
    links = sql.SQL("l.target_key = ANY({})").format(parameter(keys, _TEXTS))
    return Chosen(old, sides.new(of_target_keys(sides, keys)), links, come), len(names)


def fingerprints(sides: Sides, *, source: bool) -> sql.Composed:
    """Rows as those of ``Digest.rows`` for the keys in ``$2``: legacy keys of the source, target keys of the target."""
    rows = of_source_keys(sides, 2) if source else of_target_keys(sides, 2)
    return Digest(sides, source, EVERY).of(rows)


def led_to(sides: Sides) -> sql.Composed:
    """Which of the target keys of ``$2``, an array of text, legacy rows lead to: ``target_key, source_key``.
    ``$1`` is that of ``Sides``.
    """
    return sql.SQL("SELECT {key}::text, o.key::text FROM {old} AS o WHERE {key} = ANY({keys}::{type}[])").format(
        key=cell("o", sides.key_number),
        old=sides.old(),
        keys=parameter(2, _TEXTS),
        type=sides.target_key_type,
    )


def present(sides: Sides) -> sql.Composed:
    """Which legacy keys of ``$1``, an array of text, there are."""
    return sql.SQL("SELECT s.{}::text FROM {} AS s WHERE {}").format(
        sql.Identifier(sides.binding.mapping.key), sides.binding.source.identifier, of_source_keys(sides, 1)
    )
