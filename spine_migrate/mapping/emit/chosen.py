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


def within(sides: Sides, old_rows: Sql, new_rows: Sql) -> Chosen:
    """Rows by conditions on the legacy row ``s`` and on the target row ``t``."""
    return Chosen(sides.old(old_rows), sides.new(new_rows), EVERY, sides.old())


def everything(sides: Sides) -> Chosen:
    return within(sides, EVERY, EVERY)


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
