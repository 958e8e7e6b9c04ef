"""Parity broken on purpose: each class of rule in the compiled statements, made wrong in one way.

Where it can be done, through the dataclasses; what is written inside a statement is rewritten in its text, and that the
rewriting changed something is asserted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import LiteralString

from psycopg import sql

from spine_migrate.mapping.emit.checks import Check, checks
from spine_migrate.mapping.emit.chosen import Chosen
from spine_migrate.mapping.emit.parity import Parity
from spine_migrate.mapping.emit.sides import EVERY
from spine_migrate.mapping.transforms.base import Sql

EXECUTIONS, EVENTS, JOBS = "capture-spine/executions", "capture-spine/execution_events", "capture-spine/jobs"


@dataclass(frozen=True)
class Mutant:
    """``breaks`` is given the sound statements of the mapping."""

    name: str
    breaks: Callable[[Parity], Parity]
    mapping: str = EXECUTIONS


@dataclass(frozen=True)
class Rewritten(Parity):
    """One statement in which a piece of text stands for another, everywhere."""

    statement: str = ""
    before: LiteralString = ""
    after: LiteralString = ""

    def suspects(self, chosen: Chosen | None = None, *, finished: bool = True) -> sql.Composed:
        return self._rewrite("suspects", super().suspects(chosen, finished=finished))

    def values(self, chosen: Chosen) -> sql.Composed:
        return self._rewrite("values", super().values(chosen))

    def gone(self) -> sql.Composed:
        return self._rewrite("gone", super().gone())

    def source_count(self, rows: Sql = EVERY) -> sql.Composed:
        return self._rewrite("source_count", super().source_count(rows))

    def target_counts(self, rows: Sql = EVERY) -> sql.Composed:
        return self._rewrite("target_counts", super().target_counts(rows))

    def duplicates(self, *, source: bool) -> sql.Composed:
        return self._rewrite("duplicates", super().duplicates(source=source))

    def _rewrite(self, name: str, statement: sql.Composed) -> sql.Composed:
        if name != self.statement:
            return statement
        text = statement.as_string(None)
        assert self.before in text
        return sql.Composed([sql.SQL(text.replace(self.before, self.after))])


@dataclass(frozen=True)
class Seen(Parity):
    """Values of one type go through an expression on both sides before they are compared."""

    type: str = ""
    through: LiteralString = ""

    def comparable(self, name: str, value: Sql) -> Sql:
        found = super().comparable(name, value)
        if self.binding.mapping.target.columns[name].type.name != self.type or name == self.binding.mapping.target.key:
            return found
        return sql.SQL(self.through).format(v=found)


@dataclass(frozen=True)
class WithoutQuarantine(Parity):
    def held(self) -> Sql:
        return sql.SQL("LEFT JOIN (SELECT NULL::{} AS key) AS q ON false").format(self.source_key_type)


@dataclass(frozen=True)
class AllOurs(Parity):
    def new(self, rows: Sql = EVERY, *, table: Sql | None = None, most: bool = False) -> Sql:  # noqa: ARG002 - a hint
        text = super().new(rows, table=table).as_string(None)
        head, _, conditions = text.partition(" WHERE ")
        _, _, chosen = conditions.partition(" AND ")
        assert chosen
        return sql.SQL(f"{head} WHERE {chosen}")


def _as(kind: type[Parity], parity: Parity, **further: object) -> Parity:
    return kind(**{one.name: getattr(parity, one.name) for one in fields(Parity)}, **further)  # type: ignore[arg-type]  # further fields differ by kind


def rewritten(statement: str, before: LiteralString, after: LiteralString) -> Callable[[Parity], Parity]:
    return lambda parity: _as(Rewritten, parity, statement=statement, before=before, after=after)


def seen(kind: str, through: LiteralString) -> Callable[[Parity], Parity]:
    return lambda parity: _as(Seen, parity, type=kind, through=through)


def without_check(parity: Parity, number: int) -> Parity:
    return replace(parity, checks=tuple(check for at, check in enumerate(parity.checks) if at != number))


def with_inequality(parity: Parity, number: int) -> Parity:
    """``<>`` for ``IS DISTINCT FROM`` in one check."""
    return _with(parity, number, lambda one: sql.SQL("{} <> {}").format(one.old, one.new))


def _with(parity: Parity, number: int, differs: Callable[[Check], Sql]) -> Parity:
    every = (replace(one, differs=differs(one)) if at == number else one for at, one in enumerate(parity.checks))
    return replace(parity, checks=tuple(every))


def _json_as_text(parity: Parity) -> Parity:
    """Leaves of JSON compared as text: 1 is then "1"."""
    for number, check in enumerate(parity.checks):
        if check.kind == "jsonb" and not check.keys:
            text = sql.SQL("(({}) #>> '{{}}') IS DISTINCT FROM (({}) #>> '{{}}')")
            parity = _with(parity, number, lambda one: text.format(one.old, one.new))  # noqa: B023 - called at once
    return parity


def _without_rest(parity: Parity) -> Parity:
    return replace(parity, checks=tuple(check for check in parity.checks if not check.keys))


def _without_flags(parity: Parity) -> Parity:
    guards = replace(parity.guards, hidden={})
    return replace(parity, guards=guards, checks=tuple(checks(parity.binding, parity.produced, guards)))


_TOP: LiteralString = (
    "(SELECT jsonb_object_agg(k, CASE WHEN jsonb_typeof(x) IN ('object', 'array') THEN 'null' ELSE x END)"
    " FROM jsonb_each(CASE WHEN jsonb_typeof({v}) = 'object' THEN {v} END) AS j (k, x))"
)

MUTANTS = [
    Mutant("<> finds the suspects", rewritten("suspects", "IS DISTINCT FROM", "<>")),
    Mutant("missing rows dropped", rewritten("suspects", "FULL JOIN", "RIGHT JOIN")),
    Mutant("extra rows dropped", rewritten("suspects", "FULL JOIN", "LEFT JOIN")),
    Mutant("an inner join", rewritten("suspects", "FULL JOIN", "JOIN")),
    Mutant("an inner join of events", rewritten("suspects", "FULL JOIN", "JOIN"), EVENTS),
    Mutant("text trimmed", seen("text", "btrim({v})")),
    Mutant("text trimmed on the right", seen("text", "rtrim({v})")),
    Mutant("text in lower case", seen("text", "lower({v})")),
    Mutant("NULL is an empty text", seen("text", "coalesce({v}, '')")),
    Mutant("text cut", seen("text", "left({v}, 3)")),
    Mutant("times to the millisecond", seen("timestamptz", "date_trunc('milliseconds', {v})")),
    Mutant("times of events to the millisecond", seen("timestamptz", "date_trunc('milliseconds', {v})"), EVENTS),
    Mutant("times of jobs to the millisecond", seen("timestamptz", "date_trunc('milliseconds', {v})"), JOBS),
    Mutant("times by the hour within a day", seen("timestamptz", "date_trunc('day', {v})")),
    Mutant("NULL is a zero", seen("integer", "coalesce({v}, 0)")),
    Mutant("numbers by their sign", seen("integer", "sign({v})")),
    Mutant("half of a uuid", seen("uuid", "left({v}::text, 18)")),
    Mutant("JSON by its top level", seen("jsonb", _TOP)),
    Mutant("JSON of events by its top level", seen("jsonb", _TOP), EVENTS),
    Mutant("JSON null is nothing", seen("jsonb", "nullif({v}, 'null')")),
    Mutant("nulls in JSON dropped", seen("jsonb", "jsonb_strip_nulls({v})")),
    Mutant("case of JSON ignored", seen("jsonb", "lower({v}::text)::jsonb")),
    Mutant(
        "JSON numbers as floats",
        seen("jsonb", r"regexp_replace({v}::text, '(\d{{15}})\d*\.\d+', '\1')::jsonb"),
    ),
    Mutant("JSON leaves as text", _json_as_text, JOBS),
    Mutant("the rest of objects dropped", _without_rest),
    Mutant("the rest of objects dropped, jobs", _without_rest, JOBS),
    Mutant("refused values not flagged", _without_flags, JOBS),
    Mutant("quarantine forgotten", lambda parity: _as(WithoutQuarantine, parity)),
    Mutant("all rows are ours", lambda parity: _as(AllOurs, parity)),
    Mutant("no duplicates", rewritten("duplicates", "count(*) > 1", "count(*) > 3")),
    Mutant("pairs of duplicates only", rewritten("duplicates", "count(*) > 1", "count(*) > 2")),
    Mutant("quarantine without legacy rows passed over", rewritten("gone", "NOT EXISTS", "EXISTS")),
    Mutant("rows not counted", rewritten("source_count", "count(*)", "count(*) - 1")),
    Mutant("the mark not counted", rewritten("target_counts", "IS NOT TRUE", "IS TRUE")),
    Mutant("links excused although their row is there", rewritten("suspects", " IS NOT false", " IS NULL")),
    Mutant("links never excused", rewritten("suspects", " IS NOT false", " IS NOT NULL IS NOT NULL")),
    Mutant("links recorded for another row", rewritten("suspects", ".wanted = x.", ".wanted <> x.")),
    Mutant("no values for what differs", rewritten("values", "o.key IS NOT NULL AND", "o.key IS NULL AND")),
]
