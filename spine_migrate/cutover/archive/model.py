"""What an archive says of itself: its tables with all that is needed to make them anew, and the files with their rows.

``manifest`` writes it as JSON; ``archive.schema.json`` beside this file says what the keys mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from spine_migrate.db.catalog import Name


@dataclass(frozen=True)
class File:
    """A data file: gzip around COPY's text format. ``bytes`` and ``sha256`` are of the file, ``stream_*`` of what is in
    it.
    """

    name: str
    bytes: int
    sha256: str
    rows: int
    stream_bytes: int
    stream_sha256: str


@dataclass(frozen=True)
class Column:
    """``type`` as format_type prints it; ``collation`` only where it is not the type's own. ``default`` is the
    expression of a default or of a generated column; ``sequence`` is the one whose next value is the default.
    """

    name: str
    type: str
    collation: str | None
    not_null: bool
    default: str | None
    generated: Literal["stored", "virtual"] | None
    identity: Literal["always", "by default"] | None
    sequence: Name | None
    comment: str | None


@dataclass(frozen=True)
class Constraint:
    """``definition`` as pg_get_constraintdef prints it; a foreign key's ends where the table that it refers to is
    named, and goes on with ``remainder``.
    """

    name: str
    type: str
    definition: str
    refers: Name | None
    remainder: str
    comment: str | None

    def __str__(self) -> str:
        return f"{self.definition}{self.refers or ''}{self.remainder}"


@dataclass(frozen=True)
class Index:
    """``definition`` is what pg_get_indexdef prints behind the table's name."""

    name: str
    unique: bool
    definition: str
    comment: str | None


@dataclass(frozen=True)
class Sequence:
    """``column`` is the one that owns it. ``how``: it makes an identity, is owned, or is only used by a default."""

    place: Name
    how: Literal["identity", "owned", "used"]
    column: str | None
    type: str
    start: int
    increment: int
    minimum: int
    maximum: int
    cache: int
    cycle: bool
    last_value: int
    is_called: bool


@dataclass(frozen=True)
class Table:
    """``parents`` are those in the same archive, ``bound`` is that of a partition. ``rows_digest``: ``streams.Rows``.

    A partitioned table holds no rows itself, its partitions are tables of the archive. ``left_out`` names what the
    table had and the archive does not hold.
    """

    name: Name
    partition_by: str | None
    bound: str | None
    parents: tuple[Name, ...]
    unlogged: bool
    comment: str | None
    columns: tuple[Column, ...]
    constraints: tuple[Constraint, ...]
    indexes: tuple[Index, ...]
    sequences: tuple[Sequence, ...]
    left_out: tuple[str, ...]
    rows: int
    rows_digest: str
    files: tuple[File, ...]

    @property
    def loaded(self) -> list[str]:
        """The columns that the files hold: all but the generated ones."""
        return [column.name for column in self.columns if column.generated is None]


@dataclass(frozen=True)
class TypeConstraint:
    name: str
    definition: str
    validated: bool


@dataclass(frozen=True)
class Type:
    """``definition`` is what follows ``CREATE TYPE name AS`` or ``CREATE DOMAIN name AS``."""

    name: Name
    kind: Literal["enum", "domain", "composite", "range"]
    definition: str
    constraints: tuple[TypeConstraint, ...]
    comment: str | None


@dataclass(frozen=True)
class Requirement:
    """An object that is named and not held. ``type``, ``names`` and ``args`` are for pg_get_object_address."""

    type: str
    names: tuple[str, ...]
    args: tuple[str, ...]
    identity: str

    def __str__(self) -> str:
        return f"{self.type} {self.identity}"


@dataclass(frozen=True)
class Snapshot:
    """What all tables were read in; ``lsn`` is None on a standby that has replayed nothing."""

    snapshot: str
    lsn: str | None
    database: str
    server_version: str
    encoding: str
    made_by: str
    made_at: datetime


@dataclass(frozen=True)
class Manifest:
    """``types`` and ``tables`` stand in the order in which they can be created; ``copy_encoding`` is of the files."""

    tool_version: str
    snapshot: Snapshot
    copy_encoding: str
    script: tuple[int, str]
    """Bytes and SHA-256 of ``schema.sql``."""
    types: tuple[Type, ...]
    requires: tuple[Requirement, ...]
    tables: tuple[Table, ...]

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)
