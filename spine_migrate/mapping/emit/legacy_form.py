"""A target row as the legacy row it stands for: what the compatibility view shows, and for which rows.

A row has a legacy form where every constant that the mapping writes into a NOT NULL column is what stands there, where
``inverse`` gives a value for each column of the legacy table that is never NULL (its key among them), where that legacy
key leads to the target key, and where the row that it ``requires`` has a legacy form itself. Every expression is total:
it gives NULL where the row holds what the legacy column cannot, since a server may evaluate it before it has looked
whether the row has a legacy form at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.definition import ColumnDefinition, Definition
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.sql import inverse, key_from
from spine_migrate.mapping.model import MISSING, Field
from spine_migrate.mapping.safe_cast import within
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.mapping.types import literal

# pg_input_is_valid is there.
_CHECKS_INPUT = 160_000
# What a link stands for whose column is NULL; None where that is what it is.
Absent = Callable[[Field], Sql | None]
# NAMEDATALEN less the closing NUL.
_LONGEST_NAME = 63
# Live types of which two values are equal only where they are the same bytes; texts in their type's own collation,
# since that of a database tells any two strings apart (PostgreSQL manual, 24.2.2.4).
_PLAIN = {"uuid", "smallint", "integer", "bigint", "boolean", "date", "bytea", "enum"}
_PLAIN |= {"timestamp with time zone", "timestamp without time zone", "text", "character varying"}


@dataclass(frozen=True)
class LegacyForm:
    """``parent``: the form of the rows that this mapping's rows belong to, where it ``requires`` such."""

    binding: Binding
    definition: Definition
    migration_id: int
    parent: LegacyForm | None = None

    def columns(self, alias: str, absent: Absent | None = None) -> dict[str, Sql]:
        """The legacy table's columns in its order, each of exactly its type and collation, over a target row.
        ``absent``: where the ledger does not know yet what links want.
        """
        found = inverse(
            self.binding,
            alias,
            absent=absent or _Wanted(self.binding, self.migration_id, alias),
            checked=self.definition.server_version >= _CHECKS_INPUT,
        )
        return {column.name: self._stored(column, found[column.name]) for column in self.definition.columns}

    @property
    def plain(self) -> frozenset[str]:
        """Columns whose values are the same where they are equal."""
        return frozenset(
            column.name
            for column in self.definition.columns
            if self.binding.live[column.name].type in _PLAIN and column.collation is None
        )

    def constants(self, alias: str) -> Sql:
        """Whether a target row has the constants: the part of ``condition`` that an index can have."""
        columns = self.binding.mapping.target.columns
        required = [
            sql.SQL("{} = {}").format(
                sql.Identifier(alias, field.target), literal(field.constant, columns[field.target].type.name)
            )
            for field in self.binding.mapping.fields
            if field.constant is not MISSING and not field.path and columns[field.target].not_null
        ]
        return sql.SQL(" AND ").join(required) if required else sql.SQL("true")

    def condition(self, alias: str, absent: Absent | None = None) -> Sql:
        """Whether a target row has a legacy form."""
        columns = self.columns(alias, absent)
        own = self.binding.mapping.key
        # A key that leads to the row is none of NULL, unless a rule makes something of that.
        found = {own} if all(step.strict for step in self.binding.mapping.key_field.steps) else set[str]()
        required = [self.constants(alias)]
        required += [
            sql.SQL("({}) IS NOT NULL").format(columns[column.name])
            for column in self.definition.columns
            if column.never_null and not self._always_there(column.name) and column.name not in found
        ]
        if not self._always_there(own):
            required.append(self.led_to(alias, columns[own]))
        if self.parent is not None and (reference := self.binding.mapping.required) is not None:
            required.append(self._parent_condition(self.parent, sql.Identifier(alias, reference.target)))
        return sql.SQL(" AND ").join(required)

    def led_to(self, alias: str, legacy_key: Sql) -> Sql:
        """Whether a legacy key leads to a target row. Another row may hold the same key in a JSON column, a copy of its
        metadata, say; were it shown, one legacy key would be there twice.
        """
        target_key = sql.Identifier(alias, self.binding.mapping.target.key)
        return sql.SQL("{} = {}").format(target_key, key_from(self.binding, legacy_key))

    def _parent_condition(self, parent: LegacyForm, reference: Sql) -> Sql:
        return sql.SQL("EXISTS (SELECT FROM {} AS parent WHERE parent.{} = {} AND {})").format(
            parent.binding.target.identifier,
            sql.Identifier(parent.binding.mapping.target.key),
            reference,
            parent.condition("parent"),
        )

    def _always_there(self, name: str) -> bool:
        """Whether the column is one of the target as it stands, which cannot be NULL."""
        field = self.binding.mapping.carrier(name)
        bare = field is not None and not field.path and not field.steps and field.keep is None
        return bare and field is not None and self.binding.mapping.target.columns[field.target].not_null

    def _stored(self, column: ColumnDefinition, value: Sql) -> Sql:
        """``value`` as the legacy column has it, NULL where it does not fit."""
        live = self.binding.live[column.name]
        fits = self._fits(column, value)
        if fits is not None:
            value = sql.SQL("CASE WHEN {} THEN {} END").format(fits, value)
        # The cast is outermost: a CASE would have the type without its length, and the view's column too.
        stored = sql.SQL("({})::{}").format(value, sql.SQL(column.sql_type))
        if column.collation is not None and live.type != "enum":
            stored = sql.SQL("({}) COLLATE {}").format(stored, sql.SQL(column.collation))
        return stored

    def _fits(self, column: ColumnDefinition, value: Sql) -> Sql | None:
        """When a value can be cast to the live type without failing and without being cut; None if always."""
        live = self.binding.live[column.name]
        declared = self.binding.mapping.columns[column.name].type.name
        match live.type:
            case "enum":
                labels = sql.SQL(", ").join(map(sql.Literal, column.labels))
                return sql.SQL("({})::text IN ({})").format(value, labels) if column.labels else sql.SQL("false")
            case "character varying" | "character":
                if live.length is not None and not self._short_enough(column.name, live.length):
                    return sql.SQL("length(({})::text) <= {}").format(value, sql.Literal(live.length))
            case "name":
                return sql.SQL("octet_length(({})::text) <= {}").format(value, sql.Literal(_LONGEST_NAME))
            case "smallint" | "integer" | "bigint" if declared not in (live.type, "any"):
                return _integer_fits(value, live.type, whole=declared != "numeric")
            case "numeric" if "(" in column.sql_type:
                return _numeric_fits(value, column.sql_type)
        return None

    def _short_enough(self, name: str, length: int) -> bool:
        """Whether the target column that the value stands in takes no longer ones."""
        field = self.binding.mapping.carrier(name)
        if field is None or field.path or field.steps or field.keep is not None:
            return False
        limit = self.binding.mapping.target.columns[field.target].type.length
        return limit is not None and limit <= length


