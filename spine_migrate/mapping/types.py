"""Logical types: what a mapping declares, which live types satisfy it, how a literal of it is written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite
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
# What can go into a JSON path and come back by a cast of its text: no arrays, no rows, nothing a locale decides.
_ANY = frozenset({
    *("text", "character varying", "character", "enum", "citext", "name", "uuid", "boolean", "bytea", "inet", "cidr"),
    *("smallint", "integer", "bigint", "numeric", "real", "double precision", "json", "jsonb"),
    *("date", "timestamp with time zone", "timestamp without time zone"),
})  # fmt: skip
# The live types of a target column that take and give back the declared type as it is.
_STORED_BY: dict[str, frozenset[str]] = {
    **{name: found - {"json", "smallint", "character", "enum", "name"} for name, found in _SATISFIED_BY.items()},
    "bigint": frozenset({"bigint"}),
    "integer": frozenset({"integer", "bigint"}),
    "numeric": frozenset({"numeric"}),
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
    return live in (_ANY if declared == "any" else _SATISFIED_BY[declared])


def stores(live: str, declared: str) -> bool:
    """Whether a live target column of type ``live`` takes any ``declared`` value and gives it back unchanged."""
    return live in _STORED_BY[declared]


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
    if name == "jsonb":
        return sql.Literal(Jsonb(value))  # writes the cast itself
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)  # quoted: -2147483648::integer is minus (2147483648::integer), out of range
    return sql.SQL("{}::{}").format(sql.Literal(value), typename(name))


def of_constant(value: Any) -> str:
    """The logical type of a TOML value used as a constant or a mapped value.

    Raises ValueError for dates, floats and integers beyond 64 bits, and for what a table or an array holds that JSON
    does not have.
    """
    match value:
        case bool():
            return "boolean"
        case int():
            for name, (low, high) in INTEGER_RANGE.items():
                if low <= value <= high:
                    return name
        case str():
            return "text"
        case dict() | list():
            _refuse_beyond_json(value)
            return "jsonb"
    raise ValueError(f"{value!r} cannot be a constant; use a string, an integer, a boolean, a table or an array")


def becomes(found: str, wanted: str) -> bool:
    """Whether a constant of type ``found`` can be written where ``wanted`` is expected."""
    return found == wanted or (found, wanted) in {
        ("integer", "bigint"),
        ("integer", "numeric"),
        ("bigint", "numeric"),
    }


def _refuse_beyond_json(value: Any) -> None:
    match value:
        case dict():
            for inner in value.values():
                _refuse_beyond_json(inner)
        case list():
            for inner in value:
                _refuse_beyond_json(inner)
        case str() | int():
            pass
        case float() if isfinite(value):
            pass
        case _:
            raise ValueError(f"{value!r} is no JSON value")
