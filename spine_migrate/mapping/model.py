"""The mapping as data: what a file declares, before it is compiled or held against a live catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spine_migrate.mapping.path import join
from spine_migrate.mapping.transforms.base import Transform
from spine_migrate.mapping.types import Type, of_constant

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
        return join((self.column, *self.keys))


@dataclass(frozen=True)
class Field:
    """One rule of a mapping: what one target column, or one path inside a JSON column, is made of.

    Exactly one of ``column`` (a source column, run through ``steps``), ``constant`` and ``origin`` is what it starts
    from. ``when_present`` limits a constant to rows where that source column is not NULL. ``keep`` is where the whole
    source value goes whenever the field alone would not bring it back. ``link`` marks a reference to another row of the
    same target table, completed after the load; ``requires`` names the mapping whose row must have been moved before.
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
        return join((self.target, *self.path))

    @property
    def rule(self) -> str:
        """How a report names this rule: the field and where it stands."""
        return f"{self.name} ({self.place})"

    @property
    def source(self) -> str:
        """The source column of a field that copies one. Raises ValueError for any other."""
        if self.column is None:
            raise ValueError(f"{self.name} copies no column")
        return self.column

    def never_null(self, source: Callable[[str], bool]) -> bool:
        """Whether every row gets a value, where ``source`` says of a source column that it is never NULL."""
        if self.column is None:
            return self.when_present is None or source(self.when_present)
        always = source(self.column)
        for step in self.steps:
            always = (always and step.total) or not step.strict
        return always

    @property
    def lossless(self) -> bool:
        return all(step.lossless for step in self.steps)

    @property
    def invertible(self) -> bool:
        return all(step.invertible for step in self.steps)

    @property
    def exact(self) -> bool:
        """Whether the field alone brings every source value back."""
        return self.lossless and self.invertible


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
    lines: dict[tuple[str, ...], int] = field(default_factory=dict, repr=False)
    """Key path of the file to its line, see ``locate``."""

    @property
    def origin(self) -> Field:
        return next(f for f in self.fields if f.origin)

    @property
    def key_field(self) -> Field:
        return next(f for f in self.fields if f.target == self.target.key and not f.path)

    @property
    def key_carrier(self) -> Field | None:
        """The field that gives the source key back for every row: the target key's own, another that copies it, or one
        that keeps it. None where the mapping gives the key up, so that there is no way back from a target row.
        """
        field = self.carrier(self.key)
        return field if field is not None and (field.exact or field.keep is not None) else None

    @property
    def key_stands(self) -> bool:
        """Whether the target key is the source key as it stands."""
        field = self.key_carrier
        return field is not None and field is self.key_field and not field.steps

    @property
    def links(self) -> tuple[Field, ...]:
        return tuple(f for f in self.fields if f.link)

    @property
    def required(self) -> Field | None:
        return next((f for f in self.fields if f.requires), None)

    @property
    def produced(self) -> dict[str, list[Field]]:
        """The target columns that the mapping writes, each with the fields that write or keep something there."""
        found: dict[str, list[Field]] = {}
        for one in self.fields:
            found.setdefault(one.target, []).append(one)
            if one.keep is not None:
                found.setdefault(one.keep.column, []).append(one)
        return found

    def base(self, column: str) -> Field | None:
        """The field that gives a whole target column, as opposed to paths inside it."""
        return next((one for one in self.fields if one.target == column and not one.path), None)

    def overlay(self, column: str) -> list[str]:
        """The top-level keys that rules write into a JSON column, beside what its base field gives."""
        keys: dict[str, None] = {}
        for one in self.fields:
            if one.target == column and one.path:
                keys[one.path[0]] = None
            if one.keep is not None and one.keep.column == column:
                keys[one.keep.keys[0]] = None
        return list(keys)

    def gives(self, field: Field) -> str:
        """The logical type that a field's pipeline ends in."""
        if field.origin:
            return "text"
        if field.column is None:
            return of_constant(field.constant)
        return field.steps[-1].gives if field.steps else self.columns[field.column].type.name

    def carriers(self, column: str) -> Iterator[Field]:
        """The fields that start from a source column, in file order."""
        return (f for f in self.fields if f.column == column)

    def carrier(self, column: str) -> Field | None:
        """The field that brings a source column back: the first exact one (of the key, that of the target key first),
        else one that keeps, else a lossy one.
        """
        fields = sorted(self.carriers(column), key=lambda one: one.path != () or one.target != self.target.key)
        exact = [field for field in fields if field.exact]
        kept = [field for field in fields if field.keep is not None]
        lossy = [field for field in fields if field.lossy is not None]
        return next(iter([*exact, *kept, *lossy]), None)

    def brings_back(self, column: str) -> bool:
        """Whether the inverse gives a source column back at all."""
        field = self.carrier(column)
        return field is not None and (field.lossy is None or field.invertible)
