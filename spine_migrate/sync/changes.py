"""The SQL of applying changes: what has become of some keys, and the statements that bring the target up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from spine_migrate.carry.collisions import Guard
from spine_migrate.carry.scope import Keys, Parameters
from spine_migrate.carry.statements import Statement, Statements
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit import unique
from spine_migrate.mapping.emit.sides import common
from spine_migrate.mapping.emit.sql import is_ours, key
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.mapping.types import literal
from spine_migrate.sync.run_events import RunEvents

# Gives a query of one column, target_key: the rows of the target that go.
Going = Callable[[Parameters], Sql]


@dataclass(frozen=True)
class Changes:
    """Statements over legacy keys as text. ``statements`` are those of moving rows, which applying shares.
    ``legacy_key`` is that of a target row (text) by the row's alias, None where a row does not tell it.
    ``events``: what goes with a run.
    """

    statements: Statements
    guard: Guard
    legacy_key: Callable[[str], Sql] | None = None
    events: RunEvents | None = None

    @property
    def binding(self) -> Binding:
        return self.statements.binding

    @property
    def _target_key(self) -> sql.Identifier:
        return sql.Identifier(self.binding.mapping.target.key)

    def scope(self, keys: Sequence[str]) -> Keys:
        return Keys(self.binding, list(keys))

    def led_to(self, keys: Sequence[str]) -> Going:
        """What legacy keys lead to, also those of rows that are gone: ``s`` has the key alone."""

        def going(parameters: Parameters) -> Sql:
            return sql.SQL("SELECT {forward} AS target_key FROM unnest({keys}::{type}[]) AS s ({key})").format(
                forward=key(self.binding, "s"),
                keys=parameters.add(list(keys), "text[]"),
                type=sql.SQL(self.binding.live[self.binding.mapping.key].sql_type),
                key=sql.Identifier(self.binding.mapping.key),
            )

        return going

    def named(self, target_keys: Sequence[str]) -> Going:
        """Target keys as they are."""
        column = self.binding.mapping.target.columns[self.binding.mapping.target.key]

        def going(parameters: Parameters) -> Sql:
            return sql.SQL("SELECT target_key FROM unnest({}::{}[]) AS x (target_key)").format(
                parameters.add(list(target_keys), "text[]"), sql.SQL(column.type.name)
            )

        return going

    def unlink(self, going: Going, migration_id: int) -> Iterator[Statement]:
        """Links of other rows to rows that go: NULL, and remembered until the row they name is there again. A row that
        is not ours does not go.
        """
        for name in self.statements.links:
            parameters = Parameters()
            query = sql.SQL(
                "WITH led_to AS MATERIALIZED ({going}), going AS MATERIALIZED ("
                "SELECT o.{key} AS target_key FROM {target} AS o"
                " WHERE o.{key} = ANY(ARRAY(SELECT target_key FROM led_to)) AND {ours}),"
                " noted AS (INSERT INTO spine_migrate.link (migration_id, target_key, field, wanted)"
                " SELECT {migration}, t.{key}::text, {name}, t.{link}::text FROM {target} AS t"
                " WHERE t.{link} = ANY(ARRAY(SELECT target_key FROM going))"
                " ON CONFLICT (migration_id, target_key, field) DO UPDATE SET wanted = EXCLUDED.wanted)"
                " UPDATE {target} AS t SET {link} = NULL WHERE t.{link} = ANY(ARRAY(SELECT target_key FROM going))"
            ).format(
                going=going(parameters),
                migration=parameters.add(migration_id, "bigint"),
                key=self._target_key,
                name=sql.Literal(name),
                link=sql.Identifier(name),
                target=self.binding.target.identifier,
                ours=is_ours(self.binding, "o"),
            )
            yield query, parameters.values

    def delete(self, going: Going, migration_id: int) -> Statement:
        """Rows of ours whose legacy rows are gone, with the links that waited for them. One row: how many went, and how
        many were to go and did not.
        """
        parameters = Parameters()
        query = sql.SQL(
            "WITH going AS MATERIALIZED ({going}), unlinked AS ("
            "DELETE FROM spine_migrate.link AS l WHERE l.migration_id = {migration}"
            " AND l.target_key = ANY(ARRAY(SELECT target_key::text FROM going))),"
            " gone AS (DELETE FROM {target} AS t WHERE t.{key} = ANY(ARRAY(SELECT target_key FROM going)) AND {ours}"
            " RETURNING 1)"
            # The rows as they were before.
            " SELECT count(*), (SELECT count(*) FROM {target} AS t"
            " WHERE t.{key} = ANY(ARRAY(SELECT target_key FROM going)) AND {ours}) - count(*) FROM gone"
        ).format(
            going=going(parameters),
            migration=parameters.add(migration_id, "bigint"),
            target=self.binding.target.identifier,
            key=self._target_key,
            ours=is_ours(self.binding, "t"),
        )
        return query, parameters.values

    def forget_links(self, keys: Sequence[str], migration_id: int) -> Statement:
        """What is known of the links of rows that are written anew."""
        parameters = Parameters()
        query = sql.SQL(
            "DELETE FROM spine_migrate.link AS l WHERE l.migration_id = {migration}"
            " AND l.target_key = ANY(ARRAY(SELECT g.target_key::text FROM ({keys}) AS g))"
        ).format(keys=self.led_to(keys)(parameters), migration=parameters.add(migration_id, "bigint"))
        return query, parameters.values

    def update(self, keys: Sequence[str], waiting: Mapping[str, list[str]]) -> Statement:
        """Give rows of ours what their legacy rows have become; ``waiting`` as for an insert. Rows that are as they
        should be are not written.
        """
        parameters = Parameters()
        scope = self.scope(keys)
        columns = [name for name in self.statements.columns if name != self.binding.mapping.target.key]
        values = [
            sql.SQL("CASE WHEN NOT {} THEN {} END").format(
                scope.listed("s", waiting[name], parameters), self.statements.columns[name]
            )
            if name in waiting
            else self.statements.columns[name]
            for name in columns
        ]
        cells = [sql.Identifier("x", f"c{number}") for number in range(len(columns))]
        query = sql.SQL(
            # Materialized, so that each rule is evaluated once; and the mark is a common one to the planner, which
            # would otherwise rather read all of the target than look a few thousand rows up.
            "WITH x AS MATERIALIZED (SELECT {key} AS target_key, {values} FROM {table} WHERE {rows})"
            " UPDATE {target} AS t SET {sets} FROM x"
            " WHERE t.{target_key} = x.target_key AND {ours} AND ({differs})"
        ).format(
            target=self.binding.target.identifier,
            sets=sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(name), cell) for name, cell in zip(columns, cells, strict=True)
            ),
            key=key(self.binding, "s"),
            values=sql.SQL(", ").join(
                sql.SQL("{} AS {}").format(value, sql.Identifier(f"c{number}")) for number, value in enumerate(values)
            ),
            table=scope.table("s"),
            rows=scope.condition("s", parameters),
            target_key=self._target_key,
            ours=common(is_ours(self.binding, "t")),
            differs=sql.SQL(" OR ").join(
                sql.SQL("t.{} IS DISTINCT FROM {}").format(sql.Identifier(name), cell)
                for name, cell in zip(columns, cells, strict=True)
            ),
        )
        return query, parameters.values

    def leaving(self, keys: Sequence[str]) -> Statement | None:
        """Keys of rows that stand in no partial unique index as they are now, and so make room for others; None where
        there is no such index.
        """
        predicates = [
            sql.SQL("coalesce({}, false)").format(unique.predicate(index))
            for index in self.guard.indexes
            if index.predicate is not None
        ]
        if not predicates:
            return None
        parameters = Parameters()
        scope = self.scope(keys)
        rows = unique.candidates(self.binding, scope.table("s"), scope.condition("s", parameters), self.guard.shape)
        query = sql.SQL("SELECT {table}.source_key FROM ({rows}) AS {table} WHERE NOT ({within})").format(
            table=sql.Identifier(self.binding.target.table), rows=rows, within=sql.SQL(" OR ").join(predicates)
        )
        return query, parameters.values

    def is_primary(self, index_name: str | None) -> bool:
        """Whether an index is that of the key. Any other is one that rows can collide in, also one that is not valid or
        was made since.
        """
        return index_name in self.guard.primary

    def park(self, keys: Sequence[str], index_names: set[str]) -> Statement | None:
        """Empty what rows have in some unique indexes, so that they can exchange it; None where that cannot be. They
        stay ours.
        """
        columns = {
            name
            for index in self.guard.indexes
            if index.name in index_names
            for name in index.reads
            if name in self.statements.columns and not self.binding.mapping.target.columns[name].not_null
        }
        if not columns:
            return None
        parameters = Parameters()
        query = sql.SQL("UPDATE {target} AS t SET {sets} WHERE t.{key} = ANY(ARRAY({keys})) AND {ours}").format(
            target=self.binding.target.identifier,
            sets=sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(name), self._nothing_in(name)) for name in sorted(columns)
            ),
            key=self._target_key,
            keys=self.led_to(keys)(parameters),
            ours=is_ours(self.binding, "t"),
        )
        return query, parameters.values

    def _nothing_in(self, column: str) -> Sql:
        origin = self.binding.mapping.origin
        if column != origin.target:
            return sql.NULL
        mark: Any = self.binding.mapping.name
        for name in reversed(origin.path):
            mark = {name: mark}
        return literal(mark, self.binding.mapping.target.columns[column].type.name)

    def taken_by(self, keys: Sequence[str], index_name: str) -> Statement | None:
        """The target rows that stand where rows want to stand in an index; None where it is none of the target's."""
        index = next((one for one in self.guard.indexes if one.name == index_name), None)
        if index is None:
            return None
        parameters = Parameters()
        scope = self.scope(keys)
        rows = unique.candidates(self.binding, scope.table("s"), scope.condition("s", parameters), self.guard.shape)
        return unique.with_target(self.binding, index, rows), parameters.values

    def without_legacy(self, capture_id: int, limit: int, after: str | None) -> Statement:
        """Target keys (text) of rows of ours without a legacy row, in their order, those after a key, with the legacy
        keys that led to them, or NULL; without those that are put off.
        """
        parameters = Parameters()
        legacy_key = sql.SQL("NULL::text") if self.legacy_key is None else self.legacy_key("t")
        query = sql.SQL(
            "SELECT t.{target_key}::text, {legacy_key} FROM {target} AS t WHERE {ours}"
            " AND NOT EXISTS (SELECT FROM {source} AS s WHERE {forward_key} = t.{target_key})"
            " AND NOT EXISTS (SELECT FROM spine_migrate.pending AS p WHERE p.capture_id = {capture}"
            " AND p.why = 'deferred' AND p.row_key = {legacy_key}){after}"
            " ORDER BY t.{target_key} LIMIT {limit}"
        ).format(
            target_key=self._target_key,
            legacy_key=legacy_key,
            target=self.binding.target.identifier,
            ours=is_ours(self.binding, "t"),
            source=self.binding.source.identifier,
            forward_key=key(self.binding, "s"),
            capture=parameters.add(capture_id, "bigint"),
            after=self._after(after, parameters),
            limit=parameters.add(limit, "bigint"),
        )
        return query, parameters.values

    def _after(self, key: str | None, parameters: Parameters) -> Sql:
        if key is None:
            return sql.SQL("")
        return sql.SQL(" AND t.{} > {}::{}").format(
            self._target_key,
            parameters.add(key, "text"),
            sql.SQL(self.binding.mapping.target.columns[self.binding.mapping.target.key].type.name),
        )

    def forget_quarantine(self, migration_id: int) -> Statement:
        """Take out of quarantine what has no legacy row any more."""
        parameters = Parameters()
        query = sql.SQL(
            "DELETE FROM spine_migrate.quarantine AS q WHERE q.migration_id = {migration}"
            # The other way round each look would be a scan.
            " AND NOT EXISTS (SELECT FROM {source} AS s WHERE s.{key} = q.source_key::{type})"
        ).format(
            migration=parameters.add(migration_id, "bigint"),
            source=self.binding.source.identifier,
            key=sql.Identifier(self.binding.mapping.key),
            type=sql.SQL(self.binding.live[self.binding.mapping.key].sql_type),
        )
        return query, parameters.values
