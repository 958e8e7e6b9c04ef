"""Values of each logical type: how hypothesis makes them, how the server is given them, how its text is read back.

Both ways go through text, since psycopg cannot load an infinite timestamp.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from spine_migrate.mapping.json_null import JSON_NULL

# Local times near which a zone's offset changes: gaps, overlaps, half an hour, a whole day that never was, war time.
TRANSITIONS = {
    "UTC": [],
    "Etc/GMT+5": [],
    "Europe/Berlin": [
        "2021-03-28 02:00",
        "2021-10-31 02:00",
        "1945-05-24 02:00",
        "1893-04-01 00:00",
        "2400-03-26 02:00",
    ],
    "Europe/Dublin": ["2021-03-28 01:00", "2021-10-31 01:00"],
    "America/New_York": ["2021-03-14 02:00", "2021-11-07 01:00"],
    "America/Sao_Paulo": ["2018-11-04 00:00", "2018-02-17 23:00"],
    "Australia/Lord_Howe": ["2021-04-04 01:30", "2021-10-03 02:00"],
    "Pacific/Apia": ["2011-12-30 00:00"],
    "Asia/Kathmandu": ["1986-01-01 00:00"],
}

_edges = st.sampled_from(
    ["", " ", "  trailing  ", "null", "NULL", "a\\b", "100%", "%s", "'", '"', "$1", "{}", "\u00e4\U0001f600"]
)
text = _edges | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
integers = {
    "integer": st.sampled_from([-(2**31), 2**31 - 1, 2**31 - 2, 0, 1, -1]) | st.integers(-(2**31), 2**31 - 1),
    "bigint": st.sampled_from([-(2**63), 2**63 - 1, 2**31, 0, 1]) | st.integers(-(2**63), 2**63 - 1),
}
_local = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29))  # noqa: DTZ001 - local times are meant
_infinite = st.sampled_from(["infinity", "-infinity"])
_json_leaf = st.none() | st.booleans() | st.integers() | st.integers(-(10**6), 10**6).map(lambda n: n / 4) | text
json_document = st.recursive(
    _json_leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8
).map(lambda value: JSON_NULL if value is None else value)

BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "text": text,
    **integers,
    "boolean": st.booleans(),
    "uuid": st.uuids(),
    "numeric": st.decimals(-(10**9), 10**9, places=3) | st.integers(-(10**9), 10**9).map(Decimal),
    "timestamptz": _infinite | _local.map(lambda at: at.replace(tzinfo=UTC)),
    "timestamp": _infinite | _local,
    "jsonb": json_document,
}


def local_times(zone: str) -> st.SearchStrategy[Any]:
    """Timestamps without zone, many of them near the zone's transitions."""
    near = st.builds(
        lambda at, seconds, micros: datetime.fromisoformat(at) + timedelta(seconds=seconds, microseconds=micros),
        st.sampled_from(TRANSITIONS[zone] or ["2000-01-01 00:00"]),
        st.integers(-5400, 5400),
        st.sampled_from([0, 1, 500_000, 999_999]),
    )
    return near | BY_TYPE["timestamp"]


def nullable(kind: str) -> st.SearchStrategy[Any]:
    return st.none() | BY_TYPE[kind]


def to_text(value: Any) -> str | None:
    """What the server reads as the value, after a cast to its type."""
    match value:
        case None:
            return None
        case str() | int() | UUID() | Decimal():
            return str(value)
        case datetime():
            return value.isoformat()
        case _:
            return json.dumps(None if value is JSON_NULL else value)


def json_text(value: Any) -> str | None:
    """As ``to_text``, for a jsonb value, which may be a string or a number."""
    return None if value is None else json.dumps(None if value is JSON_NULL else value)


_READERS: dict[str, Callable[[str], Any]] = {
    "integer": int,
    "bigint": int,
    "boolean": lambda text: text == "true",
    "uuid": UUID,
    "numeric": Decimal,
    "timestamp": lambda text: text if "infinity" in text else datetime.fromisoformat(text),
    "timestamptz": lambda text: text if "infinity" in text else datetime.fromisoformat(text),
    "jsonb": lambda text: JSON_NULL if text == "null" else json.loads(text),
}


def from_text(text: str | None, kind: str) -> Any:
    """The value that the server's text stands for."""
    return text if text is None or kind not in _READERS else _READERS[kind](text)


def comparable(value: Any) -> Any:
    """So that True is not 1: JSON as its canonical text, anything else with its type."""
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    return type(value).__name__, value
