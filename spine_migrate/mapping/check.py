"""Is a mapping complete? Every column accounted for, every NOT NULL produced, types and lengths in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from spine_migrate.errors import MappingError
from spine_migrate.mapping.locate import line_of
from spine_migrate.mapping.model import MISSING, Field, Mapping
from spine_migrate.mapping.path import join, split
from spine_migrate.mapping.transforms.base import apply, refused
from spine_migrate.mapping.transforms.cast import Cast
from spine_migrate.mapping.transforms.default import Default
from spine_migrate.mapping.transforms.offset import Offset
from spine_migrate.mapping.transforms.shorten import Shorten
from spine_migrate.mapping.transforms.uuid_from import UuidFrom
from spine_migrate.mapping.transforms.value_map import ValueMap
from spine_migrate.mapping.types import becomes

_Problem = tuple[tuple[str, ...], str]
"""A key path of the file, and what is wrong there."""

_KEY_STEPS = (Offset, UuidFrom, Cast)


def problems(mapping: Mapping) -> Iterator[MappingError]:
    """Each thing that keeps the mapping from being complete, field by field, then the mapping as a whole."""
    for path, message in _problems(mapping):
        yield MappingError(message, file=mapping.file, path=join(path), line=line_of(mapping.lines, path))


def _problems(mapping: Mapping) -> Iterator[_Problem]:
    for field in mapping.fields:
        yield from _type_problems(field, mapping)
        yield from _way_back_problems(field, mapping)
        yield from _link_problems(field, mapping)
    yield from _overlaps(mapping)
    yield from _overlays(mapping)
    yield from _source_problems(mapping)
    yield from _target_problems(mapping)
    yield from _key_problems(mapping)


def _problem(field: Field, message: str, *key: str) -> _Problem:
    return (*split(field.place.key), *key), message


def _declared_not_null(mapping: Mapping, column: str) -> bool:
    return mapping.columns[column].not_null


def _never_null(field: Field, mapping: Mapping) -> bool:
    return field.never_null(lambda column: _declared_not_null(mapping, column))


def _type_problems(field: Field, mapping: Mapping) -> Iterator[_Problem]:
    column = mapping.target.columns[field.target]
    kind = mapping.gives(field)
    if not field.path and kind != column.type.name:
        constant = field.constant is not MISSING and becomes(kind, column.type.name)
        if not constant:
            hint = "" if field.column is None else "; add a 'cast'"
            yield _problem(field, f"gives {kind}, but {mapping.target.name}.{column.name} is {column.type}{hint}")
    if not field.path and column.type.length is not None:
        yield from _length_problems(field, mapping, column.type.length)
    for number, step in enumerate(field.steps):
        if isinstance(step, Default) and (reason := refused(field.steps[number + 1 :], step.value)) is not None:
            yield _problem(field, f"{step.value!r} is refused by the steps after it ({reason})", "default")


def _length_problems(field: Field, mapping: Mapping, length: int) -> Iterator[_Problem]:
    """What the mapping itself writes must fit; what rows hold is judged row by row."""
    written: list[tuple[Any, tuple[str, ...]]] = []
    if isinstance(field.constant, str):
        written.append((field.constant, ("constant",)))
    if field.origin:
        written.append((mapping.name, ("origin",)))
    shortened = any(isinstance(step, Shorten) for step in field.steps)
    for number, step in enumerate(field.steps if not shortened else ()):
        rest = field.steps[number + 1 :]
        if isinstance(step, Default) and refused(rest, step.value) is None:
            written.append((apply(rest, step.value), ("default",)))
        if isinstance(step, ValueMap):
            written.extend(
                (apply(rest, new), ("values", str(step.back[new]))) for new in step.back if refused(rest, new) is None
            )
    for text, key in written:
        if isinstance(text, str) and len(text) > length:
            yield _problem(field, f"{text!r} has {len(text)} characters, the target takes {length}", *key)


def _way_back_problems(field: Field, mapping: Mapping) -> Iterator[_Problem]:
    if field.column is not None and field.exact and (field.keep or field.lossy):
        key = "keep" if field.keep else "lossy"
        yield _problem(field, "nothing is lost here: the value comes back from the field itself", key)
    elif field.keep and field.lossy:
        yield _problem(field, "the whole value is kept, so nothing is lost; leave one of the two out", "lossy")
    elif field.column is not None and not field.exact and mapping.carrier(field.column) is None:
        yield _problem(field, "loses part of the value; say where to 'keep' it, or why it may be 'lossy'")


def _link_problems(field: Field, mapping: Mapping) -> Iterator[_Problem]:
    column = mapping.target.columns[field.target]
    if field.link:
        if field.path:
            yield _problem(field, "a link must be a column of its own", "link")
        if column.type != mapping.target.columns[mapping.target.key].type:
            yield _problem(field, f"a link must have the type of {mapping.target.key}", "link")
        if column.not_null or column.name == mapping.target.key:
            yield _problem(field, "a link is completed after the load, so its column must be able to be NULL", "link")
    if field.requires is not None:
        if "/" not in field.requires:
            yield _problem(field, "name a mapping as <app>/<entity>, such as 'capture-spine/executions'", "requires")
        if field.path or field.link:
            yield _problem(field, "'requires' needs a column of its own that is no link", "requires")
        if field.requires == mapping.name:
            yield _problem(field, "a row of the same mapping is a 'link', not a requirement", "requires")
        if mapping.required is not field:
            yield _problem(field, "only one field can require another mapping", "requires")


def _paths(mapping: Mapping) -> Iterator[tuple[Field, str, tuple[str, ...]]]:
    for field in mapping.fields:
        yield field, field.target, field.path
        if field.keep:
            yield field, field.keep.column, field.keep.keys


def _overlaps(mapping: Mapping) -> Iterator[_Problem]:
    """Two rules must not write one place; a whole JSON column and paths inside it may stand together."""
    seen: list[tuple[Field, str, tuple[str, ...]]] = []
    for field, column, path in _paths(mapping):
        for other, other_column, other_path in seen:
            if column != other_column:
                continue
            short, long = sorted((path, other_path), key=len)
            if path == other_path or (short and long[: len(short)] == short):
                yield _problem(field, f"writes where {other.place.key} already writes")
        seen.append((field, column, path))


def _overlays(mapping: Mapping) -> Iterator[_Problem]:
    """A whole JSON column with paths inside it must be an object, and the keys must be free."""
    for field in mapping.fields:
        keys = mapping.overlay(field.target)
        if field.path or not keys:
            continue
        if field.column is not None and not _never_null(field, mapping):
            yield _problem(field, "paths are written into this column, so it must not be NULL; add 'default = {}'")
        elif field.column is None and not isinstance(field.constant, dict):
            yield _problem(field, "paths are written into this column, so the constant must be a table", "constant")
        elif isinstance(field.constant, dict) and (taken := [key for key in keys if key in field.constant]):
            yield _problem(field, f"the constant has the key {taken[0]!r}, which another rule writes", "constant")
        elif field.when_present is not None:
            yield _problem(field, "paths are written into this column, so it must not be NULL", "when_present")
        for step in field.steps:
            if isinstance(step, Default) and not isinstance(step.value, dict):
                yield _problem(field, "paths are written into this column, so it must be a table", "default")
            elif isinstance(step, Default) and (taken := [key for key in keys if key in step.value]):
                yield _problem(field, f"the default has the key {taken[0]!r}, which another rule writes", "default")


def _source_problems(mapping: Mapping) -> Iterator[_Problem]:
    for column in mapping.columns.values():
        place = ("source", "columns", column.name)
        if column.optional and column.not_null:
            yield place, "cannot be both 'optional' and 'not_null': where it is missing it is NULL"
        if column.name in mapping.dropped:
            if any(mapping.carriers(column.name)):
                yield ("dropped", column.name), "is dropped, but a field copies it"
        elif not any(mapping.carriers(column.name)):
            yield place, "no field copies this column; map it, or list it under [dropped] with the reason"


def _target_problems(mapping: Mapping) -> Iterator[_Problem]:
    produced = mapping.produced
    for column in mapping.target.columns.values():
        name = f"{mapping.target.name}.{column.name}"
        base = mapping.base(column.name)
        if column.not_null and column.name not in produced and not column.has_default:
            yield ("fields",), f"{name} is NOT NULL and nothing produces it"
        if column.not_null and base is not None and base.column is None and not _never_null(base, mapping):
            yield _problem(base, f"{name} is NOT NULL, so its constant cannot depend on another column", "when_present")
    marks = [field for field in mapping.fields if field.origin]
    if len(marks) != 1:
        yield ("fields",), "exactly one field must carry 'origin = true', so that moved rows can be told from others"


def _key_problems(mapping: Mapping) -> Iterator[_Problem]:
    name = mapping.target.key
    key = mapping.base(name)
    if key is None or key.column != mapping.key:
        path = ("fields",) if key is None else (*split(key.place.key), "copy")
        yield path, f"{name} must come from the source key {mapping.key}"
    elif not all(isinstance(step, _KEY_STEPS) for step in key.steps):
        yield _problem(key, "only 'plus', 'uuid' and 'cast' may work on the key, since two rows must not become one")
