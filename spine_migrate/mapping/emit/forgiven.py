"""What the rules were allowed to lose: legacy rows whose value does not come back, by rule and by dropped column."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.mapping.emit.sides import Sides
from spine_migrate.mapping.emit.sql import kept
from spine_migrate.mapping.model import Field
from spine_migrate.mapping.transforms.base import Sql


@dataclass(frozen=True)
class Loss:
    """``rows`` is a condition on a legacy row ``s``; ``rule`` is None for a column that the mapping drops."""

    what: str
    rule: Field | None
    rows: Sql


def losses(sides: Sides) -> Iterator[Loss]:
    """Of columns that are really there. Where another rule brings a value back, none is lost."""
    binding = sides.binding
    for name, reason in binding.mapping.dropped.items():
        if name in binding.live:
            there = sql.SQL("{} IS NOT NULL").format(sql.Identifier("s", name))
            yield Loss(f"{name} is dropped: {reason}", None, there)
    for field in binding.mapping.fields:
        if field.lossy is None or field.source not in binding.live or binding.mapping.carrier(field.source) != field:
            continue
        condition, value = kept(binding, field, "s")
        lost = condition if condition is not None else sql.SQL("{} IS NOT NULL").format(value)
        if (raising := sides.guards.raising.get(field.name)) is not None:
            lost = sql.SQL("CASE WHEN {} THEN false ELSE {} END").format(raising, lost)
        yield Loss(field.lossy, field, lost)


def counted(sides: Sides, found: list[Loss]) -> sql.Composed:
    """The rows of each loss, in one pass over the legacy rows that are not in quarantine. ``$1`` as in ``Sides``."""
    return sql.SQL("SELECT {} FROM {} AS s {} WHERE q.key IS NULL").format(
        sql.SQL(", ").join(sql.SQL("count(*) FILTER (WHERE {})").format(loss.rows) for loss in found),
        sides.binding.source.identifier,
        sides.held(),
    )
