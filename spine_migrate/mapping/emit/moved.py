"""The SQL of taking rows back: which target rows are still as the mapping made them, and what has touched the others.

The same comparison as parity's, seen from the target: a row is as it was made where it equals forward(source), its
links excepted that the ledger knows to be open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from psycopg import sql

from spine_migrate.db.catalog import Column, Name
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.checks import Check, cell
from spine_migrate.mapping.emit.parity import Parity, parity
from spine_migrate.mapping.emit.sql import is_ours
from spine_migrate.mapping.transforms.base import Sql


@dataclass(frozen=True)
class Moved(Parity):
    """Statements over the target rows that carry the mapping's mark. ``$1`` is always the migration."""

    @property
    def key_type(self) -> sql.SQL:
        return self.target_key_type

    def touched(self) -> sql.Composed:
        """Rows that are not as they were made: ``target_key``, ``reason``, ``detail``; one pass over both tables.

        ``reason`` is source_gone, in_quarantine or changed; ``detail`` lists the fields that changed.
        """
        names = [
            sql.SQL("CASE WHEN {} THEN {} END").format(self._unexplained(check), sql.Literal(check.name))
            for check in self.checks
        ]
        return sql.SQL(
            "SELECT target_key, CASE WHEN gone THEN 'source_gone' WHEN held THEN 'in_quarantine' ELSE 'changed' END"
            " AS reason, array_to_string(fields, ', ') AS detail FROM ("
            "SELECT {key} AS target_key, o.key IS NULL AS gone, o.held IS NOT NULL AS held,"
            " CASE WHEN o.key IS NOT NULL AND o.held IS NULL THEN array_remove(ARRAY[{names}]::text[], NULL) END"
            " AS fields FROM {new} AS n LEFT JOIN {old} AS o ON {old_key} = {key}"
            " WHERE CASE WHEN {suspicious} THEN 1 ELSE 0 END = 1) AS x"
            " WHERE gone OR held OR fields <> '{{}}'"
        ).format(
            key=cell("n", self.key_number),
            old_key=cell("o", self.key_number),
            names=sql.SQL(", ").join(names),
            new=self.new(),
            old=self.old(),
            suspicious=sql.SQL(" OR ").join([sql.SQL("o.key IS NULL OR o.held IS NOT NULL"), *self.differences()]),
        )

    def intact(self, leaf: Name, apart: Sql) -> sql.Composed:
        """Keys (text) of target rows that are as they were made, for source rows of one table.

        ``$2`` and ``$3`` are tids, exclusive and inclusive. ``apart`` is a condition on ``n.c…``, see ``key``.
        """
        there = replace(self, binding=replace(self.binding, source=leaf))
        by_column = [
            sql.SQL("NOT ({})").format(self._unexplained(check))
            for check in self.checks
            if check.link or check.refused is not None
        ]
        links = {check.name for check in self.links}
        equal = [
            sql.SQL("{} IS NOT DISTINCT FROM {}").format(cell("o", number), cell("n", number))
            for number, name in enumerate(self.produced)
            if name not in links
        ]
        return sql.SQL(
            "SELECT {key}::text FROM {old} AS o JOIN {new} AS n ON {old_key} = {key}"
            " WHERE o.held IS NULL AND {conditions} AND {apart}"
        ).format(
            key=self.key,
            old_key=cell("o", self.key_number),
            old=there.old(sql.SQL("s.ctid > $2::tid AND s.ctid <= $3::tid")),
            new=self.new(),
            conditions=sql.SQL(" AND ").join([*equal, *by_column]),
            apart=apart,
        )

    @property
    def key(self) -> Sql:
        """The key of the target row in ``intact``."""
        return cell("n", self.key_number)

    def ours(self, alias: str) -> Sql:
        """Whether a target row carries the mark: true or false, never NULL."""
        return sql.SQL("({} IS TRUE)").format(is_ours(self.binding, alias))

    def held(self) -> Sql:
        """A hashed look-up, whatever the planner believes of a quarantine that was never analyzed: for a batch it would
        go through all of it once per row.
        """
        return sql.SQL(
            "CROSS JOIN LATERAL (SELECT CASE WHEN s.{key} IN (SELECT source_key::{type} FROM spine_migrate.quarantine"
            " WHERE migration_id = $1) THEN s.{key} END AS key) AS q"
        ).format(type=self.source_key_type, key=sql.Identifier(self.binding.mapping.key))

    def _unexplained(self, check: Check) -> Sql:
        """A difference, but for a link that is open and on record."""
        if not check.link:
            return sql.SQL("coalesce({}, false)").format(check.differs)
        return sql.SQL(
            "(coalesce({differs}, false) AND NOT ({new} IS NULL AND EXISTS (SELECT FROM spine_migrate.link AS l"
            " WHERE l.migration_id = $1 AND l.field = {name} AND l.target_key = {key}::text"
            " AND l.wanted = {old}::text)))"
        ).format(
            differs=check.differs,
            new=check.new,
            old=check.old,
            name=sql.Literal(check.name),
            key=cell("n", self.key_number),
        )


def moved(binding: Binding, target_columns: dict[str, Column]) -> Moved:
    """``target_columns``: the live target's columns by name."""
    made = parity(binding, target_columns)
    return Moved(made.binding, made.target_columns, made.produced, made.guards, checks=made.checks)
