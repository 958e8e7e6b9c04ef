"""Temporary tables in the shape of a migration's own, filled with pairs that agree.

A few rows of the source serve as patterns, and beside them some made up by hand; each is copied under fresh keys, as
often as it is needed, and carried forward by the mapping. Everything is in one transaction that the caller rolls back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from psycopg import sql

from spine_migrate.db.catalog import Name, leaves, named
from spine_migrate.db.connect import Connection
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.checks import SHOWN_BY_VALUE
from spine_migrate.mapping.emit.parity import Parity
from spine_migrate.mapping.emit.sql import Judgement, forward, judgements, key, verdict
from spine_migrate.mapping.model import Field
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.parity import candidates
from spine_migrate.parity.injections import Change, Place, value

SAMPLED = 100
# Enough for SAMPLED rows of any ordinary width, and read in no time.
_BLOCKS = 200
_NUMBER = "spine_self_test_number"
# PostgreSQL gives no more than 1,664 columns (manual, appendix K).
_PER_QUERY = 400

SOURCE, TARGET = Name("pg_temp", "spine_self_test_source"), Name("pg_temp", "spine_self_test_target")
QUARANTINE, LINK = Name("pg_temp", "spine_self_test_quarantine"), Name("pg_temp", "spine_self_test_link")
_PATTERN, _CARRIED = Name("pg_temp", "spine_self_test_pattern"), Name("pg_temp", "spine_self_test_carried")
MIGRATION = 0


@dataclass(frozen=True)
class Pair:
    """A source row and its target row in the scratch tables; keys as the server writes them."""

    source_key: str
    target_key: str


class Scratch:
    """The tables, over a connection that is in a transaction. ``parity`` is the very same, over the scratch tables."""

    def __init__(self, connection: Connection, real: Parity, *, apart: bool = False) -> None:
        """``apart``: the source is on another server; the tables are made from what its columns are known to be."""
        self.connection = connection
        self.real = real
        binding = replace(real.binding, source=SOURCE, target=TARGET)
        self.parity = replace(real, binding=binding, quarantine=QUARANTINE, link=LINK)
        self._key = real.binding.mapping.key
        self._columns = list(real.binding.live)
        self._made = 0
        self._apart = apart

    def create(self) -> None:
        number = sql.SQL("SELECT 0 AS {}, x.* FROM {} AS x")
        plain = sql.SQL("SELECT x.* FROM {} AS x")
        target = self.real.binding.target.identifier
        source: Sql = self._as_known() if self._apart else self.real.binding.source.identifier
        for name, query in (
            (SOURCE, plain.format(source)),
            (TARGET, plain.format(target)),
            (QUARANTINE, plain.format(self.real.quarantine.identifier)),
            (LINK, plain.format(self.real.link.identifier)),
            (_PATTERN, number.format(sql.Identifier(_NUMBER), source)),
            (_CARRIED, number.format(sql.Identifier(_NUMBER), target)),
        ):
            create = sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS {} WITH NO DATA")
            execute(self.connection, create.format(sql.Identifier(name.table), query))

    def _as_known(self) -> Sql:
        """A relation with the source's columns, and no rows."""
        columns = [
            sql.SQL("NULL::{} AS {}").format(sql.SQL(column.sql_type), sql.Identifier(name))
            for name, column in self.real.binding.live.items()
        ]
        return sql.SQL("(SELECT {})").format(sql.SQL(", ").join(columns))

    def sample(self, migration_id: int) -> int:
        """Take patterns from the source, none that is in quarantine or would be; gives their number."""
        if self._apart:
            # A blank to make others up from; it goes again, see ``make_up``.
            blank = sql.SQL("INSERT INTO {} ({}) VALUES (1)").format(_PATTERN.identifier, sql.Identifier(_NUMBER))
            return execute(self.connection, blank).rowcount
        blocks = sum(leaf.blocks for leaf in leaves(self.connection, self._source_oid()))
        share = min(100.0, 100.0 * _BLOCKS / max(blocks, 1))
        some = sql.SQL("TABLESAMPLE SYSTEM ({}) REPEATABLE (0)").format(sql.Literal(share))
        for which in (some, sql.SQL("")):
            fill = sql.SQL(
                "INSERT INTO {pattern} ({number}, {columns}) SELECT row_number() OVER (), {columns}"
                " FROM (SELECT {columns} FROM {source} {which} LIMIT {rows}) AS x"
            ).format(
                pattern=_PATTERN.identifier,
                number=sql.Identifier(_NUMBER),
                columns=self._list(),
                source=self.real.binding.source.identifier,
                which=which,
                rows=sql.Literal(SAMPLED),
            )
            if execute(self.connection, fill).rowcount:
                break
        held = sql.SQL(
            "DELETE FROM {} AS s USING {} AS q WHERE q.migration_id = $1 AND q.source_key = s.{}::text"
        ).format(_PATTERN.identifier, self.real.quarantine.identifier, sql.Identifier(self._key))
        execute(self.connection, held, migration_id)
        self._drop_refused()
        return self._count(_PATTERN)

    def _source_oid(self) -> int:
        return named(self.connection, str(self.real.binding.source)).oid

    def _list(self, alias: str | None = None) -> Sql:
        return sql.SQL(", ").join(
            sql.Identifier(alias, name) if alias else sql.Identifier(name) for name in self._columns
        )

    def _count(self, table: Name) -> int:
        ((count,),) = execute(self.connection, sql.SQL("SELECT count(*) FROM {}").format(table.identifier)).fetchall()
        return int(count)

    def _drop_refused(self) -> None:
        refused = verdict(list(judgements(self.real.binding, "s")), "reason")
        execute(
            self.connection, sql.SQL("DELETE FROM {} AS s WHERE {} IS NOT NULL").format(_PATTERN.identifier, refused)
        )

    def make_up(self) -> None:
        """Add patterns with a value in each column, with none, and with further ones that the rules treat by value."""
        binding = self.real.binding
        passing = {name: self._passing(name) for name in self._columns if name != self._key}
        full = {name: found[0] for name, found in passing.items() if found}
        bare = {name: found[-1] for name, found in passing.items() if found}
        if self._apart:
            live = self.real.binding.live[self._key]
            full[self._key] = bare[self._key] = candidates.cast(self._fresh(0), live)
        self._add(full)
        self._add(bare)
        for name, found in passing.items():
            json = binding.live[name].type in ("json", "jsonb")
            if json or any(field.keep or field.steps or field.link for field in binding.mapping.carriers(name)):
                for one in found[1:]:
                    self._add({**full, name: one})
        if self._apart:
            execute(
                self.connection,
                sql.SQL("DELETE FROM {} WHERE {} IS NULL").format(_PATTERN.identifier, sql.Identifier(self._key)),
            )
        self._drop_refused()

    def _passing(self, name: str) -> list[Sql]:
        """Made-up values of a column that the rules over it carry."""
        found = list(candidates.values(self.real.binding, name))
        judged = [one for one in judgements(self.real.binding, "s") if one.field.column == name]
        return [found[number] for number in self._judged(judged, name, found)]

    def _add(self, made: dict[str, Sql]) -> None:
        """One more pattern: the first of the sample, with other values in some columns."""
        columns = [made.get(name, sql.Identifier("s", name)) for name in self._columns]
        statement = sql.SQL(
            "INSERT INTO {pattern} ({number}, {names}) "
            " SELECT (SELECT greatest(max({number}), {sampled}) + 1 FROM {pattern}), {columns}"
            " FROM {pattern} AS s ORDER BY s.{number} LIMIT 1"
        ).format(
            pattern=_PATTERN.identifier,
            number=sql.Identifier(_NUMBER),
            sampled=sql.Literal(SAMPLED),
            names=self._list(),
            columns=sql.SQL(", ").join(columns),
        )
        execute(self.connection, statement)

    def carry(self) -> int:
        """Carry the patterns forward, to see which differences can be made of them; gives their number.

        Those are dropped that the target's columns do not give back as they are, rounded to fewer digits for one.
        """
        execute(self.connection, self._forward(_PATTERN, _CARRIED, numbered=True))
        differs = sql.SQL(" OR ").join(
            sql.SQL("t.{} IS DISTINCT FROM {}").format(sql.Identifier(name), made)
            for name, made in forward(self.real.binding, "s").items()
        )
        for table in (_PATTERN, _CARRIED):
            # The second time the patterns are gone.
            statement = sql.SQL(
                "DELETE FROM {table} WHERE {n} IN (SELECT t.{n} FROM {carried} AS t LEFT JOIN {pattern} AS s"
                " ON s.{n} = t.{n} WHERE s.{n} IS NULL OR {differs})"
            ).format(
                table=table.identifier,
                n=sql.Identifier(_NUMBER),
                carried=_CARRIED.identifier,
                pattern=_PATTERN.identifier,
                differs=differs,
            )
            execute(self.connection, statement)
        return self._count(_PATTERN)

    def _forward(self, source: Name, target: Name, *, numbered: bool = False) -> sql.Composed:
        values = forward(self.real.binding, "s")
        extra = [sql.Identifier(_NUMBER)] if numbered else []
        return sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {} AS s").format(
            target.identifier,
            sql.SQL(", ").join([*extra, *map(sql.Identifier, values)]),
            sql.SQL(", ").join([*extra, *values.values()]),
            source.identifier,
        )

    def patterns(self, changes: Sequence[Change]) -> list[list[int]]:
        """For each change the numbers of up to two patterns that it can be made of, one sampled and one made up."""
        found: list[list[int]] = []
        for at in range(0, len(changes), _PER_QUERY):
            least = sql.SQL(
                "min({n}) FILTER (WHERE {n} <= {last} AND {c}), min({n}) FILTER (WHERE {n} > {last} AND {c})"
            )
            columns = [
                least.format(n=sql.Identifier("t", _NUMBER), last=sql.Literal(SAMPLED), c=change.applies)
                for change in changes[at : at + _PER_QUERY]
            ]
            query = sql.SQL("SELECT {} FROM {} AS t").format(sql.SQL(", ").join(columns), _CARRIED.identifier)
            (row,) = execute(self.connection, query).fetchall()
            found.extend([n for n in row[i : i + 2] if n is not None] for i in range(0, len(row), 2))
        return found

    def unlike(self, place: Place) -> list[tuple[int, str | None]]:
        """Patterns that have different values at a place, NULL being one: their numbers, and the values as text."""
        query = sql.SQL(
            "SELECT min(x.n), x.value FROM (SELECT t.{n} AS n, {value}::text AS value FROM {carried} AS t) AS x"
            " GROUP BY x.value ORDER BY 1 LIMIT {most}"
        ).format(
            n=sql.Identifier(_NUMBER),
            carried=_CARRIED.identifier,
            value=value(self.real.binding, place, self.real.target_columns[place.column]),
            most=sql.Literal(SAMPLED),
        )
        return execute(self.connection, query).fetchall()

    def numbers(self) -> list[int]:
        query = sql.SQL("SELECT {n} FROM {} ORDER BY {n}").format(_PATTERN.identifier, n=sql.Identifier(_NUMBER))
        return [number for (number,) in execute(self.connection, query)]

    def clear(self) -> None:
        """Take all pairs out again, and what the ledger says of them."""
        for table in (SOURCE, TARGET, QUARANTINE, LINK):
            execute(self.connection, sql.SQL("TRUNCATE {}").format(table.identifier))

    def copy(self, numbers: Sequence[int]) -> list[Pair]:
        """A pair under fresh keys for each of these patterns, in their order."""
        if not numbers:
            return []
        fresh = [self._fresh(self._made + number) for number in range(1, len(numbers) + 1)]
        self._made += len(numbers)
        live = self.real.binding.live[self._key]
        others = [name for name in self._columns if name != self._key]
        columns = sql.SQL("").join(sql.SQL(", {}").format(sql.Identifier("s", name)) for name in others)
        statement = sql.SQL(
            "WITH made AS (INSERT INTO {source} ({names}) SELECT x.key::{type}{columns}"
            " FROM unnest($1::integer[], $2::text[]) AS x (number, key) JOIN {pattern} AS s ON s.{number} = x.number"
            " RETURNING *), carried AS (INSERT INTO {target} ({targets}) SELECT {values} FROM made AS s)"
            " SELECT s.{key}::text, {forward}::text FROM made AS s"
        ).format(
            source=SOURCE.identifier,
            names=sql.SQL(", ").join(map(sql.Identifier, [self._key, *others])),
            type=sql.SQL(live.sql_type),
            columns=columns,
            pattern=_PATTERN.identifier,
            number=sql.Identifier(_NUMBER),
            target=TARGET.identifier,
            targets=sql.SQL(", ").join(map(sql.Identifier, forward(self.real.binding, "s"))),
            values=sql.SQL(", ").join(forward(self.real.binding, "s").values()),
            key=sql.Identifier(self._key),
            forward=key(self.real.binding, "s"),
        )
        keys = dict(execute(self.connection, statement, list(numbers), fresh).fetchall())
        return [Pair(one, keys[one]) for one in fresh]

    def _fresh(self, number: int) -> str:
        return candidates.keys(self.real.binding.live[self._key], number)[self._form]

    @cached_property
    def _form(self) -> int:
        """Which form of fresh keys the rules take; the last one, if they take none."""
        live = self.real.binding.live[self._key]
        forms = candidates.keys(live, 1)
        judged = [one for one in judgements(self.real.binding, "s") if one.field.column == self._key]
        taken = (at for at, form in enumerate(forms) if self._judged(judged, self._key, [candidates.cast(form, live)]))
        return next(taken, len(forms) - 1)

    def _judged(self, judged: list[Judgement], name: str, found: list[Sql]) -> list[int]:
        """Which of these values of a column the judge lets pass, by number."""
        if not judged or not found:
            return list(range(len(found)))
        listed = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {} AS number, {} AS {}").format(sql.Literal(number), one, sql.Identifier(name))
            for number, one in enumerate(found)
        )
        passes = sql.SQL("SELECT s.number FROM ({}) AS s WHERE {} IS NULL ORDER BY 1").format(
            listed, verdict(judged, "reason")
        )
        return [number for (number,) in execute(self.connection, passes)]

    def refuses(self, field: Field) -> Sql | None:
        """A legacy value that a rule does not carry, and that its place would not show; None where there is none."""
        if field.column is None or field.column not in self._columns or field.column == self._key:
            return None
        judged = [one for one in judgements(self.real.binding, "s") if one.field.name == field.name]
        judged = [one for one in judged if one.refusal.reason not in SHOWN_BY_VALUE]
        found = candidates.refused(self.real.binding, field.column)
        if found is None or not judged or self._judged(judged, field.column, [found]):
            return None
        return found

    def counted(self) -> tuple[int, int]:
        """Rows of the source and of the target."""
        return self._count(SOURCE), self._count(TARGET)
