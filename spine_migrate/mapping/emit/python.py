"""The Python form of a mapping: the same lens as the SQL forms, held to them by property tests."""

from __future__ import annotations

from collections.abc import Mapping as Row
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from spine_migrate.errors import MappingError, RowRejected
from spine_migrate.mapping.emit.json_value import from_json, to_json
from spine_migrate.mapping.json_null import JSON_NULL
from spine_migrate.mapping.model import Field, JsonPath, Mapping
from spine_migrate.mapping.transforms.base import apply, refused, unapply


def compile_python(mapping: Mapping) -> PythonForm:
    return PythonForm(mapping)


@dataclass(frozen=True)
class PythonForm:
    """A mapping's forward, judge and inverse over rows as psycopg loads them.

    Three things psycopg's values cannot say: a JSON null is None, like NULL, unless the caller writes ``JSON_NULL``; an
    infinite timestamp is the string ``infinity`` or ``-infinity``; a numeric inside JSON is an int or a float.
    """

    mapping: Mapping

    def judge(self, row: Row[str, Any]) -> tuple[str, str] | None:
        """Why the row cannot be carried: the reason code and the field, as quarantine has them; None where it can.

        Raises MappingError for a row with missing or unknown columns.
        """
        self._require_columns(row)
        for field in self.mapping.fields:
            if field.column is not None and (reason := self._refuse(field, row.get(field.column))) is not None:
                return reason, field.name
        return None

    def to_run_record(self, row: Row[str, Any]) -> dict[str, Any]:
        """Target column to value, for every target column that the mapping produces.

        Raises RowRejected where ``judge`` gives a reason, MappingError as it does.
        """
        if (verdict := self.judge(row)) is not None:
            reason, name = verdict
            rule = next(field.rule for field in self.mapping.fields if field.name == name)
            raise RowRejected(reason, name, rule)
        produced = self.mapping.produced
        record: dict[str, Any] = {}
        for name in self.mapping.target.columns:
            if name in produced:
                base = self.mapping.base(name)
                record[name] = _value(self.mapping, base, row) if base is not None else {}
                if self.mapping.overlay(name):
                    record[name] = {**record[name], **self._tree(name, produced[name], row)}
        return record

    def from_run_record(self, record: Row[str, Any]) -> dict[str, Any]:
        """The legacy row, with every declared column; None for one that is dropped or was not there."""
        return {name: self._inverse(name, record) for name in self.mapping.columns}

    def _require_columns(self, row: Row[str, Any]) -> None:
        for name, column in self.mapping.columns.items():
            if name not in row and not column.optional:
                raise self._wrong_row(name, "is missing from the row")
        for name in row:
            if name not in self.mapping.columns:
                raise self._wrong_row(name, "is in the row, but in no rule of the mapping")

    def _wrong_row(self, name: str, message: str) -> MappingError:
        return MappingError(message, file=self.mapping.file, path=f"source.columns.{name}")

    def _refuse(self, field: Field, value: Any) -> str | None:
        target = self.mapping.target.columns[field.target]
        total = all(step.total for step in field.steps)
        needs_value = target.not_null and not field.path
        if self.mapping.columns[field.source].type.name in ("jsonb", "any") and _holds_nul(value):
            return "bad_value"
        if needs_value and total and value is None and not field.never_null(lambda _: False):
            return "null_value"
        if (reason := refused(field.steps, value)) is not None:
            return reason
        value = apply(field.steps, value)
        if needs_value and value is None:
            return "null_value"
        return None if field.path else self._does_not_fit(field, value)

    def _does_not_fit(self, field: Field, value: Any) -> str | None:
        length = self.mapping.target.columns[field.target].type.length
        if length is not None and value is not None and len(value) > length:
            return "too_long"
        overlay = self.mapping.overlay(field.target)
        if overlay and (not isinstance(value, dict) or any(key in value for key in overlay)):
            return "bad_value"
        return None

    def _tree(self, column: str, fields: list[Field], row: Row[str, Any]) -> dict[str, Any]:
        """The keys that rules write into a JSON column."""
        tree: dict[str, Any] = {}
        for field in fields:
            if field.target == column and field.path:
                value = _value(self.mapping, field, row)
                if value is not None:
                    _put(tree, field.path, value)
            if field.keep is not None and field.keep.column == column and _lost(field, row):
                _put(tree, field.keep.keys, row[field.source])
        return tree

    def _inverse(self, name: str, record: Row[str, Any]) -> Any:
        kind = self.mapping.columns[name].type.name
        field = self.mapping.carrier(name)
        if field is None:
            return None
        if field.keep is not None:
            found, kept = _read(record, field.keep)
            if not field.invertible:
                return _loaded(kept, kind) if found else None
            if found:
                return None if kept is None else from_json(kept, kind)
        found, value = _read(record, JsonPath(field.target, field.path))
        if field.path:
            value = _loaded(value, self.mapping.gives(field)) if found else None
        elif keys := self.mapping.overlay(field.target):
            value = {key: inner for key, inner in (value or {}).items() if key not in keys}
        return unapply(field.steps, value)


def _value(mapping: Mapping, field: Field, row: Row[str, Any]) -> Any:
    if field.column is not None:
        return apply(field.steps, row.get(field.column))
    if field.when_present is not None and row.get(field.when_present) is None:
        return None
    return mapping.name if field.origin else deepcopy(field.constant)


def _lost(field: Field, row: Row[str, Any]) -> bool:
    """Whether the field alone does not bring the source value back; a column that is not there has nothing to lose."""
    if field.column not in row:
        return False
    value = row[field.source]
    if not field.invertible:
        return value is not None
    back = unapply(field.steps, apply(field.steps, value))
    return bool(back != value)


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = to_json(value)


def _read(record: Row[str, Any], path: JsonPath) -> tuple[bool, Any]:
    """Whether the place is there, and what it holds."""
    value: Any = record
    for key in (path.column, *path.keys):
        if not isinstance(value, Row) or key not in value:
            return False, None
        value = value[key]
    return True, value


def _loaded(value: Any, kind: str) -> Any:
    """What the server reads from a JSON value that is there: null is a value of jsonb, and NULL for other types.

    In an undeclared column only a jsonb value can have written it.
    """
    if value is None:
        return JSON_NULL if kind in ("jsonb", "any") else None
    return from_json(value, kind)


def _holds_nul(value: Any) -> bool:
    """U+0000, which a json column can hold and jsonb cannot."""
    match value:
        case str():
            return "\0" in value
        case dict():
            return any("\0" in key or _holds_nul(inner) for key, inner in value.items())
        case list():
            return any(_holds_nul(inner) for inner in value)
    return False
