"""The mapping as data: what a file declares, before it is compiled or held against a live catalog."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spine_migrate.mapping.transforms.base import Transform
from spine_migrate.mapping.types import Type

MISSING: Any = object()
"""Stands for "no constant"; None would be a constant NULL."""


@dataclass(frozen=True)
class Place:
    """Where a rule stands: the mapping file, the key path inside it, and the 1-based line."""

    file: Path
    key: str
    line: int | None

    def __str__(self) -> str:
        return f"{self.file.parent.name}/{self.file.name}{f':{self.line}' if self.line else ''}"


@dataclass(frozen=True)
class SourceColumn:
    """A declared column of the legacy table. ``optional``: real tables may lack it, which is reported, not an error."""

    name: str
    type: Type
    optional: bool = False
    not_null: bool = False


@dataclass(frozen=True)
class TargetColumn:
    name: str
    type: Type
    not_null: bool = False
    has_default: bool = False


@dataclass(frozen=True)
class TargetTable:
    """The declared shape of a target table. ``key`` is the column that ``ON CONFLICT`` and parity go by."""

    name: str
    key: str
    columns: dict[str, TargetColumn]


@dataclass(frozen=True)
class JsonPath:
    """A place inside a JSON column of the target, for example ``metadata.legacy.priority``."""

    column: str
    keys: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join((self.column, *self.keys))


@dataclass(frozen=True)
class Field:
    """One rule of a mapping: what one target column, or one path inside a JSON column, is made of.

    Exactly one of ``column`` (a source column, run through ``steps``), ``constant`` and ``origin`` is what it starts from.
    ``when_present`` limits a constant to rows where that source column is not NULL. ``keep`` is where the whole source
    value goes whenever the field alone would not bring it back. ``link`` marks a reference to another row of the same
    target table, completed after the load; ``requires`` names the mapping whose row must have been moved before.
    """

    target: str
    path: tuple[str, ...]
    place: Place
    column: str | None = None
    constant: Any = MISSING
    origin: bool = False
    when_present: str | None = None
    steps: tuple[Transform, ...] = ()
    keep: JsonPath | None = None
    lossy: str | None = None
    link: bool = False
    requires: str | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """The dotted target, ``status`` or ``metadata.feed_id``."""
        return ".".join((self.target, *self.path))

    @property
    def rule(self) -> str:
        """How a report names this rule: the field and where it stands."""
        return f"{self.name} ({self.place})"

    @property
    def lossless(self) -> bool:
        return all(step.lossless for step in self.steps)

    @property
    def invertible(self) -> bool:
        return all(step.invertible for step in self.steps)


@dataclass(frozen=True)
class Mapping:
    """A whole mapping file. ``name`` is ``<app>/<entity>`` and, as the origin mark, what moved rows carry."""

    name: str
    file: Path
    digest: str
    title: str
    source_table: str
    source_schema: str | None
    key: str
    columns: dict[str, SourceColumn]
    target: TargetTable
    target_schema: str | None
    fields: tuple[Field, ...]
    dropped: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> Field:
        return next(f for f in self.fields if f.origin)

    @property
    def key_field(self) -> Field:
        return next(f for f in self.fields if f.name == self.target.key)

    @property
    def links(self) -> tuple[Field, ...]:
        return tuple(f for f in self.fields if f.link)

    @property
    def required(self) -> Field | None:
        return next((f for f in self.fields if f.requires), None)

    def carriers(self, column: str) -> Iterator[Field]:
        """The fields that start from a source column, in file order."""
        return (f for f in self.fields if f.column == column)

    def carrier(self, column: str) -> Field | None:
        """The field that brings a source column back: the first lossless one, else one that keeps, else a lossy one."""
        fields = list(self.carriers(column))
        exact = [field for field in fields if field.lossless and field.invertible]
        kept = [field for field in fields if field.keep is not None]
        lossy = [field for field in fields if field.lossy is not None]
        return next(iter([*exact, *kept, *lossy]), None)
