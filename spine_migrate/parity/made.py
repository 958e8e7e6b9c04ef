"""What the self-test does to which scratch rows, and what the comparison must say of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from psycopg import sql

from spine_migrate.db.raw import execute
from spine_migrate.mapping.model import Field
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.parity.injections import Change, Place, changes, places
from spine_migrate.parity.scratch import LINK, MIGRATION, QUARANTINE, SOURCE, TARGET, Pair, Scratch

AGREEING = "nothing, in rows that agree"
_EXCHANGED, _THRICE = "two rows exchanged", "a row three times"
CANCELLING = frozenset({_EXCHANGED, _THRICE, "a row twice"})
"""Kinds of which the hashes of all rows, or their XOR, may be the same on both sides."""
_PLAIN = 2
"""How many rows of each kind that concerns whole rows."""


@dataclass
class Made:
    """One injection. ``expected`` is the kind of difference to be reported, or ``nothing``.

    ``numbers`` are the patterns that ``pairs`` are copied from. ``alone``: no other field of the row may be reported.
    ``unmarks`` says that it leaves a target row without the mark for each pair.
    """

    kind: str
    field: str | None
    expected: str
    numbers: list[int]
    make: Callable[[Sequence[Pair]], None]
    alone: bool = True
    unmarks: bool = False
    pairs: list[Pair] = dataclasses.field(default_factory=list)


def planned(scratch: Scratch) -> Iterator[Made]:
    """All injections that the mapping and the types allow."""
    found = list(places(scratch.real.binding))
    yield from _fields(scratch, found)
    yield from _swapped(scratch, found)
    yield from _refused(scratch)
    yield from _whole_rows(scratch)
    yield from _links(scratch, [place for place in found if place.link])
    yield Made(AGREEING, None, "nothing", scratch.numbers(), lambda _: None)


def _fields(scratch: Scratch, found: list[Place]) -> Iterator[Made]:
    columns = scratch.real.target_columns
    every = [change for place in found for change in changes(scratch.real.binding, place, columns[place.column])]
    for change, numbers in zip(every, scratch.patterns(every), strict=True):
        if numbers:
            make = partial(_change, scratch, change)
            yield Made(change.kind, change.place.name, "field", numbers, make, alone=change.alone)


def _change(scratch: Scratch, change: Change, pairs: Sequence[Pair]) -> None:
    _set(scratch, change.place.column, change.new, pairs)


def _set(scratch: Scratch, column: str, new: Sql, pairs: Sequence[Pair]) -> None:
    update = sql.SQL("UPDATE {} AS t SET {} = {} WHERE {}").format(
        TARGET.identifier, sql.Identifier(column), new, _of(scratch)
    )
    execute(scratch.connection, update, [pair.target_key for pair in pairs])


def _of(scratch: Scratch, alias: str = "t") -> Sql:
    """The target rows whose keys are ``$1``."""
    key = scratch.real.binding.mapping.target.key
    return sql.SQL("{}::text = ANY($1::text[])").format(sql.Identifier(alias, key))


def _swapped(scratch: Scratch, found: list[Place]) -> Iterator[Made]:
    """Values that two rows have exchanged, place by place, then whole rows."""
    key = scratch.real.binding.mapping.target.key
    two: list[int] = []
    for place in found:
        if place.path or place.rest:
            continue
        numbers = [number for number, _ in scratch.unlike(place)[:2]]
        if len(numbers) > 1:
            two = two or numbers
            yield Made(
                "values of two rows exchanged", place.name, "field", numbers, partial(_swap, scratch, place.column)
            )
    if two:
        yield Made(_EXCHANGED, None, "differing", two, partial(_swap, scratch, key))


def _swap(scratch: Scratch, column: str, pairs: Sequence[Pair]) -> None:
    one, other = (pair.target_key for pair in pairs)
    update = sql.SQL(
        "UPDATE {target} AS t SET {column} = u.{column} FROM {target} AS u"
        " WHERE (t.{key}::text, u.{key}::text) IN (($1, $2), ($2, $1))"
    ).format(
        target=TARGET.identifier,
        column=sql.Identifier(column),
        key=sql.Identifier(scratch.real.binding.mapping.target.key),
    )
    execute(scratch.connection, update, one, other)


def _refused(scratch: Scratch) -> Iterator[Made]:
    """Legacy rows whose value a rule does not carry any more, where the target has the NULL that it would give."""
    binding = scratch.real.binding
    for rule in binding.mapping.fields:
        value = scratch.refuses(rule)
        if value is not None:
            change = partial(_refuse, scratch, rule, value)
            kind = "a legacy value that the rule refuses"
            yield Made(kind, rule.name, "field", scratch.numbers()[-1:], change, alone=False)


def _refuse(scratch: Scratch, rule: Field, value: Sql, pairs: Sequence[Pair]) -> None:
    binding = scratch.real.binding
    update = sql.SQL("UPDATE {} AS s SET {} = {} WHERE s.{}::text = ANY($1::text[])").format(
        SOURCE.identifier, sql.Identifier(rule.source), value, sql.Identifier(binding.mapping.key)
    )
    execute(scratch.connection, update, [pair.source_key for pair in pairs])
    if rule.path:
        gone = sql.SQL("t.{} #- {}::text[]").format(sql.Identifier(rule.target), sql.Literal(list(rule.path)))
        _set(scratch, rule.target, gone, pairs)
    elif not scratch.real.target_columns[rule.target].not_null:
        _set(scratch, rule.target, sql.NULL, pairs)


def _whole_rows(scratch: Scratch) -> Iterator[Made]:
    some = scratch.numbers()[:_PLAIN]
    lost_mark = partial(_lose_mark, scratch)
    for kind, expected, steps in (
        ("a missing row", "missing", [_without_target]),
        ("an extra row", "extra", [_without_source]),
        ("a row twice", "duplicate", [_again_on_target]),
        (_THRICE, "duplicate", [_again_on_target, _again_on_target]),
        ("two legacy rows with one key", "duplicate", [_again_in_source]),
        ("a row on the target that is in quarantine", "doubled", [_in_quarantine]),
        ("nothing, in rows in quarantine", "nothing", [_in_quarantine, _without_target]),
        ("a row in quarantine that is gone", "gone", [_in_quarantine, _without_target, _without_source]),
    ):
        yield Made(kind, None, expected, some, partial(_in_turn, scratch, steps))
    yield Made("a row that lost its mark", None, "missing", some, lost_mark, unmarks=True)


_Step = Callable[[Scratch, Sequence[Pair]], None]


def _in_turn(scratch: Scratch, steps: Sequence[_Step], pairs: Sequence[Pair]) -> None:
    for step in steps:
        step(scratch, pairs)


def _without_target(scratch: Scratch, pairs: Sequence[Pair]) -> None:
    delete = sql.SQL("DELETE FROM {} AS t WHERE {}").format(TARGET.identifier, _of(scratch))
    execute(scratch.connection, delete, [pair.target_key for pair in pairs])


def _without_source(scratch: Scratch, pairs: Sequence[Pair]) -> None:
    delete = sql.SQL("DELETE FROM {} WHERE {}::text = ANY($1::text[])").format(
        SOURCE.identifier, sql.Identifier(scratch.real.binding.mapping.key)
    )
    execute(scratch.connection, delete, [pair.source_key for pair in pairs])


def _again_on_target(scratch: Scratch, pairs: Sequence[Pair]) -> None:
    insert = sql.SQL("INSERT INTO {0} SELECT DISTINCT ON ({1}) t.* FROM {0} AS t WHERE {2}").format(
        TARGET.identifier, sql.Identifier("t", scratch.real.binding.mapping.target.key), _of(scratch)
    )
    execute(scratch.connection, insert, [pair.target_key for pair in pairs])


def _again_in_source(scratch: Scratch, pairs: Sequence[Pair]) -> None:
    insert = sql.SQL("INSERT INTO {0} SELECT s.* FROM {0} AS s WHERE s.{1}::text = ANY($1::text[])").format(
        SOURCE.identifier, sql.Identifier(scratch.real.binding.mapping.key)
    )
    execute(scratch.connection, insert, [pair.source_key for pair in pairs])


def _in_quarantine(scratch: Scratch, pairs: Sequence[Pair]) -> None:
    insert = sql.SQL("INSERT INTO {} (migration_id, source_key) SELECT $1::bigint, unnest($2::text[])").format(
        QUARANTINE.identifier
    )
    execute(scratch.connection, insert, MIGRATION, [pair.source_key for pair in pairs])


def _lose_mark(scratch: Scratch, pairs: Sequence[Pair]) -> None:
    mark = scratch.real.binding.mapping.origin
    new: Sql = sql.Literal("self-test")
    if mark.path:
        new = sql.SQL("""jsonb_set(t.{}, {}::text[], '"self-test"')""").format(
            sql.Identifier(mark.target), sql.Literal(list(mark.path))
        )
    _set(scratch, mark.target, new, pairs)


def _links(scratch: Scratch, found: list[Place]) -> Iterator[Made]:
    """A link that is NULL as the ledger says, and one that it says is open although the row is there."""
    wanted = {place.name: [(n, value) for n, value in scratch.unlike(place) if value is not None] for place in found}
    arrived = {named[0][1] for named in wanted.values() if named}
    for place in found:
        stale, open_ = "an open link to a row that is there", "nothing, in links on record as open"
        for number, _ in wanted[place.name][:1]:
            yield Made(stale, place.name, "field", [number], partial(_open, scratch, place, there=True), unmarks=True)
        for number in [number for number, value in wanted[place.name] if value not in arrived][:1]:
            yield Made(open_, place.name, "nothing", [number], partial(_open, scratch, place, there=False))


def _open(scratch: Scratch, place: Place, pairs: Sequence[Pair], *, there: bool) -> None:
    column = sql.Identifier("t", place.column)
    keys = [pair.target_key for pair in pairs]
    record = sql.SQL(
        "INSERT INTO {} (migration_id, target_key, field, wanted, state)"
        " SELECT $2::bigint, {}::text, {}, {}::text, 'waiting' FROM {} AS t WHERE {}"
    ).format(
        LINK.identifier,
        sql.Identifier("t", scratch.real.binding.mapping.target.key),
        sql.Literal(place.name),
        column,
        TARGET.identifier,
        _of(scratch),
    )
    execute(scratch.connection, record, keys, MIGRATION)
    if there:
        arrive = sql.SQL("INSERT INTO {0} ({1}) SELECT {2} FROM {0} AS t WHERE {3}").format(
            TARGET.identifier,
            sql.Identifier(scratch.real.binding.mapping.target.key),
            column,
            _of(scratch),
        )
        execute(scratch.connection, arrive, keys)
    _set(scratch, place.column, sql.NULL, pairs)
