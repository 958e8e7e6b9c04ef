"""The SQL forms of a bound mapping: forward, judge and inverse, as expressions over an aliased table.

Forward and judge read the legacy row under ``alias``; inverse reads the target row under ``alias``. The expressions
assume a session in UTC (timestamps inside JSON are written as text).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.catalog import Column
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.json_tree import Node
from spine_migrate.mapping.model import MISSING, Field, JsonPath
from spine_migrate.mapping.safe_cast import from_text
from spine_migrate.mapping.transforms.base import Refusal, Sql
from spine_migrate.mapping.transforms.shorten import Shorten
from spine_migrate.mapping.transforms.value_map import ValueMap
from spine_migrate.mapping.types import literal, of_constant, read, typename

# A \u0000 escape that is not itself escaped; json takes it, jsonb cannot hold it (PostgreSQL manual, 8.14).
_NUL_ESCAPE = r"(^|[^\\])(\\\\)*\\u0000"


@dataclass(frozen=True)
class Judgement:
    """One reason why a row cannot be carried, with the rule that says so."""

    field: Field
    refusal: Refusal


@dataclass(frozen=True)
class Leaf:
    """A place inside a JSON column of the target, and what a legacy row has there. ``sources``: the columns that decide
    it; ``condition``: for which rows there is anything, None for all.
    """

    place: JsonPath
    sources: frozenset[str]
    condition: Sql | None
    value: Sql


def forward_value(binding: Binding, field: Field, alias: str) -> Sql:
    """One field's value for a legacy row, before it is placed in a column or a JSON path; NULL where there is none."""
    value = _value(binding, field, alias)
    if field.column is None and (present := _present(binding, field, alias)) is not None:
        return sql.SQL("CASE WHEN {} THEN {} END").format(present, value)
    return value


def _value(binding: Binding, field: Field, alias: str) -> Sql:
    """The value for rows that have one; ``_present`` says which."""
    if field.origin:
        return literal(binding.mapping.name, "text")
    if field.constant is not MISSING:
        column = binding.mapping.target.columns[field.target].type.name
        return literal(field.constant, of_constant(field.constant) if field.path else column)
    return _after(field, binding.column(field.source, alias), len(field.steps))


def _after(field: Field, value: Sql, steps: int) -> Sql:
    """``value`` after the first ``steps`` steps of the pipeline."""
    for step in field.steps[:steps]:
        value = step.sql(value)
    return value


def forward(binding: Binding, alias: str) -> dict[str, Sql]:
    """Target column to expression, for every target column that the mapping produces, in the target's order."""
    bases = {field.target: field for field in binding.mapping.fields if not field.path}
    trees: dict[str, Node] = {}
    for leaf in leaves(binding, alias):
        trees.setdefault(leaf.place.column, Node()).put(leaf.place.keys, leaf.condition, leaf.value)
    columns: dict[str, Sql] = {}
    for name in binding.mapping.target.columns:
        parts = [forward_value(binding, bases[name], alias)] if name in bases else []
        if name in trees:
            parts.append(trees[name].expression())
        if parts:
            columns[name] = parts[0] if len(parts) == 1 else sql.SQL("({})").format(sql.SQL(" || ").join(parts))
    return columns


def leaves(binding: Binding, alias: str) -> Iterator[Leaf]:
    """Everything that the rules write or keep inside JSON columns of the target, for a legacy row."""
    for field in binding.mapping.fields:
        if field.path:
            sources = frozenset(one for one in (field.column, field.when_present) if one is not None)
            yield Leaf(
                JsonPath(field.target, field.path),
                sources,
                _present(binding, field, alias),
                _value(binding, field, alias),
            )
        if field.keep and field.column in binding.live:
            yield Leaf(field.keep, frozenset({field.source}), *kept(binding, field, alias))


def key(binding: Binding, alias: str) -> Sql:
    """The target key that a legacy row is moved under."""
    return forward_value(binding, binding.mapping.key_field, alias)


def key_from(binding: Binding, value: Sql) -> Sql:
    """The target key of a legacy key, an expression of the legacy column's type."""
    field, name = binding.mapping.key_field, binding.mapping.key
    logical = read(value, binding.live[name].type, binding.mapping.columns[name].type.name)
    return _after(field, logical, len(field.steps))


def is_ours(binding: Binding, alias: str) -> Sql:
    """Whether a target row carries this mapping's origin mark."""
    field = binding.mapping.origin
    return sql.SQL("{} = {}").format(
        _read(alias, JsonPath(field.target, field.path), "text"), sql.Literal(binding.mapping.name)
    )


