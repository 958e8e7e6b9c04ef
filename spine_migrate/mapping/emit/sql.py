"""The SQL forms of a bound mapping: forward, judge and inverse, as expressions over an aliased table.

Forward and judge read the legacy row under ``alias``; inverse reads the target row under ``alias``. The expressions assume
a session in UTC (timestamps inside JSON are written as text).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql

from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.json_tree import Node
from spine_migrate.mapping.model import MISSING, Field, JsonPath
from spine_migrate.mapping.transforms.base import Refusal, Sql
from spine_migrate.mapping.transforms.shorten import Shorten
from spine_migrate.mapping.transforms.value_map import ValueMap
from spine_migrate.mapping.types import literal, of_constant, typename

# A \u0000 escape that is not itself escaped; json takes it, jsonb cannot hold it (PostgreSQL manual, 8.14).
_NUL_ESCAPE = r"(^|[^\\])(\\\\)*\\u0000"


@dataclass(frozen=True)
class Judgement:
    """One reason why a row cannot be carried, with the rule that says so."""

    field: Field
    refusal: Refusal


def forward_value(binding: Binding, field: Field, alias: str) -> Sql:
    """One field's value for a legacy row, before it is placed in a column or a JSON path."""
    if field.origin:
        return literal(binding.mapping.name, "text")
    if field.constant is not MISSING:
        return literal(field.constant, of_constant(field.constant))
    assert field.column is not None
    value = binding.column(field.column, alias)
    for step in field.steps:
        value = step.sql(value)
    return value


def forward(binding: Binding, alias: str) -> dict[str, Sql]:
    """Target column to expression, for every target column that the mapping produces, in the target's order."""
    bases: dict[str, Field] = {}
    trees: dict[str, Node] = {}
    for field in binding.mapping.fields:
        if field.path:
            trees.setdefault(field.target, Node()).put(
                field.path, _present(binding, field, alias), forward_value(binding, field, alias)
            )
        else:
            bases[field.target] = field
        if field.keep and field.column in binding.live:
            condition, value = _kept(binding, field, alias)
            trees.setdefault(field.keep.column, Node()).put(field.keep.keys, condition, value)
    columns: dict[str, Sql] = {}
    for name in binding.mapping.target.columns:
        parts = [forward_value(binding, bases[name], alias)] if name in bases else []
        if name in trees:
            parts.append(trees[name].expression())
        if parts:
            columns[name] = parts[0] if len(parts) == 1 else sql.SQL("({})").format(sql.SQL(" || ").join(parts))
    return columns


def key(binding: Binding, alias: str) -> Sql:
    """The target key that a legacy row is moved under."""
    return forward_value(binding, binding.mapping.key_field, alias)


def is_ours(binding: Binding, alias: str) -> Sql:
    """Whether a target row carries this mapping's origin mark."""
    field = binding.mapping.origin
    return sql.SQL("{} = {}").format(
        _read(alias, JsonPath(field.target, field.path), "text"), sql.Literal(binding.mapping.name)
    )


def _present(binding: Binding, field: Field, alias: str) -> Sql | None:
    """When a JSON path is written at all: a NULL is not."""
    if field.column is not None:
        if binding.never_null(field.column) and field.invertible:
            return None
        return sql.SQL("{} IS NOT NULL").format(forward_value(binding, field, alias))
    if field.when_present is not None and not binding.never_null(field.when_present):
        return sql.SQL("{} IS NOT NULL").format(binding.column(field.when_present, alias))
    return None


def _kept(binding: Binding, field: Field, alias: str) -> tuple[Sql | None, Sql]:
    """When and what a field keeps: the source value, wherever the field alone would not bring it back."""
    assert field.column is not None
    value = binding.column(field.column, alias)
    if not field.invertible:
        return (None if binding.never_null(field.column) else sql.SQL("{} IS NOT NULL").format(value)), value
    back = forward_value(binding, field, alias)
    for step in reversed(field.steps):
        back = step.inverse_sql(back)
    return sql.SQL("{} IS DISTINCT FROM {}").format(value, back), value


