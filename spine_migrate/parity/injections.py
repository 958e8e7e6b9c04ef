"""The kinds of difference that the self-test makes, by the type of what is changed.

A kind is an expression over the value ``{v}``, of the logical type, and the condition under which it is a difference of
that kind. What is compared where is worked out here from the mapping alone and not from the compiled checks: a check
that was left out must be missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from spine_migrate.db.catalog import Column
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.sql import forward
from spine_migrate.mapping.model import JsonPath, Mapping
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.mapping.transforms.value_map import ValueMap
from spine_migrate.mapping.types import literal, read

# What the made-up JSON values hold, so that there is always something deep to change; see parity.candidates.
DEEP: LiteralString = (
    '{"self-test": {"list": [1, 2, {"deep": "Value"}], "number": 12345678901234567890.125, "count": 7,'
    ' "digits": "8", "flag": true, "none": null, "nest": {"a": [1, {"b": 2}]}}}'
)


@dataclass(frozen=True)
class Kind:
    name: str
    change: LiteralString
    when: LiteralString


@dataclass(frozen=True)
class Place:
    """Something that the mapping writes: a target column, a path inside one, or what is left of an object beside the
    paths in it (``rest``). ``name`` is how a difference there is reported.
    """

    name: str
    column: str
    path: tuple[str, ...]
    type: str
    link: bool = False
    rest: bool = False


@dataclass(frozen=True)
class Change:
    """One kind at one place, over the target row ``t``. ``new`` is for the column, ``applies`` is boolean. ``alone``:
    no other place is changed by it.
    """

    kind: str
    place: Place
    new: Sql
    applies: Sql
    alone: bool = True


NULL = Kind("NULL for a value", "NULL", "{v} IS NOT NULL")

_TEXT = (
    NULL,
    Kind("a value for NULL", "'x'", "{v} IS NULL"),
    Kind("an empty text for NULL", "''", "{v} IS NULL"),
    Kind("a trailing space", "{v} || ' '", "{v} IS NOT NULL"),
    Kind("a leading space", "' ' || {v}", "{v} IS NOT NULL"),
    Kind("letter case", "CASE WHEN upper({v}) <> {v} THEN upper({v}) ELSE lower({v}) END", "upper({v}) <> lower({v})"),
    Kind("a changed character", "left({v}, -1) || CASE right({v}, 1) WHEN 'x' THEN 'y' ELSE 'x' END", "{v} <> ''"),
    Kind("a cut end", "left({v}, -1)", "{v} <> ''"),
)
_INTEGER = (
    NULL,
    Kind("a number for NULL", "0", "{v} IS NULL"),
    Kind("a number one higher", "{v} + 1", "{v} < 2147483647 OR {v} BETWEEN 4294967296 AND 9223372036854775806"),
)
_SIGN = Kind("the sign of a number", "-{v}", "{v} > 0")
# A hash of 64 bits that are folded to 32 is the same for both, see emit.digest.
_FOLDED = Kind("two bits of a number", "{v} # 4294967297", "{v} >= 4294967296")
_NUMERIC = (
    NULL,
    Kind("a number for NULL", "0", "{v} IS NULL"),
    Kind("a number one higher", "{v} + 1", "{v} IS NOT NULL"),
    Kind("the last digit of a number", "{v} + power(10::numeric, -scale({v}))", "scale({v}) > 0"),
)
_BOOLEAN = (NULL, Kind("false for NULL", "false", "{v} IS NULL"), Kind("a flipped flag", "NOT {v}", "{v} IS NOT NULL"))
_UUID = (
    NULL,
    Kind("a uuid for NULL", "'5e1f7e57-0000-4000-8000-ffffffffffff'::uuid", "{v} IS NULL"),
    Kind(
        "one bit of a uuid",
        "(left({v}::text, 35) || translate(right({v}::text, 1), '0123456789abcdef', '1032547698badcfe'))::uuid",
        "{v} IS NOT NULL",
    ),
)
_MICROSECONDS: LiteralString = "((extract(epoch FROM {v}) - 946684800) * 1000000)::bigint"
_TIME = (
    NULL,
    Kind("a time for NULL", "'epoch'", "{v} IS NULL"),
    # Beyond it there is no later time.
    Kind("one microsecond", "{v} + interval '1 microsecond'", "isfinite({v}) AND {v} < '294276-01-01'"),
    Kind("one hour", "{v} + interval '1 hour'", "isfinite({v}) AND {v} < '294276-01-01'"),
    Kind(
        "two bits of a time",
        f"{{v}} + (({_MICROSECONDS} # 4294967297) - {_MICROSECONDS}) * interval '1 microsecond'",
        "{v} BETWEEN '2001-01-01' AND '9999-01-01'",
    ),
    Kind("infinity for a time", "'infinity'", "isfinite({v})"),
)
_JSON_TEXT: LiteralString = "jsonb_typeof({v}) = 'string' AND {v} #>> '{{}}' <> ''"
_JSON_FIRST: LiteralString = "(SELECT min(k) FROM jsonb_object_keys({v}) AS k)"
_JSON_OBJECT: LiteralString = "jsonb_typeof({v}) = 'object' AND {v} <> '{{}}'"
_JSON = (
    Kind("nothing for a JSON value", "NULL", "{v} IS NOT NULL"),
    Kind("JSON null for nothing", "'null'::jsonb", "{v} IS NULL"),
    Kind("JSON null for a JSON value", "'null'::jsonb", "{v} <> 'null'"),
    Kind("a JSON text with a trailing space", "to_jsonb(({v} #>> '{{}}') || ' ')", _JSON_TEXT),
    Kind("letter case in a JSON text", "to_jsonb(upper({v} #>> '{{}}'))", _JSON_TEXT),
    Kind("a changed character in a JSON text", "to_jsonb(left({v} #>> '{{}}', -1) || '~')", _JSON_TEXT),
    Kind("a number as text in JSON", "to_jsonb({v} #>> '{{}}')", "jsonb_typeof({v}) = 'number'"),
    Kind(
        "a number one higher in JSON",
        "to_jsonb(CASE jsonb_typeof({v}) WHEN 'number' THEN ({v} #>> '{{}}')::numeric + 1 END)",
        "jsonb_typeof({v}) = 'number'",
    ),
    Kind(
        "a flipped flag in JSON",
        "to_jsonb(CASE jsonb_typeof({v}) WHEN 'boolean' THEN NOT ({v} #>> '{{}}')::boolean END)",
        "jsonb_typeof({v}) = 'boolean'",
    ),
    Kind("a list around a JSON value", "jsonb_build_array({v})", "jsonb_typeof({v}) IN ('object', 'array')"),
    Kind("a list around a single JSON value", "jsonb_build_array({v})", "jsonb_typeof({v}) NOT IN ('object', 'array')"),
)
# These hold for an object, whether it is a value of its own or what is left of one.
_OBJECT = (
    Kind("an extra key in JSON", "{v} || '{{\"spine-extra\": 1}}'", "jsonb_typeof({v}) = 'object'"),
    Kind("an extra key in JSON that is null", "{v} || '{{\"spine-extra\": null}}'", "jsonb_typeof({v}) = 'object'"),
)
_KEYS = (
    Kind("a key gone from JSON", f"{{v}} - {_JSON_FIRST}", _JSON_OBJECT),
    Kind("a key of JSON set to null", f"jsonb_set({{v}}, ARRAY[{_JSON_FIRST}], 'null')", _JSON_OBJECT),
)


def _deep(name: str, path: LiteralString, value: LiteralString) -> Kind:
    return Kind(
        name,
        f"jsonb_set({{v}}, '{{{{self-test,{path}}}}}', '{value}')",
        f"jsonb_typeof({{v}}) = 'object' AND {{v}} #> '{{{{self-test,{path}}}}}' IS NOT NULL",
    )


_DEEP = (
    _deep("a letter deep in JSON", "list,2,deep", '"value"'),
    _deep("a trailing space deep in JSON", "list,2,deep", '"Value "'),
    _deep("order of a list in JSON", "list", '[2, 1, {{"deep": "Value"}}]'),
    _deep("a list in JSON cut short", "list", "[1, 2]"),
    _deep("a key moved out of a list deep in JSON", "nest", '{{"a": [1, {{}}], "b": 2}}'),
    _deep("the last digit of a long number in JSON", "number", "12345678901234567890.126"),
    _deep("a number as text deep in JSON", "count", '"7"'),
    _deep("a text as number deep in JSON", "digits", "8"),
    _deep("a flipped flag deep in JSON", "flag", "false"),
    _deep("a value for null deep in JSON", "none", "0"),
    Kind(
        "an absent key for null deep in JSON",
        "{v} #- '{{self-test,none}}'",
        "jsonb_typeof({v}) = 'object' AND {v} #> '{{self-test,none}}' IS NOT NULL",
    ),
)

KINDS: dict[str, tuple[Kind, ...]] = {
    "text": _TEXT,
    "integer": (*_INTEGER, _SIGN),
    "bigint": (*_INTEGER, _SIGN, _FOLDED),
    "numeric": (*_NUMERIC, _SIGN),
    "boolean": _BOOLEAN,
    "uuid": _UUID,
    "timestamptz": _TIME,
    "timestamp": _TIME,
    "jsonb": (*_JSON, *_OBJECT, *_KEYS, *_DEEP),
}
_REST = (*_OBJECT, *_DEEP)


def places(binding: Binding) -> Iterator[Place]:
    """Every place that the mapping writes, but for the key and the mark of origin."""
    mapping = binding.mapping
    for column in forward(binding, "s"):
        paths = dict(_paths(binding, column))
        base = mapping.base(column)
        if paths:
            nodes = dict.fromkeys(path[:length] for path in paths for length in range(len(path)))
            yield from (Place(str(JsonPath(column, path)), column, path, "jsonb", rest=True) for path in nodes)
            yield from (Place(str(JsonPath(column, path)), column, path, "jsonb") for path, own in paths.items() if own)
        elif base is not None and not base.origin and column != mapping.target.key:
            yield Place(column, column, (), mapping.target.columns[column].type.name, link=base.link)


def _paths(binding: Binding, column: str) -> Iterator[tuple[tuple[str, ...], bool]]:
    """The paths inside a column that rules write, and whether it is a value of its own that is compared there."""
    for field in binding.mapping.fields:
        if field.target == column and field.path:
            yield field.path, not field.origin
        if field.keep and field.keep.column == column:
            yield field.keep.keys, True


def value(binding: Binding, place: Place, live: Column) -> Sql:
    """What stands at a place of the target row ``t``; ``live`` is the target's column."""
    return _read(binding, place, sql.Identifier("t", place.column), live)