def _present(binding: Binding, field: Field, alias: str) -> Sql | None:
    """When a field has a value at all, None if always; a JSON path is only written where it has."""
    if field.never_null(binding.never_null):
        return None
    if field.column is not None:
        return sql.SQL("{} IS NOT NULL").format(forward_value(binding, field, alias))
    return sql.SQL("{} IS NOT NULL").format(binding.column(str(field.when_present), alias))


def kept(binding: Binding, field: Field, alias: str) -> tuple[Sql | None, Sql]:
    """When and what a field keeps: the source value, wherever the field alone would not bring it back."""
    value = binding.column(field.source, alias)
    if not field.invertible:
        return (None if binding.never_null(field.source) else sql.SQL("{} IS NOT NULL").format(value)), value
    lossy = [number for number, step in enumerate(field.steps) if not step.lossless]
    if len(lossy) == 1:
        cheaper = field.steps[lossy[0]].loses(_after(field, value, lossy[0]))
        if cheaper is not None:
            return cheaper, value
    back = _after(field, value, len(field.steps))
    for step in reversed(field.steps):
        back = step.inverse_sql(back)
    return sql.SQL("{} IS DISTINCT FROM {}").format(value, back), value


def judgements(binding: Binding, alias: str) -> Iterator[Judgement]:
    """Everything that can keep a row from being carried, in the order in which it is asked.

    What the live catalog already rules out (a NOT NULL column, a length limit that fits) is not asked again.
    """
    for field in binding.mapping.fields:
        if field.column is not None and field.column in binding.live:
            yield from _field_judgements(binding, field, alias)
        elif field.column is not None and _needs_value(binding, field):
            yield Judgement(field, _is_null(sql.SQL("NULL"), field, binding))


def _field_judgements(binding: Binding, field: Field, alias: str) -> Iterator[Judgement]:
    column = field.source
    value = binding.column(column, alias)
    if binding.live[column].type == "json":
        yield Judgement(field, _nul_escape(sql.Identifier(alias, column), column))
    needs_value = _needs_value(binding, field)
    total = all(step.total for step in field.steps)
    if needs_value and total:
        yield Judgement(field, _is_null(value, field, binding))
    for step in field.steps:
        for refusal in step.refusals(value):
            yield Judgement(field, refusal)
        value = step.sql(value)
    if needs_value and not total:
        yield Judgement(field, _is_null(value, field, binding))
    if field.path:
        return
    limit = binding.mapping.target.columns[field.target].type.length
    bounded = bool(field.steps) and isinstance(field.steps[-1], Shorten)
    if limit is not None and not bounded and not _fits(binding, field, limit):
        yield Judgement(field, _too_long(value, limit, column))
    if overlay := binding.mapping.overlay(field.target):
        yield Judgement(field, _not_an_object(value, column))
        yield Judgement(field, _key_in_use(value, overlay, column))


def _needs_value(binding: Binding, field: Field) -> bool:
    """Whether the target column cannot be NULL, but the field's value can."""
    not_null = binding.mapping.target.columns[field.target].not_null and not field.path
    return not_null and not field.never_null(binding.never_null)


def _fits(binding: Binding, field: Field, limit: int) -> bool:
    if field.steps and isinstance(last := field.steps[-1], ValueMap) and not last.others_pass:
        return all(len(value) <= limit for value in last.values.values())
    return not field.steps and field.column is not None and binding.fits(field.column, limit)


def _is_null(value: Sql, field: Field, binding: Binding) -> Refusal:
    sentence = f"{field.source} is NULL, but {binding.mapping.target.name}.{field.target} needs a value"
    if not all(step.total for step in field.steps):
        sentence = f"{field.source} has nothing there, but {binding.mapping.target.name}.{field.target} needs a value"
    return Refusal("null_value", sql.SQL("{} IS NULL").format(value), literal(sentence, "text"))


def _too_long(value: Sql, limit: int, column: str) -> Refusal:
    return Refusal(
        "too_long",
        # Characters are counted, bytes are known: most values need no counting.
        sql.SQL("(octet_length({0}) > {1} AND length({0}) > {1})").format(value, sql.Literal(limit)),
        sql.SQL("format({}, length({}))").format(
            sql.Literal(f"{_in_format(column)} has %s characters, the target takes {limit}"), value
        ),
    )


def _nul_escape(raw: Sql, column: str) -> Refusal:
    return Refusal(
        "bad_value",
        sql.SQL("{}::text ~ {}").format(raw, sql.Literal(_NUL_ESCAPE)),
        literal(f"{column} holds \\u0000, which jsonb cannot", "text"),
    )


