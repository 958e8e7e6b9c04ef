"""The manifest of an archive as a file: JSON under a digest of its own.

The digest is the SHA-256 of the document without it, as JSON with sorted keys, no blanks, and everything beyond ASCII
escaped. It shows that the file was damaged or edited by hand, not who wrote it.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from spine_migrate.cutover.archive.model import (
    Column,
    Constraint,
    File,
    Index,
    Manifest,
    Requirement,
    Sequence,
    Snapshot,
    Table,
    Type,
    TypeConstraint,
)
from spine_migrate.db.catalog import Name
from spine_migrate.errors import ConfigurationError, SpineMigrateError

FORMAT = 1
KIND = "spine-migrate archive"
NAME = "manifest.json"
SCRIPT = "schema.sql"
SCHEMA = Path(__file__).with_name("archive.schema.json")


class Damaged(SpineMigrateError):
    """A file of an archive is not what it was written as. Exit code 1: a verdict on the archive, not a fault."""

    exit_code = 1

    def __init__(self, file: str, what: str) -> None:
        super().__init__(f"{file} {what}.")
        self.file = file
        self.what = what


def digest(document: dict[str, Any]) -> str:
    """In hexadecimal; a ``digest`` that the document has is left out."""
    body = {key: value for key, value in document.items() if key != "digest"}
    return sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode("ascii")).hexdigest()


def document(manifest: Manifest) -> dict[str, Any]:
    """Names of tables, types and sequences are ``[schema, name]``; the other keys are the fields of the model."""
    bytes_, hashed = manifest.script
    body = {
        "kind": KIND,
        "format": FORMAT,
        "tool_version": manifest.tool_version,
        **asdict(manifest.snapshot),
        "made_at": manifest.snapshot.made_at.isoformat(),
        "copy_encoding": manifest.copy_encoding,
        "script": {"name": SCRIPT, "bytes": bytes_, "sha256": hashed},
        "types": [_plain(one) for one in manifest.types],
        "requires": [_plain(one) for one in manifest.requires],
        "tables": [_plain(one) for one in manifest.tables],
    }
    return {"digest": digest(body), **body}


def _plain(part: Any) -> Any:
    def made(fields: list[tuple[str, Any]]) -> Any:
        found = dict(fields)
        return [found["schema"], found["table"]] if found.keys() == {"schema", "table"} else found

    return asdict(part, dict_factory=made)


def text(manifest: Manifest) -> str:
    return json.dumps(document(manifest), indent=2) + "\n"


def read(directory: Path) -> Manifest:
    """Raises ConfigurationError where there is no archive, or one in a format that this version cannot read; Damaged
    where the manifest was changed; OSError where it cannot be read.
    """
    try:
        content = (directory / NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigurationError(f"{directory} is no archive: it has no {NAME}.") from None
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise Damaged(NAME, "is not JSON") from None
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise ConfigurationError(f"{directory} is no archive: its {NAME} lacks the kind {KIND!r}.")
    if found.get("format") != FORMAT:
        raise ConfigurationError(
            f"The archive {directory} has format {found.get('format')!r}; this version of spine-migrate reads format "
            f"{FORMAT}."
        )
    if found.get("digest") != digest(found):
        raise Damaged(NAME, "was changed after it was written: its digest is not that of what it says")
    try:
        return _manifest(found)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Damaged(NAME, "lacks a part, or has one that is not what it should be") from None


def _manifest(found: dict[str, Any]) -> Manifest:
    script = found["script"]
    return Manifest(
        tool_version=found["tool_version"],
        snapshot=Snapshot(
            **{name: found[name] for name in Snapshot.__dataclass_fields__ if name != "made_at"},
            made_at=datetime.fromisoformat(found["made_at"]),
        ),
        copy_encoding=found["copy_encoding"],
        script=(script["bytes"], script["sha256"]),
        types=tuple(_type(one) for one in found["types"]),
        requires=tuple(
            Requirement(one["type"], tuple(one["names"]), tuple(one["args"]), one["identity"])
            for one in found["requires"]
        ),
        tables=tuple(_table(one) for one in found["tables"]),
    )


def _type(one: dict[str, Any]) -> Type:
    constraints = tuple(TypeConstraint(**each) for each in one["constraints"])
    return Type(**{**one, "name": Name(*one["name"]), "constraints": constraints})


def _table(one: dict[str, Any]) -> Table:
    parts = {
        "name": Name(*one["name"]),
        "parents": tuple(Name(*parent) for parent in one["parents"]),
        "columns": tuple(_column(column) for column in one["columns"]),
        "constraints": tuple(_constraint(constraint) for constraint in one["constraints"]),
        "indexes": tuple(Index(**index) for index in one["indexes"]),
        "sequences": tuple(Sequence(**{**each, "place": Name(*each["place"])}) for each in one["sequences"]),
        "left_out": tuple(one["left_out"]),
        "files": tuple(_file(file) for file in one["files"]),
    }
    return Table(**{**one, **parts})


def _column(one: dict[str, Any]) -> Column:
    return Column(**{**one, "sequence": _name(one["sequence"])})


def _constraint(one: dict[str, Any]) -> Constraint:
    return Constraint(**{**one, "refers": _name(one["refers"])})


def _name(parts: list[str] | None) -> Name | None:
    return Name(*parts) if parts else None


def _file(one: dict[str, Any]) -> File:
    # A name that leads out of the directory would have another file read.
    if Path(one["name"]).name != one["name"]:
        raise ValueError(one["name"])
    return File(**one)