def _read(binding: Binding, place: Place, column: Sql, live: Column) -> Sql:
    declared = binding.mapping.target.columns[place.column].type.name
    read_as = read(column, live.type, declared)
    if place.path:
        return sql.SQL("({} #> {}::text[])").format(read_as, sql.Literal(list(place.path)))
    return sql.SQL('({} COLLATE "C")').format(read_as) if declared == "text" else sql.SQL("({})").format(read_as)


def changes(binding: Binding, place: Place, live: Column) -> Iterator[Change]:
    """All kinds that the type of a place allows; ``live`` is the target's column."""
    found = value(binding, place, live)
    for kind, made, when in _made(binding.mapping, place, found):
        new: Sql = sql.SQL("({})").format(made)
        after = new
        if place.type != "jsonb":
            # What the column makes of it: cut to its length, rounded to its precision.
            new = sql.SQL("{}::{}").format(new, sql.SQL(live.sql_type))
            after = _read(binding, place, new, live)
        # CASE: the change may fail on what it is not meant for.
        applies = sql.SQL("CASE WHEN {} THEN {} IS DISTINCT FROM {} ELSE false END").format(when, after, found)
        yield Change(kind, place, *_written(place, new, applies))
    if place.rest and place.path:
        gone = sql.SQL("({} IS NOT NULL)").format(found)
        yield Change("an object gone from JSON", place, *_written(place, sql.SQL("NULL::jsonb"), gone), alone=False)


