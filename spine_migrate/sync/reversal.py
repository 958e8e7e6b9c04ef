"""The SQL of the way back: what some target rows are as legacy rows, and the statements that write them.

A legacy row is written only where it differs from what the target row says, column by column: a value that is the same
stays as it was spelled, and so does what the rules have lost on the way (``lossy``, or a dropped column).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.carry.scope import Parameters
from spine_migrate.carry.statements import Statement
from spine_migrate.db.catalog import Name
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.legacy_form import LegacyForm
from spine_migrate.mapping.emit.sql import forward_value
from spine_migrate.mapping.transforms.base import Sql

# The key of such a row belongs to a target row of another origin.
_TAKEN = sql.SQL("'key_taken'")


@dataclass(frozen=True)
class Reversal:
    """Statements over target keys as text. ``legacy`` is what the legacy table is called by now."""

    form: LegacyForm
    legacy: Name

    @property
    def binding(self) -> Binding:
        return self.form.binding

    @property
    def _key(self) -> sql.Identifier:
        return sql.Identifier(self.binding.mapping.key)

    @property
    def columns(self) -> list[str]:
        """The legacy columns that are written: those that a rule brings back."""
        return [
            column.name
            for column in self.form.definition.columns
            if not column.generated and self.binding.mapping.carrier(column.name) is not None
        ]

    def present(self, keys: Sequence[str]) -> Statement:
        """Target keys of rows with a legacy form, and whether the legacy table has their rows."""
        parameters = Parameters()
        query = sql.SQL(
            "SELECT x.target_key::text, l.{key} IS NOT NULL FROM ({rows}) AS x LEFT JOIN {legacy} AS l"
            " ON l.{key} = x.{key} WHERE x.{key}::text NOT IN ({taken})"
        ).format(
            key=self._key,
            rows=self._rows(keys, parameters),
            legacy=self.legacy.identifier,
            taken=self._taken(parameters),
        )
        return query, parameters.values

    def insert(self, keys: Sequence[str]) -> Statement:
        parameters = Parameters()
        columns = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        query = sql.SQL("INSERT INTO {legacy} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM ({rows}) AS x")
        return (
            query.format(legacy=self.legacy.identifier, columns=columns, rows=self._rows(keys, parameters)),
            parameters.values,
        )

    def update(self, keys: Sequence[str]) -> Statement:
        parameters = Parameters()
        written = [name for name in self.columns if name != self.binding.mapping.key]
        query = sql.SQL(
            "UPDATE {legacy} AS l SET {sets} FROM ({rows}) AS x WHERE l.{key} = x.{key} AND ({differs})"
        ).format(
            legacy=self.legacy.identifier,
            key=self._key,
            rows=self._rows(keys, parameters),
            sets=sql.SQL(", ").join(
                sql.SQL("{} = CASE WHEN {} THEN {} ELSE {} END").format(
                    sql.Identifier(name), self._differs(name), sql.Identifier("x", name), sql.Identifier("l", name)
                )
                for name in written
            ),
            differs=sql.SQL(" OR ").join(map(self._differs, written)),
        )
        return query, parameters.values

    def delete(self, keys: Sequence[str]) -> Statement:
        """Legacy rows whose target rows are gone, or have no legacy form any more."""
        parameters = Parameters()
        query = sql.SQL(
            "DELETE FROM {legacy} AS l USING unnest({keys}::{type}[]) AS g (target_key)"
            " WHERE l.{key} = {back} AND l.{key}::text NOT IN ({taken})"
        ).format(
            legacy=self.legacy.identifier,
            keys=parameters.add(list(keys), "text[]"),
            type=self._target_type,
            key=self._key,
            back=self._legacy_key(sql.Identifier("g", "target_key")),
            taken=self._taken(parameters),
        )
        return query, parameters.values

    def release(self, keys: Sequence[str]) -> Statement:
        """Take legacy rows out of quarantine that are now what a target row says, or are gone; their number. What they
        were before is nowhere else, so it is set aside.
        """
        parameters = Parameters()
        query = sql.SQL(
            "WITH released AS (DELETE FROM spine_migrate.quarantine AS q"
            " USING unnest({keys}::{type}[]) AS g (target_key)"
            " WHERE q.migration_id = {migration} AND q.source_key = ({back})::text AND q.reason <> {taken}"
            " RETURNING q.migration_id, g.target_key::text AS target_key, q.source_row::json AS before),"
            " kept AS (INSERT INTO spine_migrate.set_aside (migration_id, target_key, before) TABLE released)"
            " SELECT count(*) FROM released"
        ).format(
            keys=parameters.add(list(keys), "text[]"),
            type=self._target_type,
            migration=parameters.add(self.form.migration_id, "bigint"),
            back=self._legacy_key(sql.Identifier("g", "target_key")),
            taken=_TAKEN,
        )
        return query, parameters.values

    def without_target(self, limit: int) -> Statement:
        """Remove legacy rows whose target rows a TRUNCATE took. What was never on the target is in quarantine."""
        parameters = Parameters()
        query = sql.SQL(
            "DELETE FROM {legacy} AS d WHERE d.{key} IN (SELECT l.{key} FROM {legacy} AS l WHERE NOT EXISTS ("
            "SELECT FROM {target} AS t WHERE t.{target_key} = {forward}) AND NOT EXISTS (SELECT FROM"
            " spine_migrate.quarantine AS q WHERE q.migration_id = {migration} AND q.source_key = l.{key}::text)"
            " LIMIT {limit})"
        ).format(
            legacy=self.legacy.identifier,
            key=self._key,
            target=self.binding.target.identifier,
            target_key=sql.Identifier(self.binding.mapping.target.key),
            forward=forward_value(self.binding, self.binding.mapping.key_field, "l"),
            migration=parameters.add(self.form.migration_id, "bigint"),
            limit=parameters.add(limit, "bigint"),
        )
        return query, parameters.values

    def _rows(self, keys: Sequence[str], parameters: Parameters) -> Sql:
        """Target rows with a legacy form as legacy rows, with their ``target_key``."""
        columns = self.form.columns("t")
        lossy = [name for name in self.columns if self._loses(name)]
        return sql.SQL(
            "SELECT t.{target_key} AS target_key, {columns} FROM {target} AS t"
            " WHERE t.{target_key} = ANY({keys}::{type}[]) AND {condition}"
        ).format(
            target_key=sql.Identifier(self.binding.mapping.target.key),
            columns=sql.SQL(", ").join(
                [
                    *(sql.SQL("{} AS {}").format(columns[name], sql.Identifier(name)) for name in self.columns),
                    *(
                        sql.SQL("t.{} AS {}").format(self._carrier(name), sql.Identifier(f"spine_{name}"))
                        for name in lossy
                    ),
                ]
            ),
            target=self.binding.target.identifier,
            keys=parameters.add(list(keys), "text[]"),
            type=self._target_type,
            condition=self.form.condition("t"),
        )

    def _differs(self, name: str) -> Sql:
        if self._loses(name):
            field = self.binding.mapping.carrier(name)
            if field is not None:
                return sql.SQL("{} IS DISTINCT FROM {}").format(
                    forward_value(self.binding, field, "l"), sql.Identifier("x", f"spine_{name}")
                )
        return sql.SQL("{} IS DISTINCT FROM {}").format(self.binding.column(name, "l"), self.binding.column(name, "x"))

    def _loses(self, name: str) -> bool:
        """Whether the target column alone does not bring the value back."""
        field = self.binding.mapping.carrier(name)
        return field is not None and not field.path and field.keep is None and not (field.lossless or field.link)

    def _carrier(self, name: str) -> sql.Identifier:
        field = self.binding.mapping.carrier(name)
        return sql.Identifier(name if field is None else field.target)

    def _legacy_key(self, target_key: Sql) -> Sql:
        """The legacy key that a target key stands for."""
        for step in reversed(self.binding.mapping.key_field.steps):
            target_key = step.inverse_sql(target_key)
        return sql.SQL("({})::{}").format(target_key, sql.SQL(self.binding.live[self.binding.mapping.key].sql_type))

    def _taken(self, parameters: Parameters) -> Sql:
        return sql.SQL(
            "SELECT q.source_key FROM spine_migrate.quarantine AS q WHERE q.migration_id = {} AND q.reason = {}"
        ).format(parameters.add(self.form.migration_id, "bigint"), _TAKEN)

    @property
    def _target_type(self) -> sql.SQL:
        mapping = self.binding.mapping
        return sql.SQL(mapping.target.columns[mapping.target.key].type.name)
