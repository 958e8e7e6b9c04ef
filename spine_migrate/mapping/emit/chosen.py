"""Which rows a statement of parity is about: all, those of given keys, or legacy rows that are handed to it as text."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from spine_migrate.mapping.emit.checks import cell
from spine_migrate.mapping.emit.sides import EVERY, Sides
from spine_migrate.mapping.transforms.base import Sql


@dataclass(frozen=True)
class Chosen:
    """``old`` and ``new`` are the relations of ``Sides``; ``links`` is a condition on the ledger's links ``l``.

    ``come`` are all legacy rows that a link may lead to, as a relation of which only the target's key is read.
    """

    old: Sql
    new: Sql
    links: Sql
    come: Sql

    def pairs(self, key: int) -> Sql:
        return sql.SQL("{} AS o FULL JOIN {} AS n ON {} = {}").format(
            self.old, self.new, cell("o", key), cell("n", key)
        )


def parameter(number: int, type_name: sql.SQL) -> sql.Composed:
    """``$number::type_name``; the type is ours, or as format_type prints it."""
    return sql.SQL("${}::{}").format(sql.SQL(str(number)), type_name)


def everything(sides: Sides) -> Chosen:
    return Chosen(sides.old(), sides.new(), EVERY, sides.old())


def where(sides: Sides, condition: Sql) -> Chosen:
    """Rows ``x`` of either side by a condition that only the target's key decides, so that no pair is torn apart."""
    old, new = (
        sql.SQL("(SELECT x.* FROM {} AS x WHERE {})").format(rows, condition) for rows in (sides.old(), sides.new())
    )
    return Chosen(old, new, EVERY, sides.old())


def touching(sides: Sides, condition: Sql) -> Chosen:
    """Pairs of which one row ``x`` at least meets a condition, and rows without a partner that do."""
    key = cell("x", sides.key_number)
    old, new = (
        sql.SQL(
            "(SELECT x.* FROM {one} AS x WHERE {condition} UNION ALL SELECT x.* FROM {one} AS x"
            " WHERE ({condition}) IS NOT TRUE AND {key} IN (SELECT {key} FROM {other} AS x WHERE {condition}))"
        ).format(one=one, other=other, condition=condition, key=key)
        for one, other in ((sides.old(), sides.new()), (sides.new(), sides.old()))
    )
    return Chosen(old, new, EVERY, sides.old())


def of_source_keys(sides: Sides, number: int) -> Sql:
    """The legacy rows ``s`` whose keys are in the parameter ``$number``, an array of text."""
    return sql.SQL("s.{} = ANY({}::{}[])").format(
        sql.Identifier(sides.binding.mapping.key), parameter(number, sql.SQL("text[]")), sides.source_key_type
    )


def of_target_keys(sides: Sides, number: int) -> Sql:
    """The target rows ``t`` whose keys are in the parameter ``$number``, an array of text."""
    return sql.SQL("t.{} = ANY({}::{}[])").format(
        sql.Identifier(sides.binding.mapping.target.key), parameter(number, sql.SQL("text[]")), sides.target_key_type
    )


def keyed(sides: Sides, first: int) -> Chosen:
    """Legacy rows by the keys in ``$first``, target rows by those in the parameter after it, both arrays of text."""
    return Chosen(
        sides.old(of_source_keys(sides, first)),
        sides.new(of_target_keys(sides, first + 1)),
        sql.SQL("l.target_key = ANY({})").format(parameter(first + 1, sql.SQL("text[]"))),
        sides.old(),
    )
