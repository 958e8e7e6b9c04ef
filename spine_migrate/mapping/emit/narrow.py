"""The two sides of a mapping by a few of their columns: legacy rows that were carried, and the target's rows."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.catalog import Column
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.sql import forward, is_ours
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.mapping.types import read, typename


@dataclass(frozen=True)
class Narrow:
    """``target_columns``: the live target's columns by name. Columns come under the target's names, of their declared
    types on both sides; on the legacy side those are NULL that no rule writes.
    """

    binding: Binding
    target_columns: dict[str, Column]
    migration_id: int

    @property
    def target(self) -> Sql:
        return self.binding.target.identifier

    def old(self, *names: str) -> Sql:
        """Legacy rows that are not in quarantine, carried forward, and ``legacy_key`` as the legacy table has it."""
        mapping = self.binding.mapping
        values = forward(self.binding, "s")
        key = sql.Identifier(mapping.key)
        # In a CASE, since a rule may fail on a row in quarantine, which the planner may read before it joins.
        columns = [
            sql.SQL("CASE WHEN q.key IS NULL THEN {} END AS {}").format(
                values.get(name, sql.SQL("NULL::{}").format(typename(mapping.target.columns[name].type.name))),
                sql.Identifier(name),
            )
            for name in names
        ]
        return sql.SQL(
            "(SELECT s.{key}{collated} AS legacy_key, {columns} FROM {source} AS s LEFT JOIN (SELECT"
            " source_key::{type} AS key FROM spine_migrate.quarantine WHERE migration_id = {migration}) AS q"
            " ON q.key = s.{key} WHERE q.key IS NULL)"
        ).format(
            key=key,
            collated=sql.SQL(' COLLATE "C"' if mapping.columns[mapping.key].type.name == "text" else ""),
            columns=sql.SQL(", ").join(columns),
            source=self.binding.source.identifier,
            type=sql.SQL(self.binding.live[mapping.key].sql_type),
            migration=sql.Literal(self.migration_id),
        )

    def new(self, *names: str) -> Sql:
        """All rows of the target; ``ours`` (never NULL) says which carry the mark of this mapping."""
        declared = self.binding.mapping.target.columns
        columns = [
            sql.SQL("{} AS {}").format(
                read(sql.Identifier("t", name), self.target_columns[name].type, declared[name].type.name),
                sql.Identifier(name),
            )
            for name in names
        ]
        return sql.SQL("(SELECT {columns}, ({ours}) IS TRUE AS ours FROM {target} AS t)").format(
            columns=sql.SQL(", ").join(columns), ours=is_ours(self.binding, "t"), target=self.target
        )