def judgements(binding: Binding, alias: str) -> Iterator[Judgement]:
    """Everything that can keep a row from being carried, in the order in which it is asked.

    What the live catalog already rules out (a NOT NULL column, a length limit that fits) is not asked again.
    """
    for field in binding.mapping.fields:
        if field.column is None or field.column not in binding.live:
            yield from _missing_column(binding, field)
            continue
        value = binding.column(field.column, alias)
        target = binding.mapping.target.columns[field.target]
        declared = binding.mapping.columns[field.column]
        if binding.live[field.column].type == "json":
            raw = sql.Identifier(alias, field.column)
            yield Judgement(field, _nul_escape(raw, field.column))
        never_null = binding.never_null(field.column) or any(not step.strict for step in field.steps)
        if target.not_null and not field.path and not never_null:
            yield Judgement(field, _is_null(value, field.column, f"{binding.mapping.target.name}.{target.name}"))
        for step in field.steps:
            for refusal in step.refusals(value):
                yield Judgement(field, refusal)
            value = step.sql(value)
        limit = target.type.length if not field.path else None
        bounded = bool(field.steps) and isinstance(field.steps[-1], Shorten)
        if limit is not None and not bounded and not _fits(binding, field, limit):
            yield Judgement(field, _too_long(value, limit, field.column))
        if declared.type.name == "jsonb" and not field.path and (overlay := _overlay_keys(binding, field.target)):
            yield Judgement(field, _not_an_object(value, field.column))
            yield Judgement(field, _key_in_use(value, overlay, field.column))


def _missing_column(binding: Binding, field: Field) -> Iterator[Judgement]:
    """An optional column that is not there reads as NULL, which a NOT NULL target cannot take."""
    target = binding.mapping.target.columns[field.target]
    defaulted = any(not step.strict for step in field.steps)
    if field.column is not None and target.not_null and not field.path and not defaulted:
        null = sql.SQL("NULL")
        yield Judgement(field, _is_null(null, field.column, f"{binding.mapping.target.name}.{target.name}"))


def _fits(binding: Binding, field: Field, limit: int) -> bool:
    if field.steps and isinstance(last := field.steps[-1], ValueMap) and not last.others_pass:
        return all(len(value) <= limit for value in last.values.values())
    return not field.steps and field.column is not None and binding.fits(field.column, limit)


def _is_null(value: Sql, column: str, target: str) -> Refusal:
    sentence = f"{column} is NULL, but {target} needs a value"
    return Refusal("null_value", sql.SQL("{} IS NULL").format(value), literal(sentence, "text"))


def _too_long(value: Sql, limit: int, column: str) -> Refusal:
    return Refusal(
        "too_long",
        sql.SQL("length({}) > {}").format(value, sql.Literal(limit)),
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


def _overlay_keys(binding: Binding, column: str) -> list[str]:
    """The top-level keys that other rules write into a JSON column."""
    keys: dict[str, None] = {}
    for field in binding.mapping.fields:
        if field.target == column and field.path:
            keys[field.path[0]] = None
        if field.keep and field.keep.column == column:
            keys[field.keep.keys[0]] = None
    return list(keys)


def verdict(found: list[Judgement], part: str) -> Sql:
    """One CASE over all judgements, NULL for a row that can be carried. ``part`` is ``reason``, ``field`` or ``detail``."""
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


def _read(alias: str, path: JsonPath, kind: str, live: str | None = None) -> Sql:
    """The value at a place of the target row, in a logical type; ``live`` is the real type where the mapping says any."""
    column = sql.Identifier(alias, path.column)
    if not path.keys:
        return column
    keys = sql.Literal(list(path.keys))
    if kind == "jsonb":
        return sql.SQL("({} #> {}::text[])").format(column, keys)
    text = sql.SQL("({} #>> {}::text[])").format(column, keys)
    if kind == "text":
        return text
    cast = sql.SQL(live or "text") if kind == "any" else typename(kind)
    return sql.SQL("{}::{}").format(text, cast)


def inverse(binding: Binding, alias: str) -> dict[str, Sql]:
    """Source column to expression over a target row, for every source column that is really there.

    A dropped column, or one whose only carrier is lossy beyond inversion, is NULL.
    """
    return {name: _inverse_column(binding, name, alias) for name in binding.mapping.columns if name in binding.live}


def _inverse_column(binding: Binding, name: str, alias: str) -> Sql:
    kind = binding.mapping.columns[name].type.name
    live = binding.live[name].sql_type
    field = binding.mapping.carrier(name)
    if field is None:
        return sql.SQL("NULL")
    gives = field.steps[-1].gives if field.steps else kind
    value = _read(alias, JsonPath(field.target, field.path), gives, live)
    if not field.path and gives == "jsonb" and (keys := _overlay_keys(binding, field.target)):
        value = sql.SQL("({} - {}::text[])").format(value, sql.Literal(keys))
    for step in reversed(field.steps):
        value = step.inverse_sql(value)
    if field.keep is None:
        return value
    place = _read(alias, field.keep, "jsonb")
    kept = _read(alias, field.keep, kind, live)
    if kind == "jsonb":
        kept = sql.SQL("NULLIF({}, 'null'::jsonb)").format(kept)
    if not field.invertible:
        return kept
    return sql.SQL("CASE WHEN {} IS NOT NULL THEN {} ELSE {} END").format(place, kept, value)
