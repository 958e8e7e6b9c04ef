"""The SQL of a batch, composed from a bound mapping: judge, insert, quarantine, links."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, LiteralString

from psycopg import sql

from spine_migrate.carry.scope import Blocks, Parameters, Scope
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.sql import forward, is_ours, judgements, key, verdict
from spine_migrate.mapping.model import Field
from spine_migrate.mapping.transforms.base import Sql

Statement = tuple[sql.Composed, list[Any]]

# A row that is refused once more keeps its number and the time of its first refusal.
AGAIN: LiteralString = (
    " ON CONFLICT (migration_id, source_key) DO UPDATE SET source_row = EXCLUDED.source_row, reason = EXCLUDED.reason,"
    " field = EXCLUDED.field, detail = EXCLUDED.detail, sqlstate = EXCLUDED.sqlstate,"
    " constraint_name = EXCLUDED.constraint_name, colliding_row = EXCLUDED.colliding_row,"
    " attempts = quarantine.attempts + 1, updated_at = clock_timestamp(), discarded_at = NULL, discarded_by = NULL"
)


@dataclass(frozen=True)
class Parent:
    """The mapping that a batch's rows depend on: where its rows went, which migration quarantined the others."""

    field: Field
    binding: Binding
    migration_id: int
    has_quarantine: bool


@dataclass
class Rejects:
    """Rows of a scope that are not inserted, by handle.

    ``judged`` ones get their reason from the judge when they are written to quarantine; ``found`` ones bring it along;
    ``adopted`` ones are on the target already, as they should be; ``handed`` ones, with what stands in their way, are
    left to the applier of changes.
    """

    judged: list[str] = field(default_factory=list)
    found: dict[str, Found] = field(default_factory=dict)
    adopted: list[str] = field(default_factory=list)
    handed: dict[str, str] = field(default_factory=dict)

    @property
    def handles(self) -> list[str]:
        return [*self.judged, *self.found, *self.adopted, *self.handed]

    @property
    def quarantined(self) -> int:
        return len(self.judged) + len(self.found)


@dataclass(frozen=True)
class Found:
    """A rejection that was not the judge's: a collision, a missing parent, or the server's own refusal."""

    reason: str
    detail: str
    field: str | None = None
    sqlstate: str | None = None
    constraint: str | None = None
    colliding_row: str | None = None
    rival: str | None = None
    """The key of the source row that got the place; the row it has become is the one it collides with."""

    @property
    def in_short(self) -> str:
        """What the server refused, without its words: they may hold values of the row."""
        what = {"23503": "a row that it names is not there", "23505": "its place is taken"}
        said = what.get(self.sqlstate or "", f"the server refuses it (SQLSTATE {self.sqlstate})")
        named = [f"constraint {self.constraint}"] if self.constraint else []
        named += [f"column {self.field}"] if self.field else []
        return ", ".join([said, *named])


