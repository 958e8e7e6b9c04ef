"""Logical types: what a mapping declares, which live types satisfy it, how a literal of it is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from spine_migrate.mapping.transforms.base import Sql

# The live types (as format_type prints them, without length) that satisfy a declared type; "enum" stands for any enum.
_SATISFIED_BY: dict[str, frozenset[str]] = {
    "text": frozenset({"text", "character varying", "character", "enum", "citext", "name"}),
    "uuid": frozenset({"uuid"}),
    "integer": frozenset({"integer", "smallint"}),
    "bigint": frozenset({"bigint", "integer", "smallint"}),
    "numeric": frozenset({"numeric", "bigint", "integer", "smallint"}),
    "boolean": frozenset({"boolean"}),
    "jsonb": frozenset({"jsonb", "json"}),
    "timestamptz": frozenset({"timestamp with time zone"}),
    "timestamp": frozenset({"timestamp without time zone"}),
}
# Live types that become the declared type by a cast which changes the value's form and is worth writing out.
_NATIVE: dict[str, frozenset[str]] = {
    "text": frozenset({"text", "character varying"}),
    "jsonb": frozenset({"jsonb"}),
}
LOGICAL = (*_SATISFIED_BY, "any")

INTEGER_RANGE = {"integer": (-(2**31), 2**31 - 1), "bigint": (-(2**63), 2**63 - 1)}

_WITH_LENGTH = re.compile(r"^(?:character varying|varchar)\((?P<length>\d+)\)$")
_SYNONYMS = {
    "varchar": "text",
    "character varying": "text",
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
}


@dataclass(frozen=True)
class Type:
    """A declared type: its logical name and, for text, the length in characters it is limited to."""

    name: str
    length: int | None = None

    def __str__(self) -> str:
        return f"varchar({self.length})" if self.length is not None else self.name


def parse(text: str) -> Type:
    """``varchar(100)`` or a logical type name. Raises ValueError with the allowed names."""
    lowered = text.strip().lower()
    if match := _WITH_LENGTH.match(lowered):
        return Type("text", int(match["length"]))
    name = _SYNONYMS.get(lowered, lowered)
    if name not in LOGICAL:
        raise ValueError(f"{text!r} is not a type; use one of {', '.join(LOGICAL)} or varchar(N)")
    return Type(name)


def satisfies(live: str, declared: str) -> bool:
    """Whether a live column of type ``live`` (base name from format_type, or ``enum``) can be read as ``declared``."""
    return declared == "any" or live in _SATISFIED_BY[declared]


def read(column: Sql, live: str, declared: str) -> Sql:
    """The expression that reads a live column as its declared type; no cast where none is needed."""
    if declared == "any" or live in _NATIVE.get(declared, {live}):
        return column
    return sql.SQL("{}::{}").format(column, sql.SQL(declared))


def typename(name: str) -> sql.SQL:
    """A logical type's name as SQL. Only names from ``LOGICAL`` get here, so it is safe to write them out."""
    if name not in _SATISFIED_BY:
        raise ValueError(f"{name!r} has no SQL type")
    return sql.SQL(name)


def literal(value: Any, name: str) -> Sql:
    """A typed SQL literal, for example ``'pipeline'::text`` or ``'{}'::jsonb``."""
    if value is None:
        return sql.SQL("NULL::{}").format(typename(name))
    return sql.SQL("{}::{}").format(sql.Literal(Jsonb(value) if name == "jsonb" else value), typename(name))


def of_constant(value: Any) -> str:
    """The logical type of a TOML value used as a constant or a mapped value. Raises ValueError for dates and floats."""
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer" if -(2**31) <= value < 2**31 else "bigint"
        case str():
            return "text"
        case dict() | list():
            return "jsonb"
    raise ValueError(f"{value!r} cannot be a constant; use a string, an integer, a boolean, a table or an array")
