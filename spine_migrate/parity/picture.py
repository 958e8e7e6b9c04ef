"""Where in time, or in the order of keys, the rows of one migration agree: what the HTML report draws.

Read in the snapshot of the comparison. Legacy rows are counted per slice in one pass over the table. The rows that are
wrong are placed by their keys: those that the comparison has listed; where there are more and a join has found them,
all of them, by the same join once more, counted on the server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from psycopg import sql

from spine_migrate.db.connect import Connection
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.chosen import parameter
from spine_migrate.mapping.emit.parity import Parity
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.parity.evidence import Picture, Slice
from spine_migrate.parity.model import COMPLETE, Comparison
from spine_migrate.parity.tables import Tables

SLICES = 80
# Rows that the limits of the slices are taken from; a quantile of so many is good to a third of a per cent.
_SAMPLED_ROWS = 100_000
_TIMES = {"timestamp with time zone", "timestamp without time zone"}
_KINDS = {"field": "differing", "missing": "missing", "extra": "extra", "doubled": "doubled"}
_ALL_ROWS = 2**62


def drawn(tables: Tables, one: Comparison) -> Comparison:
    """The comparison with its picture; without one where the legacy table is empty or nothing was compared."""
    if one.counts is None or not one.counts.source_rows:
        return one
    return replace(one, picture=_Painter(tables, one).picture(one.counts.source_rows))


@dataclass(frozen=True)
class _Axis:
    """``type`` is that of the limits, ``old`` and ``new`` place a legacy row ``s`` and a target row ``t`` among them;
    ``new`` is None where a target row alone does not tell.
    """

    name: str
    column: str
    type: Sql
    old: Sql
    new: Sql | None


@dataclass(frozen=True)
class _Painter:
    tables: Tables
    comparison: Comparison

    @property
    def parity(self) -> Parity:
        return self.tables.parity

    @property
    def legacy(self) -> Connection:
        return self.tables.source.connection

    def picture(self, source_rows: int) -> Picture:
        axis, limits, starts = self._laid_out(source_rows)
        rows, held = self._rows(axis, limits)
        wrong = self._wrong(axis, limits)
        slices = [
            Slice(
                start,
                rows[place],
                differing=wrong["differing", place],
                missing=wrong["missing", place],
                extra=wrong["extra", place],
                doubled=wrong["doubled", place],
                quarantined=max(0, held[place] - wrong["doubled", place]),
            )
            for place, start in [(None, None), *enumerate([None, *starts])]
        ]
        timeless, before, *others = slices
        # Nothing lies before the first key or time, but for what the sample has missed.
        if any((before.rows, before.wrong, before.quarantined)):
            others.insert(0, before)
        placed = sum(wrong.values())
        return Picture(axis.name, axis.column, others, timeless, max(0, self._known() - placed))

    def _known(self) -> int:
        counts = self.comparison.counts
        return sum((counts.differing, counts.missing, counts.extra, counts.doubled, counts.gone)) if counts else 0

    def _laid_out(self, source_rows: int) -> tuple[_Axis, list[str], list[str]]:
        """The axis, the limits of its slices, and how the server writes them; by key where the times say nothing."""
        percent = sql.Literal(min(100.0, 100.0 * _SAMPLED_ROWS / source_rows))
        for axis, statement in (*self._by_time(percent), self._by_key(percent)):
            limits, starts = execute(self.legacy, statement).fetchall()[0]
            if limits:
                return axis, limits, starts
        return axis, [], []

    def _by_time(self, percent: Sql) -> list[tuple[_Axis, sql.Composed]]:
        """By the first time of the target that copies one of the legacy table. A lone date far off, such as the year
        1, does not stretch it: the slices lie where all but a hundredth of the rows are, what is outside them is
        in the first and the last.
        """
        mapping, live = self.parity.binding.mapping, self.parity.binding.live
        for name, column in self.parity.target_columns.items():
            rule = mapping.base(name)
            old = live.get(rule.column) if rule and rule.column else None
            if column.type in _TIMES and old and old.type in _TIMES:
                seconds = _seconds("s", old.name)
                statement = sql.SQL(
                    "WITH sample AS (SELECT {seconds} AS at FROM {source} AS s TABLESAMPLE BERNOULLI ({percent})"
                    " REPEATABLE (1) WHERE isfinite({column})),"
                    " ends AS (SELECT percentile_disc(ARRAY[0.005, 0.995]) WITHIN GROUP (ORDER BY at) AS usual,"
                    " min(at) AS first, max(at) AS last FROM sample),"
                    " span AS (SELECT greatest(first, usual[1] - (usual[2] - usual[1]) / 50) AS low,"
                    " least(last, usual[2] + (usual[2] - usual[1]) / 50) AS high FROM ends),"
                    " limits AS (SELECT low + (high - low) * n / {slices} AS at FROM span, generate_series(0, {last}) n"
                    " WHERE high > low)"
                    " SELECT array_agg(at::text ORDER BY at), array_agg(to_timestamp(at)::text ORDER BY at) FROM limits"
                ).format(
                    seconds=seconds,
                    source=self.parity.binding.source.identifier,
                    percent=percent,
                    column=sql.Identifier("s", old.name),
                    slices=sql.Literal(SLICES),
                    last=sql.Literal(SLICES - 1),
                )
                return [(_Axis("time", old.name, sql.SQL("float8"), seconds, _seconds("t", name)), statement)]
        return []

    def _by_key(self, percent: Sql) -> tuple[_Axis, sql.Composed]:
        """About equally many rows in each slice. Where all keys are the same there is one."""
        key = self.parity.binding.mapping.key
        place = sql.Identifier("s", key)
        statement = sql.SQL(
            "SELECT keys::text[], keys::text[] FROM (SELECT percentile_disc({shares}::float8[]) WITHIN GROUP"
            " (ORDER BY {key}) AS keys FROM {source} AS s TABLESAMPLE BERNOULLI ({percent}) REPEATABLE (1)) AS sample"
        ).format(
            shares=sql.Literal([number / SLICES for number in range(SLICES)]),
            key=place,
            source=self.parity.binding.source.identifier,
            percent=percent,
        )
        return _Axis("key", key, self.parity.source_key_type, place, None), statement

    def _rows(self, axis: _Axis, limits: list[str]) -> tuple[Counter[int | None], Counter[int | None]]:
        """Legacy rows per slice, and those of them that are in quarantine, which may be on another server."""
        held: object = self.tables.migration_id
        relation: Sql = _HELD
        if self.tables.apart:
            held = [key for (key,) in execute(self.tables.connection, _HELD, self.tables.migration_id)]
            relation = _HELD_ELSEWHERE
        statement = sql.SQL(
            "SELECT {place}, count(*), count(q.key) FROM {source} AS s"
            " LEFT JOIN (SELECT source_key::{type} AS key FROM ({held}) AS held) AS q ON q.key = s.{key} GROUP BY 1"
        ).format(
            place=_place(axis, axis.old, parameter(2, _TEXTS)),
            source=self.parity.binding.source.identifier,
            held=relation,
            type=self.parity.source_key_type,
            key=sql.Identifier(self.parity.binding.mapping.key),
        )
        found = execute(self.legacy, statement, held, limits).fetchall()
        return Counter({place: rows for place, rows, _ in found}), Counter({place: held for place, _, held in found})

    def _wrong(self, axis: _Axis, limits: list[str]) -> Counter[tuple[str, int | None]]:
        """Rows by kind and slice. Of an unfinished migration none is missing."""
        one, finished = self.comparison, self.comparison.step in COMPLETE
        joined = one.method is None or one.method.name == "join"
        parts = [self._old_part(axis), *self._new_part(axis)]
        if one.differences_total > len(one.differences) and joined and not one.scope.partial and not self.tables.apart:
            suspects = self.parity.suspects(finished=finished)
            found = self._placed(self.legacy, suspects, parts, limits, self.tables.migration_id, _ALL_ROWS)
        else:
            listed = {(_KINDS[d.kind], d.key, d.target_key) for d in one.differences if d.kind in _KINDS}
            columns = [[each[number] for each in listed] for number in range(3)]
            found = self._placed(self.legacy, _LISTED, parts[:1], limits, *columns)
            found += self._placed(self.tables.connection, _LISTED, parts[1:], limits, *columns)
        return Counter({(kind, place): rows for kind, place, rows in found if kind != "missing" or finished})

    def _old_part(self, axis: _Axis) -> Sql:
        return sql.SQL(
            "SELECT w.kind, {} FROM wrong AS w JOIN {} AS s ON s.{} = w.source_key::{} WHERE w.kind <> 'extra'"
        ).format(
            _place(axis, axis.old, _LIMITS),
            self.parity.binding.source.identifier,
            sql.Identifier(self.parity.binding.mapping.key),
            self.parity.source_key_type,
        )

    def _new_part(self, axis: _Axis) -> Iterator[Sql]:
        if axis.new is not None:
            yield sql.SQL(
                "SELECT w.kind, {} FROM wrong AS w JOIN {} AS t ON t.{} = w.target_key::{} WHERE w.kind = 'extra'"
            ).format(
                _place(axis, axis.new, _LIMITS),
                self.parity.binding.target.identifier,
                sql.Identifier(self.parity.binding.mapping.target.key),
                self.parity.target_key_type,
            )

    def _placed(
        self, connection: Connection, wrong: Sql, parts: list[Sql], limits: list[str], *parameters: object
    ) -> list[tuple[str, int | None, int]]:
        if not parts:
            return []
        statement = sql.SQL(
            "WITH limits AS (SELECT {limits} AS texts),"
            " wrong AS MATERIALIZED (SELECT kind, source_key, target_key FROM ({wrong}) AS found WHERE count IS NULL)"
            " SELECT kind, place, count(*) FROM ({parts}) AS placed (kind, place) GROUP BY 1, 2"
        ).format(limits=parameter(len(parameters) + 1, _TEXTS), wrong=wrong, parts=sql.SQL(" UNION ALL ").join(parts))
        return execute(connection, statement, *parameters, limits).fetchall()


_TEXTS = sql.SQL("text[]")
_LIMITS = sql.SQL("(SELECT texts FROM limits)")
_HELD = sql.SQL("SELECT source_key FROM spine_migrate.quarantine WHERE migration_id = $1")
_HELD_ELSEWHERE = sql.SQL("SELECT unnest($1::text[]) AS source_key")
# As the statement that finds them names them.
_LISTED = sql.SQL(
    "SELECT NULL AS count, * FROM unnest($1::text[], $2::text[], $3::text[]) AS listed (kind, source_key, target_key)"
)


def _place(axis: _Axis, value: Sql, limits: Sql) -> Sql:
    """The number of the slice that a value is in; 0 before the first, NULL where there is no value."""
    return sql.SQL("CASE WHEN {value} IS NOT NULL THEN width_bucket({value}, {limits}::{type}[]) END").format(
        value=value, limits=limits, type=axis.type
    )


def _seconds(alias: str, column: str) -> Sql:
    return sql.SQL("extract(epoch FROM {})::float8").format(sql.Identifier(alias, column))
