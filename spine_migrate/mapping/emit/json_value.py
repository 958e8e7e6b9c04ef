"""Values of Python inside a JSON document, written and read as the server does: to_jsonb, and a cast of the text."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from math import isfinite, isnan
from typing import Any
from uuid import UUID

from spine_migrate.mapping.json_null import JsonNull


def _float(value: float) -> float | str:
    if isfinite(value):
        return value
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _numeric(value: Decimal) -> float | int | str:
    if not value.is_finite():
        return _float(float(value))
    plain = format(value, "f")
    return float(plain) if "." in plain else int(plain)


def _timestamp(value: datetime) -> str:
    text = value.isoformat() if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None).isoformat()
    if "." in text:
        text = text.rstrip("0")  # the server writes no trailing zeros of a second
    return text if value.tzinfo is None else f"{text}+00:00"


# In this order: a bool is an int, a datetime a date.
_WRITERS: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    ((type(None), bool, int, str, dict, list), lambda value: value),
    (float, _float),
    (Decimal, _numeric),
    (datetime, _timestamp),
    (date, date.isoformat),
    (bytes, lambda value: f"\\x{value.hex()}"),
    ((UUID, IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network), str),
    (JsonNull, lambda _: None),
)


def to_json(value: Any) -> Any:
    """What psycopg loads from the JSON document that the server puts ``value`` into. Raises TypeError for other types.

    A numeric comes out as an int or a float, as JSON numbers do; timestamps are in UTC.
    """
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            return write(value)
    raise TypeError(f"a {type(value).__name__} has no place in a JSON document")


def from_json(value: Any, kind: str) -> Any:
    """A JSON value that is not null, as psycopg loads the logical type ``kind``; ``any`` stays as it is in JSON."""
    match kind:
        case "uuid":
            return UUID(value)
        case "numeric":
            return Decimal(str(value))
        case "timestamptz" | "timestamp" if value not in ("infinity", "-infinity"):
            return datetime.fromisoformat(value)
        case _:
            return value
