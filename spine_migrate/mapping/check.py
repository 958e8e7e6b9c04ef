"""Is a mapping complete? Every column accounted for, every NOT NULL produced, types and lengths in order."""

from __future__ import annotations

from collections.abc import Iterator

from spine_migrate.errors import MappingError
from spine_migrate.mapping.model import MISSING, Field, Mapping
from spine_migrate.mapping.types import of_constant


def gives(field: Field, mapping: Mapping) -> str:
    """The logical type that a field's pipeline ends in."""
    if field.origin:
        return "text"
    if field.constant is not MISSING:
        return of_constant(field.constant)
    if field.steps:
        return field.steps[-1].gives
    return mapping.columns[field.column].type.name  # type: ignore[index]  # copy is the only start left


def problems(mapping: Mapping) -> Iterator[MappingError]:
    """Each thing that keeps the mapping from being complete, in file order."""
    for field in mapping.fields:
        yield from _field_problems(field, mapping)
    yield from _overlaps(mapping)
    yield from _source_problems(mapping)
    yield from _target_problems(mapping)


def _problem(field: Field, message: str) -> MappingError:
    return MappingError(message, file=field.place.file, path=field.place.key, line=field.place.line)


def _field_problems(field: Field, mapping: Mapping) -> Iterator[MappingError]:
    column = mapping.target.columns[field.target]
    kind = gives(field, mapping)
    if not field.path and kind != column.type.name:
        yield _problem(field, f"gives {kind}, but {mapping.target.name}.{column.name} is {column.type}; add a 'cast'")
    if isinstance(field.constant, str) and not field.path and column.type.length is not None:
        if len(field.constant) > column.type.length:
            yield _problem(field, f"the constant has {len(field.constant)} characters, {column.type} takes fewer")
    if field.origin and not field.path and column.type.length is not None and len(mapping.name) > column.type.length:
        yield _problem(field, f"the origin mark {mapping.name!r} is longer than {column.type}")
    if field.column is not None and not field.lossless and not (field.keep or field.lossy):
        if mapping.carrier(field.column) is None:
            yield _problem(field, "loses part of the value; say where to 'keep' it, or why it may be 'lossy'")
    if field.keep and field.column is None:
        yield _problem(field, "'keep' needs a 'copy' to keep")
    if field.link and field.path:
        yield _problem(field, "a link must be a column of its own")
    if field.link and mapping.target.columns[field.target].type != mapping.target.columns[mapping.target.key].type:
        yield _problem(field, f"a link must have the type of {mapping.target.key}")


def _paths(mapping: Mapping) -> Iterator[tuple[Field, str, tuple[str, ...]]]:
    for field in mapping.fields:
        yield field, field.target, field.path
        if field.keep:
            yield field, field.keep.column, field.keep.keys


def _overlaps(mapping: Mapping) -> Iterator[MappingError]:
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
    for field in mapping.fields:
        inside = any(column == field.target and path for _, column, path in _paths(mapping))
        base = mapping.target.columns[field.target].type.name == "jsonb" and not field.path and inside
        if base and field.column is not None:
            never_null = mapping.columns[field.column].not_null or any(not step.strict for step in field.steps)
            if not never_null:
                yield _problem(field, "paths are written into this column, so it must not be NULL; add 'default = {}'")
        elif base and not isinstance(field.constant, dict):
            yield _problem(field, "paths are written into this column, so the constant must be a table")


def _source_problems(mapping: Mapping) -> Iterator[MappingError]:
    file = mapping.file
    for column in mapping.columns.values():
        if column.name in mapping.dropped:
            if any(mapping.carriers(column.name)):
                yield MappingError("is dropped, but a field copies it", file=file, path=f"dropped.{column.name}")
            continue
        if not any(mapping.carriers(column.name)):
            yield MappingError(
                "no field copies this column; map it, or list it under [dropped] with the reason",
                file=file,
                path=f"source.columns.{column.name}",
            )
        elif mapping.carrier(column.name) is None:
            yield MappingError(
                "no field brings this column back; add 'keep' or 'lossy' to one of them",
                file=file,
                path=f"source.columns.{column.name}",
            )


def _target_problems(mapping: Mapping) -> Iterator[MappingError]:
    file = mapping.file
    produced = {field.target: field for field in mapping.fields}
    for column in mapping.target.columns.values():
        if column.not_null and column.name not in produced and not column.has_default:
            yield MappingError(
                f"{mapping.target.name}.{column.name} is NOT NULL and nothing produces it", file=file, path="fields"
            )
    key = next((field for field in mapping.fields if field.name == mapping.target.key), None)
    if key is None or key.column != mapping.key:
        yield MappingError(
            f"{mapping.target.key} must come from the source key {mapping.key}", file=file, path="fields"
        )
    elif any(not step.strict for step in key.steps):
        yield _problem(key, "the key must not have a default")
    marks = [field for field in mapping.fields if field.origin]
    if len(marks) != 1:
        yield MappingError(
            "exactly one field must carry 'origin = true', so that moved rows can be told from others",
            file=file,
            path="fields",
        )
