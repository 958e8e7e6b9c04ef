"""The SQL of the way back: what some target rows are as legacy rows, and the statements that write them.

Rows are named by their legacy keys, which the capture logs: the target key of one can always be computed, and not the
other way round.

A legacy row is written only where it differs from what the target row says, column by column: a value that is the same
stays as it was spelled, and so does what the rules have lost on the way (``lossy``, or a dropped column).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.carry.scope import Parameters
from spine_migrate.carry.statements import Statement
from spine_migrate.db.catalog import Name, UniqueIndex
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.legacy_form import LegacyForm
from spine_migrate.mapping.emit.sql import forward_value, key
from spine_migrate.mapping.transforms.base import Sql

# The key of such a row belongs to a target row of another origin.
_TAKEN = sql.SQL("'key_taken'")


@dataclass(frozen=True)
class Reversal:
    """Statements over legacy keys as text. ``legacy`` is what the legacy table is called by now."""

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
        """Keys of target rows with a legacy form, and whether the legacy table has their rows. One whose key is only
        equal, as by a collation that does not tell A from a, is that of the key which was left, and goes with it.
        """
        parameters = Parameters()
        query = sql.SQL(
            "SELECT x.{key}::text, l.{key} IS NOT NULL FROM ({rows}) AS x LEFT JOIN {legacy} AS l"
            ' ON l.{key} = x.{key} AND l.{key}::text COLLATE "C" = x.{key}::text COLLATE "C"'
            " WHERE x.{key}::text NOT IN ({taken})"
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

    def park(self, keys: Sequence[str], indexes: Sequence[UniqueIndex]) -> Statement | None:
        """Empty what legacy rows have in some unique indexes, so that they can exchange it; None where that cannot be.
        What no rule would bring back stays.
        """
        free = {one.name for one in self.form.definition.columns if not one.not_null} & set(self.columns)
        columns = {name for index in indexes for name in index.reads if name in free and not self._loses(name)}
        if not columns:
            return None
        parameters = Parameters()
        query = sql.SQL("UPDATE {legacy} AS l SET {sets} WHERE l.{key} = ANY ({keys}::{type}[])").format(
            legacy=self.legacy.identifier,
            sets=sql.SQL(", ").join(sql.SQL("{} = NULL").format(sql.Identifier(name)) for name in sorted(columns)),
            key=self._key,
            keys=parameters.add(list(keys), "text[]"),
            type=self._key_type,
        )
        return query, parameters.values

    def delete(self, keys: Sequence[str]) -> Statement:
        """Legacy rows whose target rows are gone, or have no legacy form any more."""
        parameters = Parameters()
        query = sql.SQL(
            "DELETE FROM {legacy} AS l WHERE l.{key} = ANY ({keys}::{type}[]) AND l.{key}::text NOT IN ({taken})"
        ).format(
            legacy=self.legacy.identifier,
            keys=parameters.add(list(keys), "text[]"),
            type=self._key_type,
            key=self._key,
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
            " USING unnest({keys}::{type}[]) AS s ({key})"
            " WHERE q.migration_id = {migration} AND q.source_key = s.{key}::text AND q.reason <> {taken}"
            " RETURNING q.migration_id, ({target_key})::text AS target_key, q.source_row::json AS before),"
            " kept AS (INSERT INTO spine_migrate.set_aside (migration_id, target_key, before) TABLE released)"
            " SELECT count(*) FROM released"
        ).format(
            keys=parameters.add(list(keys), "text[]"),
            type=self._key_type,
            key=self._key,
            migration=parameters.add(self.form.migration_id, "bigint"),
            target_key=key(self.binding, "s"),
            taken=_TAKEN,
        )
        return query, parameters.values

    def without_target(self, capture_id: int, limit: int, after: str | None) -> Statement:
        """Legacy keys (text) whose target rows a TRUNCATE took, in their order, those after a key, without those that
        are put off. What was never on the target is in quarantine.
        """
        parameters = Parameters()
        query = sql.SQL(
            "SELECT l.{key}::text FROM {legacy} AS l WHERE NOT EXISTS ("
            "SELECT FROM {target} AS t WHERE t.{target_key} = {forward}) AND NOT EXISTS (SELECT FROM"
            " spine_migrate.quarantine AS q WHERE q.migration_id = {migration} AND q.source_key = l.{key}::text)"
            " AND NOT EXISTS (SELECT FROM spine_migrate.pending AS p WHERE p.capture_id = {capture}"
            " AND p.why = 'deferred' AND p.row_key = l.{key}::text){after}"
            " ORDER BY l.{key} LIMIT {limit}"
        ).format(
            legacy=self.legacy.identifier,
            key=self._key,
            target=self.binding.target.identifier,
            target_key=sql.Identifier(self.binding.mapping.target.key),
            forward=key(self.binding, "l"),
            migration=parameters.add(self.form.migration_id, "bigint"),
            capture=parameters.add(capture_id, "bigint"),
            after=sql.SQL("")
            if after is None
            else sql.SQL(" AND l.{} > {}::{}").format(self._key, parameters.add(after, "text"), self._key_type),
            limit=parameters.add(limit, "bigint"),
        )
        return query, parameters.values

    def remove(self, legacy_keys: Sequence[str]) -> Statement:
        parameters = Parameters()
        query = sql.SQL("DELETE FROM {legacy} AS l WHERE l.{key} = ANY({keys}::{type}[])").format(
            legacy=self.legacy.identifier,
            key=self._key,
            keys=parameters.add(list(legacy_keys), "text[]"),
            type=self._key_type,
        )
        return query, parameters.values

    def carry_again(self, capture_id: int) -> Statement:
        """Log the rows that the legacy table lacks, and of which no change is on its way: somebody has taken them out
        of it behind this tool. What is in quarantine was never there, or stays as it is.
        """
        parameters = Parameters()
        query = sql.SQL(
            "INSERT INTO spine_migrate.change_log (capture_id, row_key) SELECT {capture}, x.{key}::text"
            " FROM ({rows}) AS x WHERE NOT EXISTS (SELECT FROM {legacy} AS l WHERE l.{key} = x.{key})"
            " AND NOT EXISTS (SELECT FROM spine_migrate.quarantine AS q"
            " WHERE q.migration_id = {migration} AND q.source_key = x.{key}::text)"
            " AND NOT EXISTS (SELECT FROM spine_migrate.change_log AS c"
            " WHERE c.capture_id = {capture} AND c.row_key = x.{key}::text)"
            " AND NOT EXISTS (SELECT FROM spine_migrate.pending AS p"
            " WHERE p.capture_id = {capture} AND p.row_key = x.{key}::text)"
        ).format(
            capture=parameters.add(capture_id, "bigint"),
            key=self._key,
            rows=self._all_rows(sql.SQL("true")),
            legacy=self.legacy.identifier,
            migration=parameters.add(self.form.migration_id, "bigint"),
        )
        return query, parameters.values

    def count(self) -> Statement:
        """How many rows the legacy table has."""
        return sql.SQL("SELECT count(*) FROM {}").format(self.legacy.identifier), []

    def apart(self) -> Statement:
        """Where the legacy table is not what the target says: kind (missing, extra, differing) and key. Rows in
        quarantine are not asked.
        """
        parameters = Parameters()
        query = sql.SQL(
            "SELECT CASE WHEN l.{key} IS NULL THEN 'missing' WHEN x.{key} IS NULL THEN 'extra' ELSE 'differing' END,"
            " coalesce(l.{key}, x.{key})::text"
            " FROM ({rows}) AS x FULL JOIN {legacy} AS l ON l.{key} = x.{key}"
            " WHERE (l.{key} IS NULL OR x.{key} IS NULL OR {differs}) AND NOT EXISTS (SELECT FROM"
            " spine_migrate.quarantine AS q WHERE q.migration_id = {migration}"
            " AND q.source_key = coalesce(l.{key}, x.{key})::text)"
        ).format(
            key=self._key,
            rows=self._all_rows(sql.SQL("true")),
            legacy=self.legacy.identifier,
            differs=sql.SQL(" OR ").join(self._differs(name) for name in self.columns),
            migration=parameters.add(self.form.migration_id, "bigint"),
        )
        return query, parameters.values

    def _rows(self, keys: Sequence[str], parameters: Parameters) -> Sql:
        """Target rows with a legacy form as legacy rows."""
        return self._all_rows(
            sql.SQL("t.{} = ANY (ARRAY(SELECT {} FROM unnest({}::{}[]) AS s ({})))").format(
                sql.Identifier(self.binding.mapping.target.key),
                key(self.binding, "s"),
                parameters.add(list(keys), "text[]"),
                self._key_type,
                self._key,
            )
        )

    def _all_rows(self, which: Sql) -> sql.Composed:
        columns = self.form.columns("t")
        lossy = [name for name in self.columns if self._loses(name)]
        return sql.SQL("SELECT {columns} FROM {target} AS t WHERE {which} AND {condition}").format(
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
            which=which,
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

    def _taken(self, parameters: Parameters) -> Sql:
        return sql.SQL(
            "SELECT q.source_key FROM spine_migrate.quarantine AS q WHERE q.migration_id = {} AND q.reason = {}"
        ).format(parameters.add(self.form.migration_id, "bigint"), _TAKEN)

    @property
    def _key_type(self) -> sql.SQL:
        return sql.SQL(self.binding.live[self.binding.mapping.key].sql_type)
