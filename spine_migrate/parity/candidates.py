"""Made-up legacy values for the self-test, so that no column is without one only because few rows were looked at.

Those are kept that the mapping's judge lets pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg import sql

from spine_migrate.db.catalog import Column
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.mapping.transforms.value_map import ValueMap
from spine_migrate.parity.injections import DEEP

# None of them is a fresh key, see ``keys``: a link that should lead nowhere would lead there.
_UUIDS = ("5e1f7e57-0000-4000-9000-00000000000a", "5e1f7e57-0000-4000-9000-00000000000b")
_LONG = "Long self-test value, " * 20
_TEXTS = ("Self-test", _UUIDS[0], "7", "2024-01-02 03:04:05.678901+00", DEEP, "x", _LONG)
_TIMES = ("2024-01-02 03:04:05.678901",)
_BY_TYPE: dict[str, tuple[str, ...]] = {
    "text": _TEXTS,
    "character varying": _TEXTS,
    "citext": _TEXTS,
    "smallint": ("7", "0"),
    "integer": ("7", "0"),
    # Beyond what a float can tell apart.
    "bigint": ("9007199254740993", "7", "0"),
    "numeric": ("12345678901234567890.125", "7", "0"),
    "boolean": ("true", "false"),
    "uuid": _UUIDS,
    "json": (DEEP, '"Self-test"', "7", "true", "[]"),
    "jsonb": (DEEP, '"Self-test"', "7", "true", "[]"),
    "timestamp with time zone": _TIMES,
    "timestamp without time zone": _TIMES,
    "date": ("2024-01-02",),
}
# A value that a map does not have, or that is no uuid, number or time.
_REFUSED = {"text": "? self-test", "character varying": "? self-test", "smallint": "-32000", "integer": "-2000000000"}
_REFUSED |= {"bigint": "-2000000000"}


def values(binding: Binding, name: str) -> Iterator[Sql]:
    """For a column of the live table, the most telling first: what its value maps list, then by type, then NULL."""
    column = binding.live[name]
    made = _BY_TYPE.get(column.type, ())
    for one in [*_mapped(binding, name), *made] if made else ():
        if _takes(column, str(one)):
            yield cast(one, column)
    if not column.not_null:
        yield cast(None, column)


def refused(binding: Binding, name: str) -> Sql | None:
    """What a rule that is particular about its values should refuse; None where the type offers nothing."""
    column = binding.live[name]
    found = _REFUSED.get(column.type)
    return cast(found, column) if found is not None and _takes(column, found) else None


def keys(column: Column, number: int) -> list[str]:
    """Fresh legacy keys, as the server writes them; which of them the rules take is for the judge."""
    written = f"5e1f7e57-0000-4000-8000-{number:012x}"
    if column.type == "uuid":
        return [written]
    return [one for one in (written, str(number)) if column.type in _TEXT and _takes(column, one)] or [str(number)]


_TEXT = ("text", "character varying", "citext")


def cast(value: Any, column: Column) -> Sql:
    """Only with a type that format_type has printed, so it is safe to write out."""
    return sql.SQL("{}::{}").format(sql.Literal(None if value is None else str(value)), sql.SQL(column.sql_type))


def _takes(column: Column, text: str) -> bool:
    if column.length is not None and len(text) > column.length:
        return False
    # numeric(p, s) might not hold all digits.
    return column.type != "numeric" or column.sql_type == "numeric" or len(text) == 1


def _mapped(binding: Binding, name: str) -> Iterator[Any]:
    for field in binding.mapping.carriers(name):
        if field.steps and isinstance(first := field.steps[0], ValueMap):
            yield from list(first.values)[:12]
