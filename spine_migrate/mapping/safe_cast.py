"""Casts that give NULL where the server's own would fail: for values that somebody else wrote.

What the mapping has written comes back by any cast. A view is asked for every row of a table that others write as well,
and one value that is no uuid must not make it fail for all of them.
"""

from __future__ import annotations

from psycopg import sql

from spine_migrate.mapping.transforms.base import Sql

UUID = r"^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$"
_INTEGER = r"^-?[0-9]{1,19}$"
# 3.0 is the same number as 3 in jsonb, which keeps how it was spelled.
_JSON_INTEGER = r"^-?[0-9]{1,19}(\.0+)?$"
# As jsonb writes a number, which has no exponent, and the strings that stand for what JSON has no number for.
_NUMERIC = r"^(-?[0-9]+(\.[0-9]+)?|NaN|-?Infinity)$"
# Digits before the point that any numeric can have (PostgreSQL manual, 8.1.2).
_LONGEST_NUMERIC = 131_072
_RANGE = {
    "smallint": (-(2**15), 2**15 - 1),
    "integer": (-(2**31), 2**31 - 1),
    "bigint": (-(2**63), 2**63 - 1),
}
_TEXTS = ("text", "character varying", "character", "citext", "name")


def within(value: Sql, kind: str) -> Sql:
    """Whether an integer or a numeric, is in the range of the integer type ``kind``."""
    low, high = (sql.SQL("{}::numeric").format(sql.Literal(str(bound))) for bound in _RANGE[kind])
    return sql.SQL("{} BETWEEN {} AND {}").format(value, low, high)


def from_text(text: Sql, kind: str, type_name: Sql, *, checked: bool = False, json: bool = False) -> Sql:
    """``text`` as the type ``kind``, written out as ``type_name``; NULL where it is none. ``json``: it is that of a
    JSON value, and what is equal there gives the same.

    Types whose input has no simple shape (timestamps, addresses, floats) are only looked at where ``checked``, which
    takes pg_input_is_valid, of PostgreSQL 16. What this gives for the others is immutable: an index can have it.
    """
    valid: Sql
    match kind:
        case "uuid":
            valid = sql.SQL("{} ~ {}").format(text, sql.Literal(UUID))
        case "boolean":
            valid = sql.SQL("{} IN ('true', 'false')").format(text)
        case "smallint" | "integer" | "bigint":
            # CASE, not AND: the order in which AND evaluates its sides is not defined.
            valid = sql.SQL("CASE WHEN {0} ~ {1} THEN {2} END").format(
                text,
                sql.Literal(_JSON_INTEGER if json else _INTEGER),
                within(sql.SQL("{}::numeric").format(text), kind),
            )
            if json:
                text = sql.SQL("{}::numeric").format(text)
        case "numeric":
            valid = sql.SQL("octet_length({0}) <= {1} AND {0} ~ {2}").format(
                text, sql.Literal(_LONGEST_NUMERIC), sql.Literal(_NUMERIC)
            )
        case _ if kind in _TEXTS or not checked:
            return sql.SQL("{}::{}").format(text, type_name)
        case _:
            valid = sql.SQL("pg_input_is_valid({}, {})").format(text, sql.Literal(type_name.as_string(None)))
    return sql.SQL("CASE WHEN {} THEN {}::{} END").format(valid, text, type_name)


def narrowed(value: Sql, kind: str) -> Sql:
    """A bigint as the integer type ``kind``, NULL out of its range."""
    return sql.SQL("CASE WHEN {} THEN {}::{} END").format(within(value, kind), value, sql.SQL(kind))
