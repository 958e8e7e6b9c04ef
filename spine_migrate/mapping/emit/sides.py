"""The two sides of a comparison as relations with like columns: the legacy rows carried forward, and the target's rows.

Rows of the target count where they carry the mapping's mark of origin. Text is compared under the collation "C", byte
by byte, whatever the columns' own collations say.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.catalog import Column
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.checks import Guards, cell, distinct
from spine_migrate.mapping.emit.sql import forward, is_ours
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.mapping.transforms.uuid_from import UuidFrom
from spine_migrate.mapping.types import read, typename

EVERY = sql.SQL("true")
_LEDGER = sql.SQL("SELECT source_key FROM spine_migrate.quarantine WHERE migration_id = $1")
_GIVEN = sql.SQL("SELECT source_key FROM unnest($1::text[]) AS given (source_key)")


@dataclass(frozen=True)
class Sides:
    """A binding with what of it is compared.

    ``produced`` are the target columns that the mapping writes, in the target's order; ``target_columns`` is the live
    catalog's side. ``exact`` asks for binary images instead of values. In every statement ``$1`` is the migration; of
    the legacy side, where the ledger is on another server (``apart``), ``$1`` are the keys in quarantine instead.
    """

    binding: Binding
    target_columns: dict[str, Column]
    produced: list[str]
    guards: Guards
    exact: bool = False
    apart: bool = False

    @property
    def one_to_one(self) -> bool:
        """Whether two different legacy keys always give two different target keys."""
        return all(step.lossless or isinstance(step, UuidFrom) for step in self.binding.mapping.key_field.steps)

    @property
    def key_number(self) -> int:
        """The number of the column that is the target's key."""
        return self.produced.index(self.binding.mapping.target.key)

    @property
    def source_key_type(self) -> sql.SQL:
        """As format_type prints it, so it is safe to write out."""
        return sql.SQL(self.binding.live[self.binding.mapping.key].sql_type)

    @property
    def target_key_type(self) -> sql.SQL:
        return sql.SQL(self.target_columns[self.binding.mapping.target.key].sql_type)

    @property
    def hidden(self) -> range:
        """The numbers of the flags ``r…`` of a legacy row: a rule cannot carry it any more."""
        return range(len(self.guards.hidden))

    def type_of(self, number: int) -> sql.SQL:
        """The declared type of a column, in which both sides have it."""
        return typename(self.binding.mapping.target.columns[self.produced[number]].type.name)

    def old(self, rows: Sql = EVERY, *, table: Sql | None = None) -> Sql:
        """Each legacy row carried forward: ``key``, ``held`` (NULL unless in quarantine), ``c…`` and ``r…``.

        ``rows`` is a condition on ``s``, ``table`` a part of the source that is read instead of all of it.
        """
        values = forward(self.binding, "s")
        columns = [
            sql.SQL("{} AS {}").format(self._guarded(name, values[name]), sql.Identifier(f"c{number}"))
            for number, name in enumerate(self.produced)
        ]
        flags = [
            sql.SQL("{} AS {}").format(condition, sql.Identifier(f"r{number}"))
            for number, condition in enumerate(self.guards.hidden.values())
        ]
        return sql.SQL(
            "(SELECT s.{key} AS key, q.key AS held, {columns} FROM {source} AS s {held} WHERE {rows})"
        ).format(
            key=sql.Identifier(self.binding.mapping.key),
            columns=sql.SQL(", ").join([*columns, *flags]),
            source=table or self.binding.source.identifier,
            held=self.held(),
            rows=rows,
        )

    def held(self) -> Sql:
        """Joins ``q`` to a legacy row ``s``: its ``key`` is that of the row where it is in quarantine, else NULL."""
        return sql.SQL(
            "LEFT JOIN (SELECT source_key::{type} AS key FROM ({keys}) AS x) AS q ON q.key = s.{key}"
        ).format(
            type=self.source_key_type,
            keys=_GIVEN if self.apart else _LEDGER,
            key=sql.Identifier(self.binding.mapping.key),
        )

    def new(self, rows: Sql = EVERY, *, table: Sql | None = None) -> Sql:
        """Each target row that is ours: ``there`` (never NULL) and ``c…``. ``rows`` is a condition on ``t``."""
        columns: list[Sql] = []
        for number, name in enumerate(self.produced):
            declared = self.binding.mapping.target.columns[name].type.name
            value = read(sql.Identifier("t", name), self.target_columns[name].type, declared)
            columns.append(sql.SQL("{} AS {}").format(self._comparable(name, value), sql.Identifier(f"c{number}")))
        return sql.SQL("(SELECT t.tableoid AS there, {columns} FROM {target} AS t WHERE {ours} AND {rows})").format(
            columns=sql.SQL(", ").join(columns),
            target=table or self.binding.target.identifier,
            ours=is_ours(self.binding, "t"),
            rows=rows,
        )

    def differences(self) -> list[Sql]:
        """Conditions of which one holds where a pair differs at all; cheaper than the checks, which name the field."""
        flags: list[Sql] = [sql.Identifier("o", f"r{number}") for number in self.hidden]
        if self.exact:
            old, new = (
                sql.SQL(", ").join(
                    sql.SQL("{}::{}").format(cell(side, number), self.type_of(number))
                    for number in range(len(self.produced))
                )
                for side in ("o", "n")
            )
            return [*flags, sql.SQL("ROW({})::record *<> ROW({})::record").format(old, new)]
        return [*flags, *(distinct(cell("o", n), cell("n", n)) for n in range(len(self.produced)))]

    def _guarded(self, name: str, value: Sql) -> Sql:
        """A column's expression, not evaluated where one of its rules would fail."""
        fields = [f for f in self.binding.mapping.fields if name in (f.target, f.keep.column if f.keep else None)]
        conditions = [self.guards.raising[field.name] for field in fields if field.name in self.guards.raising]
        key = name == self.binding.mapping.target.key
        if (key and not self.one_to_one) or (not key and any(field.name in self.guards.fragile for field in fields)):
            conditions.insert(0, sql.SQL("q.key IS NOT NULL"))
        if conditions:
            whens = sql.SQL(" ").join(sql.SQL("WHEN {} THEN NULL").format(condition) for condition in conditions)
            value = sql.SQL("CASE {} ELSE {} END").format(whens, value)
        return self._comparable(name, value)

    def _comparable(self, name: str, value: Sql) -> Sql:
        if self.binding.mapping.target.columns[name].type.name != "text":
            return value
        return sql.SQL('({} COLLATE "C")').format(value)
