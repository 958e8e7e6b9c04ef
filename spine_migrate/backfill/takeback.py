"""Taking the rows of one migration off the target again: which must stay, and a batch that removes others.

A row goes if it carries our mark and is as we made it. It stays if something has touched it, or if a row that stays
points to it, through as many links as it takes. What stays is worked out in one snapshot, into a temporary table; a
batch looks at its rows once more before it removes them, and for rows that ON DELETE CASCADE would take along. Rows
that go in different batches may point to each other: such a link is cut and recorded in the ledger, so that a kill in
between leaves nothing that looks touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from spine_migrate.backfill.unwritten import changed, unwritten
from spine_migrate.carry.known import Known
from spine_migrate.carry.references import Reference
from spine_migrate.carry.rows import REPAIRS
from spine_migrate.carry.scope import Parameters
from spine_migrate.carry.steady import brief, level, target_lock
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.moved import Moved, moved
from spine_migrate.mapping.transforms.base import Sql


@dataclass(frozen=True)
class Left:
    """A row that stays. ``reason``: changed, source_gone, in_quarantine, has_foreign_events, referenced."""

    target_key: str
    reason: str
    detail: str | None


@dataclass(frozen=True)
class Edge:
    """Rows of ``table`` that point to rows of the target: ``columns`` hold what is in ``referenced`` there.

    ``acts``: they would be deleted or changed along with what they point to.
    """

    table: Name
    columns: tuple[str, ...]
    referenced: tuple[str, ...]
    own: bool
    acts: bool = False

    def joins(self, pointing: str, pointed: str) -> Sql:
        return sql.SQL(" AND ").join(
            sql.SQL("{} = {}").format(sql.Identifier(pointed, there), sql.Identifier(pointing, here))
            for here, there in zip(self.columns, self.referenced, strict=True)
        )

    @property
    def label(self) -> str:
        return f"{self.table}.{', '.join(self.columns)}"


class Takeback:
    """``followers`` are the migrations whose rows point to these and are taken back in the same go; ``foreseen`` says
    that this has not happened yet, for a plan.
    """

    def __init__(
        self,
        connection: Connection,
        known: Known,
        found: Sequence[Reference],
        *,
        event_tables: frozenset[str],
        foreseen: Sequence[Takeback] = (),
    ) -> None:
        self.known = known
        self.migration_id = known.migration.migration_id
        self.moved: Moved = moved(known.tables.binding, known.tables.target.columns)
        self._unwritten = changed(unwritten(connection, known.tables, self.moved.produced), "t")
        self._event_tables = event_tables
        self._foreseen = {one.target: one for one in foreseen}
        key = known.mapping.target.key
        edges = [Edge(one.table, tuple(one.columns), tuple(one.referenced), one.own, one.acts) for one in found]
        edges += [Edge(self.target, (link.target,), (key,), own=True) for link in known.mapping.links]
        self._edges = list(dict.fromkeys(edges))
        self.key = sql.Identifier(key)
        self.left = sql.Identifier("pg_temp", f"spine_left_{self.migration_id}")

    @property
    def target(self) -> Name:
        return self.known.tables.target.name

    def judge(self, connection: Connection) -> None:
        """Work out what stays, in the caller's transaction."""
        execute(connection, sql.SQL("DROP TABLE IF EXISTS {}").format(self.left))
        execute(
            connection,
            sql.SQL(
                "CREATE TEMPORARY TABLE {} (target_key {} PRIMARY KEY, reason text NOT NULL, detail text,"
                " round int NOT NULL)"
            ).format(self.left, self.moved.key_type),
        )
        self._stays(connection, 0, self.moved.touched(), self.migration_id)
        self._stays(connection, 0, self._touched_beside())
        for edge in self._edges:
            self._stays(connection, 0, self._pointed_to(edge))
        execute(connection, sql.SQL("ANALYZE {}").format(self.left))
        number = 0
        while self._stay_with(connection, number):
            number += 1

    def counts(self, connection: Connection) -> tuple[int, dict[str, int]]:
        """After ``judge``: how many rows go, and how many stay for which reason."""
        statement = sql.SQL("SELECT count(*) FROM {} AS t WHERE {}").format(
            self.target.identifier, self.moved.ours("t")
        )
        ((ours,),) = execute(connection, statement).fetchall()
        statement = sql.SQL("SELECT reason, count(*) FROM {} GROUP BY reason ORDER BY reason").format(self.left)
        left = dict(execute(connection, statement).fetchall())
        return ours - sum(left.values()), left

    def examples(self, connection: Connection, limit: int) -> list[Left]:
        """Some of the rows that stay, each reason before any comes twice."""
        statement = sql.SQL(
            "SELECT target_key::text AS target_key, reason, detail FROM (SELECT *, row_number() OVER"
            " (PARTITION BY reason ORDER BY target_key) AS place FROM {}) AS x ORDER BY place, reason LIMIT $1"
        ).format(self.left)
        cursor = psycopg.RawCursor(connection, row_factory=class_row(Left))
        return cursor.execute(statement, (limit,)).fetchall()

    def batch(self, connection: Connection, leaf: Name, after: str, up_to: str, *, held: bool = False) -> int:
        """Remove what goes of the rows that some source rows became, in one transaction; gives the number of rows.

        ``after`` and ``up_to`` are tids of the source, exclusive and inclusive. ``held``: others write some of the rows
        all the time, so they are locked before they are looked at, and nothing can come to point to them either. Raises
        psycopg.Error; a foreign key violation means that a row points there since ``judge``.
        """
        connection.isolation_level = level(held=held)
        with connection.transaction():
            apart = sql.SQL("NOT EXISTS (SELECT FROM {} AS l WHERE l.target_key = {})").format(
                self.left, self.moved.key
            )
            intact = self.moved.intact(leaf, apart)
            if held:
                self._lock(connection, [key for (key,) in execute(connection, intact, self.migration_id, after, up_to)])
            keys = [key for (key,) in execute(connection, intact, self.migration_id, after, up_to)]
            for edge in self._edges:
                if keys and edge.acts:
                    come = {key for (key,) in execute(connection, self._come_to(edge), keys)}
                    keys = [key for key in keys if key not in come]
            if not keys:
                return 0
            for link in self.known.mapping.links:
                execute(connection, self._cut(link.target), self.migration_id, keys, link.target)
            gone = [key for (key,) in execute(connection, self._delete(), keys)]
            values = {"migration_id": self.migration_id, "keys": gone}
            connection.execute(query("undo", "unlink"), values)
            # What the ledger counts as moved is at every moment what is on the target.
            counted = {"migration_id": self.migration_id, "segment": REPAIRS, "moved": -len(gone), "adopted": 0}
            connection.execute(query("backfill", "count_repairs"), {**counted, "quarantined": 0})
            return len(gone)

    def _lock(self, connection: Connection, keys: list[str]) -> None:
        brief(connection)
        parameters = Parameters()
        going = sql.SQL("SELECT unnest({})::{}").format(parameters.add(keys, "text[]"), self.moved.key_type)
        statement, values = target_lock(self.known.tables.binding, going, parameters)
        execute(connection, statement, *values)

    def _stays(self, connection: Connection, number: int, rows: sql.Composed, *parameters: int) -> int:
        """``rows`` give target_key, reason and detail. A row keeps the first reason that is found."""
        statement = sql.SQL(
            "INSERT INTO {left} (target_key, reason, detail, round)"
            " SELECT target_key, reason, detail, {round} FROM ({rows}) AS x ON CONFLICT (target_key) DO NOTHING"
        ).format(left=self.left, round=sql.Literal(number), rows=rows)
        return execute(connection, statement, *parameters).rowcount

    def _touched_beside(self) -> sql.Composed:
        """Rows with a value where no rule writes one."""
        return sql.SQL(
            "SELECT t.{key} AS target_key, 'changed' AS reason, 'a column that no rule writes' AS detail"
            " FROM {target} AS t WHERE {ours} AND {touched}"
        ).format(key=self.key, target=self.target.identifier, ours=self.moved.ours("t"), touched=self._unwritten)

    def _pointed_to(self, edge: Edge) -> sql.Composed:
        """Rows that a row points to which is not ours, and so stays."""
        reason = "has_foreign_events" if edge.table.table in self._event_tables else "referenced"
        stays = self._not_ours(edge)
        if not edge.own and edge.table in self._foreseen:
            follower = self._foreseen[edge.table]
            stays = sql.SQL("NOT ({} AND NOT EXISTS (SELECT FROM {} AS l WHERE l.target_key = r.{}))").format(
                follower.moved.ours("r"), follower.left, follower.key
            )
        return sql.SQL(
            "SELECT DISTINCT t.{key} AS target_key, {reason} AS reason, {label} AS detail"
            " FROM {table} AS r JOIN {target} AS t ON {joins} WHERE {ours} AND {stays}"
        ).format(
            key=self.key,
            reason=sql.Literal(reason),
            label=sql.Literal(edge.label),
            table=edge.table.identifier,
            target=self.target.identifier,
            joins=edge.joins("r", "t"),
            ours=self.moved.ours("t"),
            stays=stays,
        )

    def _stay_with(self, connection: Connection, number: int) -> int:
        """Rows that a row of round ``number`` points to."""
        found = 0
        for edge in (edge for edge in self._edges if edge.own):
            rows = sql.SQL(
                "SELECT DISTINCT ON (t.{key}) t.{key} AS target_key, 'referenced' AS reason,"
                " concat({label}::text, ' of ', r.{key}::text, ', which stays') AS detail"
                " FROM {left} AS l JOIN {target} AS r ON r.{key} = l.target_key JOIN {target} AS t ON {joins}"
                " WHERE l.round = {round} AND {ours}"
            ).format(
                key=self.key,
                label=sql.Literal(edge.label),
                left=self.left,
                target=self.target.identifier,
                joins=edge.joins("r", "t"),
                round=sql.Literal(number),
                ours=self.moved.ours("t"),
            )
            found += self._stays(connection, number + 1, rows)
        return found

    def _come_to(self, edge: Edge) -> sql.Composed:
        """Those of some keys that a row points to which is not ours and would be deleted or changed along with them.

        A row that comes after the batch's snapshot makes the deletion a serialization failure (ri_triggers.c,
        ri_PerformCheck: the cascade sees it, the snapshot does not), so that the batch is done again and sees it.
        """
        return sql.SQL(
            "SELECT t.{key}::text FROM unnest($1::text[]::{type}[]) AS g (key) JOIN {target} AS t ON t.{key} = g.key"
            " WHERE EXISTS (SELECT FROM {table} AS r WHERE {joins} AND {stays})"
        ).format(
            key=self.key,
            type=self.moved.key_type,
            target=self.target.identifier,
            table=edge.table.identifier,
            joins=edge.joins("r", "t"),
            stays=self._not_ours(edge),
        )

    def _not_ours(self, edge: Edge) -> Sql:
        return sql.SQL("NOT {}").format(self.moved.ours("r")) if edge.own else sql.SQL("true")

    def _cut(self, column: str) -> sql.Composed:
        """Links from rows that go later to rows that go now."""
        return sql.SQL(
            "WITH going AS MATERIALIZED (SELECT unnest($2::text[])::{type} AS key),"
            " cut AS (UPDATE {target} AS r SET {column} = NULL FROM going AS g WHERE r.{column} = g.key AND {ours}"
            " AND NOT EXISTS (SELECT FROM going AS x WHERE x.key = r.{key})"
            " RETURNING r.{key}::text AS target_key, g.key::text AS wanted)"
            " INSERT INTO spine_migrate.link (migration_id, target_key, field, wanted)"
            " SELECT $1, target_key, $3, wanted FROM cut"
            " ON CONFLICT (migration_id, target_key, field) DO UPDATE SET wanted = EXCLUDED.wanted"
        ).format(
            type=self.moved.key_type,
            target=self.target.identifier,
            column=sql.Identifier(column),
            ours=self.moved.ours("r"),
            key=self.key,
        )

    def _delete(self) -> sql.Composed:
        return sql.SQL(
            "DELETE FROM {target} AS t USING unnest($1::text[]::{type}[]) AS g (key)"
            " WHERE t.{key} = g.key AND {ours} AND NOT {touched} RETURNING t.{key}::text"
        ).format(
            target=self.target.identifier,
            type=self.moved.key_type,
            key=self.key,
            ours=self.moved.ours("t"),
            touched=self._unwritten,
        )