def _made(mapping: Mapping, place: Place, found: Sql) -> Iterator[tuple[str, Sql, Sql]]:
    """Name, new value and condition of each kind; of a value map, further values that the target may have."""
    for kind in _REST if place.rest else KINDS[place.type]:
        yield kind.name, sql.SQL(kind.change).format(v=found), sql.SQL(kind.when).format(v=found)
    field = None if place.path else mapping.base(place.column)
    last = field.steps[-1] if field is not None and field.steps else None
    values = list(dict.fromkeys(last.values.values())) if isinstance(last, ValueMap) else []
    if isinstance(last, ValueMap) and len(values) > 1:
        one, other = (literal(one, last.gives) for one in values[:2])
        change = sql.SQL("CASE WHEN {} = {} THEN {} ELSE {} END").format(found, one, other, one)
        yield "another value of the map", change, sql.SQL("{} IS NOT NULL").format(found)


def _written(place: Place, new: Sql, applies: Sql) -> tuple[Sql, Sql]:
    """The whole column with ``new`` in its place, where the objects around it are there to hold it."""
    if not place.path:
        return new, applies
    column, path = sql.Identifier("t", place.column), sql.Literal(list(place.path))
    around = sql.Literal(list(place.path[:-1]))
    return (
        sql.SQL("CASE WHEN {new} IS NULL THEN {c} #- {p}::text[] ELSE jsonb_set({c}, {p}::text[], {new}) END").format(
            c=column, p=path, new=new
        ),
        sql.SQL("{} AND jsonb_typeof({} #> {}::text[]) = 'object'").format(applies, column, around),
    )
