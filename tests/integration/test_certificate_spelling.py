"""Two JSON values have one text in a certificate exactly where PostgreSQL calls them equal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from spine_migrate.db.connect import Connection, connect
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.certificate import may_have_zeros, plain
from tests.database import Database


class Number(str):
    """A number as JSON spells it."""

    __slots__ = ()


def spelled(value: Any) -> str:
    match value:
        case Number():
            return str(value)
        case dict():
            parts = (f"{json.dumps(key)}: {spelled(inner)}" for key, inner in value.items())
            return f"{{{', '.join(parts)}}}"
        case list():
            return f"[{', '.join(map(spelled, value))}]"
        case _:
            return json.dumps(value)


_DIGITS = st.text("0125", max_size=5)
_NUMBERS = st.builds(
    lambda minus, whole, fraction: Number(f"{minus}{int(whole or '0')}{f'.{fraction}' if fraction else ''}"),
    st.sampled_from(["", "-"]),
    _DIGITS,
    _DIGITS,
)
_TEXTS = st.text('.0125}],)(:" \\\n\té', max_size=8)
_LEAVES = st.none() | st.booleans() | _NUMBERS | _TEXTS
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)


def respelled(value: Any, zeros: str) -> Any:
    """The same value, its numbers with more zeros."""
    match value:
        case Number():
            return Number(f"{value}{zeros}" if "." in value else f"{value}.{zeros}")
        case dict():
            return {key: respelled(inner, zeros) for key, inner in value.items()}
        case list():
            return [respelled(inner, zeros) for inner in value]
        case _:
            return value


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    with connect(database.url) as opened:
        yield opened


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.lists(st.tuples(_VALUES, _VALUES, st.sampled_from(["0", "000"])), min_size=1, max_size=40))
@example([({"x.0}": Number("1.0"), 'a"1.50,': [Number("0.0"), Number("-0.00")]}, "1.0}", "0")])
def test_one_text_exactly_where_values_are_equal(connection: Connection, drawn: list[tuple[Any, Any, str]]) -> None:
    pairs = [(spelled(value), spelled(respelled(value, zeros))) for value, _, zeros in drawn]
    pairs += [(spelled(value), spelled(other)) for value, other, _ in drawn]
    query = sql.SQL(
        "SELECT a::text, b::text, a = b, {a} = {b}, {may} OR {a} = a::text"
        " FROM unnest($1::text[]::jsonb[], $2::text[]::jsonb[]) AS given (a, b)"
    ).format(
        a=plain(sql.Identifier("a"), "jsonb"),
        b=plain(sql.Identifier("b"), "jsonb"),
        may=may_have_zeros(sql.SQL("ROW(a)::text")),
    )
    found = execute(connection, query, *map(list, zip(*pairs, strict=True))).fetchall()
    assert [(a, b, equal) for a, b, equal, alike, _ in found if alike is not equal] == []
    assert [a for a, _, _, _, passed in found if not passed] == []
    assert all(equal for _, _, equal, _, _ in found[: len(drawn)])