def waits(field: Field) -> bool:
    """Whether a field is a link whose column is NULL until the row is there that it names."""
    return field.link and field.keep is None


@dataclass(frozen=True)
class _Wanted:
    """What a link wants whose row is not there: the ledger knows it, and the view shows it."""

    binding: Binding
    migration_id: int
    alias: str

    def __call__(self, field: Field) -> Sql | None:
        if not waits(field):
            return None
        mapping = self.binding.mapping
        # Without any open link, by far the most of the time, the first part is asked once per statement, and no more.
        return sql.SQL(
            "CASE WHEN (SELECT EXISTS (SELECT FROM spine_migrate.link WHERE migration_id = {migration}))"
            " THEN (SELECT l.wanted::{type} FROM spine_migrate.link AS l WHERE l.migration_id = {migration}"
            " AND l.target_key = {key}::text AND l.field = {field}) END"
        ).format(
            migration=sql.Literal(self.migration_id),
            type=sql.SQL(mapping.target.columns[field.target].type.name),
            key=sql.Identifier(self.alias, mapping.target.key),
            field=sql.Literal(field.target),
        )


def _integer_fits(value: Sql, kind: str, *, whole: bool) -> Sql:
    inside = within(sql.SQL("({})").format(value), kind)
    return inside if whole else sql.SQL("({0}) = trunc(({0})::numeric) AND {1}").format(value, inside)


def _numeric_fits(value: Sql, sql_type: str) -> Sql:
    """``sql_type`` as format_type prints it: numeric(precision,scale)."""
    precision, scale = map(int, sql_type.partition("(")[2].rstrip(")").split(","))
    return sql.SQL(
        "(({0})::numeric = round(({0})::numeric, {1})"
        " AND (abs(({0})::numeric) < 10::numeric ^ {2} OR ({0})::numeric = 'NaN'))"
    ).format(value, sql.Literal(scale), sql.Literal(precision - scale))