def _not_an_object(value: Sql, column: str) -> Refusal:
    return Refusal(
        "bad_value",
        sql.SQL("jsonb_typeof({}) <> 'object'").format(value),
        sql.SQL("format({}, jsonb_typeof({}))").format(
            sql.Literal(f"{_in_format(column)} is a JSON %s, but keys are added to it, so it must be an object"), value
        ),
    )


def _key_in_use(value: Sql, keys: list[str], column: str) -> Refusal:
    return Refusal(
        "bad_value",
        sql.SQL("{} ?| {}::text[]").format(value, sql.Literal(keys)),
        literal(f"{column} already has one of the keys that the mapping adds: {', '.join(keys)}", "text"),
    )


def _in_format(text: str) -> str:
    """Text that is part of a format string of PostgreSQL's format()."""
    return text.replace("%", "%%")


def verdict(found: list[Judgement], part: str) -> Sql:
    """One CASE over all judgements, NULL for a row that passes; ``part`` is ``reason``, ``field`` or ``detail``."""
    if not found:
        return sql.SQL("NULL::text")
    results: dict[str, list[Sql]] = {
        "reason": [literal(one.refusal.reason, "text") for one in found],
        "field": [literal(one.field.name, "text") for one in found],
        "detail": [one.refusal.detail for one in found],
    }
    return sql.SQL("CASE {} END").format(
        sql.SQL(" ").join(
            sql.SQL("WHEN {} THEN {}").format(one.refusal.condition, result)
            for one, result in zip(found, results[part], strict=True)
        )
    )


def _read(alias: str, path: JsonPath, kind: str, live: Column | None = None, *, checked: bool = False) -> Sql:
    """The value at a place of the target row, in a logical type; ``live`` says which where the mapping says any.
    NULL where what stands there is no such value; ``checked`` as for ``safe_cast.from_text``.
    """
    column = sql.Identifier(alias, path.column)
    if not path.keys:
        return column
    keys = sql.Literal(list(path.keys))
    if kind == "jsonb" or (kind == "any" and live is not None and live.type in ("json", "jsonb")):
        return sql.SQL("({} #> {}::text[])").format(column, keys)
    text = sql.SQL("({} #>> {}::text[])").format(column, keys)
    if kind == "text":
        return text
    if live is None or kind != "any":
        return from_text(text, kind, typename(kind), checked=checked, json=True)
    return from_text(text, live.type, sql.SQL(live.sql_type), checked=checked, json=True)


def inverse(
    binding: Binding, alias: str, *, absent: Callable[[Field], Sql | None] | None = None, checked: bool = False
) -> dict[str, Sql]:
    """Source column to expression over a target row, for every source column that is really there.

    A dropped column, or one whose only carrier is lossy beyond inversion, is NULL, and so is what a target row that is
    not ours has in a form that no legacy row leads to. ``absent``: what a field's column stands for where it is NULL;
    ``checked`` as for ``safe_cast.from_text``.
    """
    return {
        name: _inverse_column(binding, name, alias, absent, checked=checked)
        for name in binding.mapping.columns
        if name in binding.live
    }


def _inverse_column(
    binding: Binding, name: str, alias: str, absent: Callable[[Field], Sql | None] | None, *, checked: bool
) -> Sql:
    kind = binding.mapping.columns[name].type.name
    live = binding.live[name]
    field = binding.mapping.carrier(name)
    if field is None:
        return sql.SQL("NULL")
    if field.keep is not None and not field.invertible:
        return _read(alias, field.keep, kind, live, checked=checked)
    gives = binding.mapping.gives(field)
    value = _read(alias, JsonPath(field.target, field.path), gives, live, checked=checked)
    if absent is not None and (stands_for := absent(field)) is not None:
        value = sql.SQL("coalesce({}, {})").format(value, stands_for)
    if not field.path and (keys := binding.mapping.overlay(field.target)):
        value = sql.SQL("CASE WHEN jsonb_typeof({0}) = 'object' THEN {0} - {1}::text[] ELSE {0} END").format(
            value, sql.Literal(keys)
        )
    for step in reversed(field.steps):
        value = step.inverse_sql(value)
    if field.keep is None:
        return value
    place = _read(alias, field.keep, "jsonb")
    kept = _read(alias, field.keep, kind, live, checked=checked)
    if kind == "jsonb":
        # Only a NULL is kept as null here: a JSON null comes through the steps over jsonb unchanged.
        kept = sql.SQL("NULLIF({}, 'null'::jsonb)").format(kept)
    return sql.SQL("CASE WHEN {} IS NOT NULL THEN {} ELSE {} END").format(place, kept, value)