class Statements:
    """Composes statements for scopes of one binding; the expressions are built once.

    ``orphans`` turns on the look-up of each row's parent in the target. It costs as much as a tenth of a batch and is
    only worth it once a foreign key has been violated.
    """

    def __init__(self, binding: Binding, parent: Parent | None, *, offline: bool = False) -> None:
        self.binding = binding
        self.parent = parent
        self.offline = offline
        self.columns = forward(binding, "s")
        self.judged = list(judgements(binding, "s"))
        self.links = {f.target: f for f in binding.mapping.links if f.column in binding.live}

    @property
    def _sorted_by(self) -> str:
        """A reference to a parent is looked up for every row and indexed; else it is the key that is."""
        required = self.binding.mapping.required
        return self.binding.mapping.target.key if required is None else required.target

    def judge(self, leaf_scope: Blocks, before: str, limit: int, *, orphans: bool, unjudged: bool = False) -> Statement:
        """Count the rows of a block range, find its end and its rejects.

        ``before`` is an exclusive tid bound, ``limit`` the most rows to take, in tid order. One row comes back: rows,
        last tid, handles of rejects, handles of rows with a link. ``unjudged`` only counts.
        """
        parameters = Parameters()
        s = leaf_scope.handle("s")
        query = sql.SQL(
            "SELECT count(*), max(b.handle)::text, array_agg(b.handle::text) FILTER (WHERE b.reason IS NOT NULL),"
            " array_agg(b.handle::text) FILTER (WHERE b.linked)"
            " FROM (SELECT {s} AS handle, {reason} AS reason, {linked} AS linked FROM {table} WHERE {s} > {after}"
            # The end by tids alone: whole rows would have to be sorted, which takes as long as judging them.
            " AND {s} <= (SELECT max(e.tid) FROM (SELECT {p} AS tid FROM {other} WHERE {p} > {after} AND {p} < {before}"
            " ORDER BY {p} LIMIT {limit}) AS e)) AS b"
        ).format(
            s=s,
            p=leaf_scope.handle("p"),
            reason=sql.SQL("NULL::text") if unjudged else self.reason(orphans=orphans),
            linked=self._linked(),
            table=leaf_scope.table("s"),
            other=leaf_scope.table("p"),
            after=parameters.add(leaf_scope.after, "tid"),
            before=parameters.add(before, "tid"),
            limit=parameters.add(limit, "bigint"),
        )
        return query, parameters.values

    def judge_scope(self, scope: Scope, *, orphans: bool, unjudged: bool = False) -> Statement:
        """The same for a scope whose rows are settled."""
        parameters = Parameters()
        query = sql.SQL(
            "SELECT count(*), max(b.handle::text), array_agg(b.handle::text) FILTER (WHERE b.reason IS NOT NULL),"
            " array_agg(b.handle::text) FILTER (WHERE b.linked)"
            " FROM (SELECT {handle} AS handle, {reason} AS reason, {linked} AS linked FROM {table} WHERE {rows}) AS b"
        ).format(
            handle=scope.handle("s"),
            reason=sql.SQL("NULL::text") if unjudged else self.reason(orphans=orphans),
            linked=self._linked(),
            table=scope.table("s"),
            rows=scope.condition("s", parameters),
        )
        return query, parameters.values

    def insert(self, scope: Scope, rejects: list[str], waiting: dict[str, list[str]]) -> Statement:
        """Move the rows of a scope but for the rejects. No ON CONFLICT: a collision must fail, never be skipped.

        ``waiting``: by column, the handles of rows whose link is NULL until it can be completed.

        Rows go in sorted by the column that costs most to index and check: where keys are random, neighbours in an
        index are then written one after another, which makes up for the rest of a batch (benchmarks/RESULTS.md).
        """
        parameters = Parameters()
        rows = scope.without("s", rejects, parameters)
        values = [
            sql.SQL("CASE WHEN {0} IS NOT NULL AND NOT {1} THEN {0} END").format(
                value, scope.listed("s", waiting[name], parameters)
            )
            if name in waiting
            else value
            for name, value in self.columns.items()
        ]
        query = sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} WHERE {}{}").format(
            self.binding.target.identifier,
            sql.SQL(", ").join(map(sql.Identifier, self.columns)),
            sql.SQL(", ").join(values),
            scope.table("s"),
            rows,
            # Offline there is no index to write.
            sql.SQL("") if self.offline else sql.SQL(" ORDER BY {}").format(self.columns[self._sorted_by]),
        )
        return query, parameters.values

    def quarantine(self, migration_id: int, scope: Scope, rejects: Rejects, *, orphans: bool) -> Statement:
        """Write the rejects to quarantine, each with its whole source row, once the other rows are on the target.

        They may be there already, on a retry or because the row was updated and is met once more further on; such an
        entry is brought up to date and counts one more attempt. The key and the reason of each come back.
        """
        parameters = Parameters()
        found = list(rejects.found.values())
        nothing: list[str | None] = [None] * len(rejects.judged)
        handles = [*rejects.judged, *rejects.found]
        lists = [
            parameters.add(handles, f"text[]::{scope.handle_type}[]"),
            *(
                parameters.add([*nothing, *(getattr(one, name) for one in found)], "text[]")
                for name in ("reason", "field", "detail", "sqlstate", "constraint", "colliding_row", "rival")
            ),
        ]
        query = sql.SQL(
            "INSERT INTO spine_migrate.quarantine (migration_id, source_key, source_row, reason, field, detail,"
            " sqlstate, constraint_name, colliding_row)"
            " SELECT {migration}, {key}::text, row_to_json(s.*), coalesce(x.reason, {reason}),"
            # Not coalesce: where the row itself was refused, the judge must not look at it again.
            " CASE WHEN x.reason IS NULL THEN {field} ELSE x.field END, coalesce(x.detail, {detail}), x.sqlstate,"
            " x.constraint_name,"
            " CASE WHEN x.rival IS NULL THEN x.colliding_row::json ELSE (SELECT row_to_json(t.*)"
            " FROM {source} AS f JOIN {target} AS t ON t.{target_key} = {rival_key}"
            " WHERE f.{source_key} = x.rival::{key_type}) END"
            " FROM unnest({lists}) AS x"
            " (handle, reason, field, detail, sqlstate, constraint_name, colliding_row, rival)"
            " JOIN {table} ON {handle} = x.handle WHERE {rows}{again} RETURNING source_key, reason"
        ).format(
            again=sql.SQL(AGAIN),
            source=self.binding.source.identifier,
            target=self.binding.target.identifier,
            target_key=sql.Identifier(self.binding.mapping.target.key),
            rival_key=key(self.binding, "f"),
            source_key=sql.Identifier(self.binding.mapping.key),
            key_type=sql.SQL(self.binding.live[self.binding.mapping.key].sql_type),
            migration=parameters.add(migration_id, "bigint"),
            key=sql.Identifier("s", self.binding.mapping.key),
            reason=self.reason(orphans=orphans),
            field=self._part("field", orphans=orphans),
            detail=self._part("detail", orphans=orphans),
            lists=sql.SQL(", ").join(lists),
            table=scope.table("s"),
            handle=scope.handle("s"),
            rows=scope.condition("s", parameters),
        )
        return query, parameters.values

    def hand_over(self, capture_id: int, scope: Scope, rejects: Rejects) -> Statement:
        """Leave the rows that are ``handed`` to the applier of changes."""
        parameters = Parameters()
        query = sql.SQL(
            "INSERT INTO spine_migrate.pending (capture_id, why, row_key, detail)"
            " SELECT {capture}, 'deferred', {key}::text, x.detail"
            " FROM unnest({handles}, {details}) AS x (handle, detail) JOIN {table} ON {handle} = x.handle WHERE {rows}"
            " ON CONFLICT (capture_id, why, row_key) DO NOTHING"
        ).format(
            capture=parameters.add(capture_id, "bigint"),
            key=sql.Identifier("s", self.binding.mapping.key),
            handles=parameters.add(list(rejects.handed), f"text[]::{scope.handle_type}[]"),
            details=parameters.add(list(rejects.handed.values()), "text[]"),
            table=scope.table("s"),
            handle=scope.handle("s"),
            rows=scope.condition("s", parameters),
        )
        return query, parameters.values

    def orphans(self, scope: Scope, rejects: list[str]) -> Statement:
        """Handles of rows whose parent is not on the target."""
        if self.parent is None:
            raise ValueError(f"{self.binding.mapping.name} requires no mapping")
        parameters = Parameters()
        query = sql.SQL(
            "SELECT {handle}::text FROM {table} WHERE {rows}"
            " AND (SELECT true FROM {parent} AS r WHERE r.{key} = {value}) IS NULL"
        ).format(
            handle=scope.handle("s"),
            table=scope.table("s"),
            rows=scope.without("s", rejects, parameters),
            parent=self.parent.binding.target.identifier,
            key=sql.Identifier(self.parent.binding.mapping.target.key),
            value=self.columns[self.parent.field.target],
        )
        return query, parameters.values

    def release(self, migration_id: int) -> Statement:
        """Take those out of quarantine that were moved later: updated after they were refused, and met once more."""
        parameters = Parameters()
        query = sql.SQL(
            "DELETE FROM spine_migrate.quarantine AS q"
            " USING {source} AS s JOIN {target} AS t ON t.{key} = {forward_key}"
            " WHERE q.migration_id = {migration} AND q.source_key = {source_key}::text AND {ours}"
            # In this order: what a refused row would become may not even be computable.
            " AND CASE WHEN q.reason = 'server_refused' OR {reason} IS NOT NULL THEN false ELSE NOT ({differs}) END"
        ).format(
            source=self.binding.source.identifier,
            target=self.binding.target.identifier,
            key=sql.Identifier(self.binding.mapping.target.key),
            forward_key=key(self.binding, "s"),
            migration=parameters.add(migration_id, "bigint"),
            source_key=sql.Identifier("s", self.binding.mapping.key),
            ours=is_ours(self.binding, "t"),
            reason=self.reason(orphans=False),
            differs=self._differs(),
        )
        return query, parameters.values

    def _differs(self) -> Sql:
        """Whether the target row ``t`` is not what ``s`` becomes; links aside, they may wait."""
        return sql.SQL(" OR ").join(
            sql.SQL("t.{} IS DISTINCT FROM {}").format(sql.Identifier(name), value)
            for name, value in self.columns.items()
            if name not in self.links
        )

    def taken(self, scope: Scope, rejects: list[str]) -> Statement:
        """Rows whose key is on the target already: handle, whether the row there is ours, as it should be, the row."""
        parameters = Parameters()
        query = sql.SQL(
            "SELECT {handle}::text, {ours} IS TRUE, NOT ({differs}), row_to_json(t.*)::text"
            " FROM {table} JOIN {target} AS t ON t.{key} = {forward_key} WHERE {rows}"
        ).format(
            handle=scope.handle("s"),
            ours=is_ours(self.binding, "t"),
            differs=self._differs(),
            table=scope.table("s"),
            target=self.binding.target.identifier,
            key=sql.Identifier(self.binding.mapping.target.key),
            forward_key=key(self.binding, "s"),
            rows=scope.without("s", rejects, parameters),
        )
        return query, parameters.values

    def _linked(self) -> Sql:
        if not self.links:
            return sql.SQL("false")
        # The column as it is: what a link is made of it may fail on a row that the judge refuses.
        columns = [link.column for link in self.links.values() if link.column is not None]
        present = [sql.SQL("{} IS NOT NULL").format(sql.Identifier("s", name)) for name in columns]
        return sql.SQL("({})").format(sql.SQL(" OR ").join(present))

    def reason(self, *, orphans: bool) -> Sql:
        """Why ``s`` cannot be carried, NULL where it can."""
        return self._part("reason", orphans=orphans)

    def _part(self, part: str, *, orphans: bool) -> Sql:
        """The judge's verdict, then what depends on other rows: a parent in quarantine, a parent that is nowhere."""
        own = verdict(self.judged, part)
        further: list[Sql] = []
        if self.parent is not None and self.parent.field.column is not None:
            column = self.parent.field.column
            value = self.binding.column(column, "s")
            live = sql.SQL(self.binding.live[column].sql_type)
            name = self.parent.binding.mapping.name
            if self.parent.has_quarantine:
                condition = sql.SQL(
                    "{} IN (SELECT q.source_key::{} FROM spine_migrate.quarantine AS q WHERE q.migration_id = {})"
                ).format(value, live, sql.Literal(self.parent.migration_id))
                detail = f"{column} names a row of {name} that is in quarantine"
                further.append(_when(condition, part, "parent_quarantined", self.parent.field.name, detail))
            if orphans:
                condition = sql.SQL("(SELECT true FROM {} AS r WHERE r.{} = {}) IS NULL").format(
                    self.parent.binding.target.identifier,
                    sql.Identifier(self.parent.binding.mapping.target.key),
                    self.columns[self.parent.field.target],
                )
                detail = f"{column} names no row that {name} has moved"
                further.append(_when(condition, part, "orphan", self.parent.field.name, detail))
        if not further:
            return own
        # The first CASE is NULL for a row that passes, in every part, so the parts agree on which branch spoke.
        return sql.SQL("coalesce({}, CASE {} END)").format(own, sql.SQL(" ").join(further))


def _when(condition: Sql, part: str, reason: str, field_name: str, detail: str) -> Sql:
    text = {"reason": reason, "field": field_name, "detail": detail}[part]
    return sql.SQL("WHEN {} THEN {}::text").format(condition, sql.Literal(text))
