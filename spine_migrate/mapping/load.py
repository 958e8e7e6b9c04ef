"""From a mapping file to the model. What a key means is documented in ``mappings/mapping.schema.json``."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from spine_migrate.errors import MappingError
from spine_migrate.mapping.check import problems
from spine_migrate.mapping.document import Table, nearest, open_document
from spine_migrate.mapping.field import load_field
from spine_migrate.mapping.model import Mapping, SourceColumn, TargetColumn, TargetTable
from spine_migrate.mapping.types import Type, parse
from spine_migrate.resources import mappings_dir

_PROSE = ("title", "$schema")


def shipped() -> list[str]:
    """The names of the mappings that ship with the tool, ``<app>/<entity>``."""
    root = mappings_dir()
    return sorted(
        str(file.relative_to(root).with_suffix("")) for file in root.glob("*/*.toml") if file.parent.name != "targets"
    )


def find(name: str) -> Path:
    """A shipped mapping's file, or the path itself if it names a file. Raises MappingError with the nearest name."""
    if name.endswith(".toml"):
        return Path(name)
    if name not in shipped():
        raise MappingError(f"there is no mapping{nearest(name, shipped())}; a path ends in .toml")
    return mappings_dir() / f"{name}.toml"


def load(name: str) -> Mapping:
    """A shipped mapping by name, or any mapping by path.

    Raises MappingError, one sentence with file, line and key path, for a file that does not parse, does not make sense
    or is not complete.
    """
    return load_file(find(name))


def required(mapping: Mapping) -> Mapping | None:
    """The mapping whose rows must have been moved first: the file of that name beside this one, else a shipped one."""
    field = mapping.required
    if field is None or field.requires is None:
        return None
    beside = mapping.file.resolve().parent.parent / f"{field.requires}.toml"
    return load_file(beside) if beside.is_file() else load(field.requires)


def load_file(file: Path) -> Mapping:
    mapping = read_file(file)
    for problem in problems(mapping):
        raise problem
    return mapping


def read_file(file: Path) -> Mapping:
    """The mapping as far as each part makes sense by itself; ``check.problems`` says whether the whole is complete."""
    document = open_document(file)
    document.only(("$schema", "title", "source", "target", "fields", "dropped"))
    source = document.need_table("source")
    source.only(("schema", "table", "key", "columns"))
    target_part = document.need_table("target")
    target_part.only(("schema", "table", "file"))
    columns = {name: _source_column(name, part) for name, part in source.need_table("columns").tables()}
    target_document = open_document(_target_file(document, target_part))
    target = _target_table(target_document)
    name = f"{file.resolve().parent.name}/{file.stem}"
    fields = tuple(
        load_field(key, part, columns=columns, target=target) for key, part in document.need_table("fields").tables()
    )
    return Mapping(
        name=name,
        file=file,
        digest=_digest(document.values, target_document.values),
        title=document.text("title") or name,
        source_table=source.need_text("table"),
        source_schema=source.text("schema"),
        key=_key(source, columns),
        columns=columns,
        target=target,
        target_schema=target_part.text("schema"),
        fields=fields,
        dropped=_dropped(document.table("dropped"), columns),
        lines=document.found,
    )


def _digest(document: dict[str, Any], target: dict[str, Any]) -> str:
    """SHA-256 over what the two documents mean.

    The order of keys counts (a value map's first entry is its way back), comments and prose do not.
    """
    fields = {name: _without(("note",), part) for name, part in document["fields"].items()}
    meaning = [_without(_PROSE, document) | {"fields": fields}, _without(_PROSE, target)]
    canonical = json.dumps(meaning, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _without(prose: tuple[str, ...], part: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key not in prose}


def _type(part: Table) -> Type:
    try:
        return parse(part.need_text("type"))
    except ValueError as error:
        part.fail(str(error), "type")


def _source_column(name: str, part: Table) -> SourceColumn:
    part.only(("type", "optional", "not_null"))
    return SourceColumn(name, _type(part), optional=part.flag("optional"), not_null=part.flag("not_null"))


def _key(source: Table, columns: dict[str, SourceColumn]) -> str:
    key = source.need_text("key")
    if key not in columns:
        source.fail(f"no source column{nearest(key, columns)}", "key")
    if columns[key].optional:
        source.fail(f"{key!r} is the key and cannot be optional", "key")
    return key


def _target_file(document: Table, part: Table) -> Path:
    if own := part.text("file"):
        return document.file.parent / own
    name = part.need_text("table")
    folder = mappings_dir() / "targets"
    known = sorted(file.stem for file in folder.glob("*.toml"))
    if name not in known:
        part.fail(f"no target table{nearest(name, known)}; describe a table of your own with 'file'", "table")
    return folder / f"{name}.toml"


def _target_table(document: Table) -> TargetTable:
    document.only(("$schema", "title", "table", "key", "columns"))
    columns: dict[str, TargetColumn] = {}
    for name, part in document.need_table("columns").tables():
        part.only(("type", "not_null", "has_default"))
        if (kind := _type(part)).name == "any":
            part.fail("a target column must have a type of its own", "type")
        columns[name] = TargetColumn(name, kind, part.flag("not_null"), part.flag("has_default"))
    key = document.need_text("key")
    if key not in columns:
        document.fail(f"no target column{nearest(key, columns)}", "key")
    return TargetTable(document.need_text("table"), key, columns)


def _dropped(part: Table, columns: dict[str, SourceColumn]) -> dict[str, str]:
    for name in part.values:
        if name not in columns:
            part.fail(f"no source column{nearest(name, columns)}", name)
    return {name: part.need_text(name) for name in part.values}
