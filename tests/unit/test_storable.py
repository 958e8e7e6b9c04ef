"""JSON as a ledger gives it back, by the short way and by the long one."""

from __future__ import annotations

from contextlib import suppress
from enum import IntEnum, StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_migrate.execution.storable import as_json, copied, reread


class _Colour(StrEnum):
    RED = "red"


class _Size(IntEnum):
    LARGE = 3


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([10**15 - 1, 10**15, 2**63, 10**400, -(10**15), 1e15, 1e16, 1e-7, -0.0, 1.0, 1.5e300]),
    st.floats(),
    st.text(st.characters(codec=None)),
    st.sampled_from([_Colour.RED, _Size.LARGE, b"bytes", "nul \0", "half \ud800"]),
)
_KEYS = st.one_of(st.text(st.characters(codec=None)), st.integers(), st.none(), st.sampled_from([_Colour.RED]))
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(_KEYS, inner), st.sets(st.integers())
    ),
)


@given(_VALUES)
def test_the_short_way_gives_what_the_long_one_gives_or_nothing(value: Any) -> None:
    with suppress(ValueError):
        short = copied(value)
        # repr tells 1 from 1.0 and from True, 0.0 from -0.0, and the order of keys.
        assert repr(short) == repr(reread(value))


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, True, "ä"], "b": {"c": ()}}, [], "text", -0.0, 10**14])
def test_what_is_plain_takes_the_short_way(value: Any) -> None:
    assert repr(copied(value)) == repr(as_json(value))


def test_a_copy_shares_nothing() -> None:
    given_one: dict[str, Any] = {"list": [1], "dict": {"a": []}}
    made = copied(given_one)
    made["list"].append(2)
    made["dict"]["a"].append(3)
    assert given_one == {"list": [1], "dict": {"a": []}}


def test_what_refers_to_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ValueError, match="Circular"):
        as_json(circle)
