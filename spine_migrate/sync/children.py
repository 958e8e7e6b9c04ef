"""Rows that come and go with the row they refer to: on the way back, events with their run.

A target row has a legacy form as long as the row that it ``requires`` has one. Where that row loses its form, or has
one again, nothing is written to the rows that refer to it, so no trigger logs them; here they are.

What is in quarantine stays behind with a legacy row, and cannot without one: a foreign key would keep that row, or take
them with it. So they leave the legacy table as well, and come again. They stay in quarantine, whole, and are set aside:
a rollback takes what has no legacy row out of quarantine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.carry.scope import Parameters
from spine_migrate.carry.statements import Statement
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.sql import key
from spine_migrate.mapping.model import Field
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.sync.reversal import Reversal


@dataclass(frozen=True)
class Children:
    """``reversal`` is that of the rows that refer to those of ``parent``, by the field ``reference``."""

    parent: Binding
    parent_migration: int
    reference: Field
    reversal: Reversal

    def leave(self, parents: Sequence[str]) -> Statement:
        """Log legacy rows of parents (their legacy keys) that have no legacy form, or are gone. What is in quarantine
        is not what the target says.
        """
        parameters = Parameters()
        binding = self.reversal.binding
        rows = sql.SQL(
            "SELECT l.{key}::text AS row_key FROM {legacy} AS l WHERE l.{column} = ANY({parents}::{type}[])"
            " AND NOT EXISTS (SELECT FROM spine_migrate.quarantine AS q"
            " WHERE q.migration_id = {migration} AND q.source_key = l.{key}::text)"
        ).format(
            key=sql.Identifier(binding.mapping.key),
            legacy=self.reversal.legacy.identifier,
            column=sql.Identifier(self.reference.source),
            parents=parameters.add(list(parents), "text[]"),
            type=sql.SQL(binding.live[self.reference.source].sql_type),
            migration=parameters.add(self.reversal.form.migration_id, "bigint"),
        )
        return self._logged(rows, parameters)

    def come(self, parents: Sequence[str]) -> Statement:
        """Log target rows of parents (their legacy keys) that the legacy table has just got."""
        parameters = Parameters()
        binding = self.reversal.binding
        form = self.reversal.form
        rows = sql.SQL(
            "SELECT ({legacy_key})::text AS row_key FROM {target} AS t WHERE t.{column} = ANY (ARRAY("
            "SELECT {parent} FROM unnest({parents}::{type}[]) AS s ({parent_key}))) AND {condition}"
        ).format(
            legacy_key=form.columns("t")[binding.mapping.key],
            target=binding.target.identifier,
            column=sql.Identifier(self.reference.target),
            parent=key(self.parent, "s"),
            parents=parameters.add(list(parents), "text[]"),
            type=sql.SQL(self.parent.live[self.parent.mapping.key].sql_type),
            parent_key=sql.Identifier(self.parent.mapping.key),
            condition=form.condition("t"),
        )
        return self._logged(rows, parameters)

    def leave_quarantined(self, parents: Sequence[str]) -> Statement:
        """Take what is in quarantine out of the legacy table, before the rows of these parents go. A parent whose key
        is another's on the target stays, and so does what refers to it.
        """
        parameters = Parameters()
        binding = self.reversal.binding
        query = sql.SQL(
            "WITH gone AS (DELETE FROM {legacy} AS l USING spine_migrate.quarantine AS q"
            " WHERE q.migration_id = {migration} AND q.source_key = l.{key}::text"
            " AND l.{column} = ANY({parents}::{type}[]) AND l.{column}::text NOT IN (SELECT p.source_key"
            " FROM spine_migrate.quarantine AS p WHERE p.migration_id = {parent_migration} AND p.reason = 'key_taken')"
            " RETURNING l.*)"
            " INSERT INTO spine_migrate.set_aside (migration_id, target_key, before)"
            " SELECT {migration}, ({target_key})::text, to_json(s.*) FROM gone AS s"
        ).format(
            legacy=self.reversal.legacy.identifier,
            migration=parameters.add(self.reversal.form.migration_id, "bigint"),
            parent_migration=parameters.add(self.parent_migration, "bigint"),
            key=sql.Identifier(binding.mapping.key),
            column=sql.Identifier(self.reference.source),
            parents=parameters.add(list(parents), "text[]"),
            type=sql.SQL(binding.live[self.reference.source].sql_type),
            target_key=key(binding, "s"),
        )
        return query, parameters.values

    def come_quarantined(self, parents: Sequence[str]) -> Statement:
        """Put it back as it was, once the rows of these parents are there again."""
        parameters = Parameters()
        binding = self.reversal.binding
        columns = [one.name for one in self.reversal.form.definition.columns if not one.generated]
        query = sql.SQL(
            "INSERT INTO {legacy} ({columns}) OVERRIDING SYSTEM VALUE SELECT {values}"
            # OFFSET, so that the JSON of those that are there is not taken apart.
            " FROM (SELECT q.source_row FROM spine_migrate.quarantine AS q WHERE q.migration_id = {migration}"
            " AND NOT EXISTS (SELECT FROM {legacy} AS l WHERE l.{key} = q.source_key::{key_type}) OFFSET 0) AS q"
            " CROSS JOIN LATERAL json_populate_record(NULL::{legacy}, q.source_row) AS r"
            " WHERE r.{column} = ANY({parents}::{type}[])"
        ).format(
            legacy=self.reversal.legacy.identifier,
            columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
            values=sql.SQL(", ").join(sql.Identifier("r", name) for name in columns),
            migration=parameters.add(self.reversal.form.migration_id, "bigint"),
            column=sql.Identifier(self.reference.source),
            parents=parameters.add(list(parents), "text[]"),
            type=sql.SQL(binding.live[self.reference.source].sql_type),
            key=sql.Identifier(binding.mapping.key),
            key_type=sql.SQL(binding.live[binding.mapping.key].sql_type),
        )
        return query, parameters.values

    def _logged(self, rows: Sql, parameters: Parameters) -> Statement:
        """By the number of the migration: ``sync start`` may have made its capture anew."""
        query = sql.SQL(
            "INSERT INTO spine_migrate.change_log (capture_id, row_key) SELECT c.capture_id, x.row_key"
            " FROM spine_migrate.capture AS c, ({rows}) AS x"
            " WHERE c.migration_id = {migration} AND c.direction = 'reverse'"
        ).format(rows=rows, migration=parameters.add(self.reversal.form.migration_id, "bigint"))
        return query, parameters.values
