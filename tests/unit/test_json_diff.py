"""Laws of the comparison of JSON documents, with and without rules."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_migrate.errors import ConfigurationError
from spine_migrate.parity.outputs.json_diff import Difference, Kind, compared, same
from spine_migrate.parity.outputs.json_path import Path as JsonPath
from spine_migrate.parity.outputs.json_path import Pattern, of_every_item, written
from spine_migrate.parity.outputs.rules import Rule, Rules
from spine_shims.shadowing import differences as shim_differences

_KEYS = st.sampled_from(["a", "b", "rows", "odd key", 'q"[0].x', "", "ä"])
_LEAVES = (
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.5, 1.0, "", "1", "x", "2026-01-16T00:00:00"])
)
_JSON: st.SearchStrategy[Any] = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=12
)
_PATTERNS = st.sampled_from(
    ["$", "$.a", "$.rows", "$.*", "$[*]", "$[0]", "$..a", "$..[*]", "$.rows[*].a", '$["odd key"]', "$..rows"]
)
_RULES = st.builds(
    Rule,
    _PATTERNS.map(Pattern.parse),
    ignore=st.booleans(),
    absolute=st.none() | st.floats(0, 2),
    relative=st.none() | st.floats(0, 1),
    unordered=st.booleans(),
    by=st.none() | _KEYS,
)
_SETS = st.lists(_RULES, max_size=3).map(lambda rules: Rules(Path("rules.toml"), tuple(rules)))
_ABSENT = object()


def _at(document: Any, path: JsonPath) -> Any:
    for step in path[1:]:
        try:
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return _ABSENT
    return document


@given(_JSON)
def test_a_document_is_itself(document: Any) -> None:
    assert same(document, document)
    assert compared(document, document).differences == []


@given(_JSON, _JSON)
def test_a_difference_is_none_only_of_the_same(old: Any, new: Any) -> None:
    assert (compared(old, new).differences == []) == same(old, new)


@given(_JSON, _JSON)
def test_each_difference_is_where_it_says(old: Any, new: Any) -> None:
    """And it has the values there."""
    for found in compared(old, new).differences:
        left, right = _at(old, found.path), _at(new, found.path)
        assert left is _ABSENT or right is _ABSENT or not same(left, right)
        assert (left is _ABSENT, right is _ABSENT) == (found.kind is Kind.EXTRA, found.kind is Kind.MISSING)
        assert (found.old, found.new) == (
            None if left is _ABSENT else left,
            None if right is _ABSENT else right,
        )


@given(_JSON, _JSON)
def test_the_other_way_round_it_is_the_same(old: Any, new: Any) -> None:
    turned = {Kind.MISSING: Kind.EXTRA, Kind.EXTRA: Kind.MISSING, Kind.CHANGED: Kind.CHANGED}
    back = [
        Difference(found.path, turned[found.kind], found.new, found.old) for found in compared(new, old).differences
    ]
    assert compared(old, new).differences == back


@given(_JSON, _JSON, _SETS)
def test_rules_only_ever_remove(old: Any, new: Any, rules: Rules) -> None:
    """And they account for it, where each counts what it has forgiven."""
    without, found = compared(old, new), compared(old, new, rules)
    assert len(found.differences) <= len(without.differences)
    if not any(rule.unordered for rule in rules.rules):
        assert [one for one in without.differences if one in found.differences] == found.differences
    if len(found.differences) < len(without.differences):
        assert sum(found.forgiven.values()) > 0
    if not without.differences:
        assert not found.forgiven


@given(_JSON, _JSON, _SETS, _SETS)
def test_more_rules_never_find_more(old: Any, new: Any, some: Rules, more: Rules) -> None:
    plain = [rule for rule in (*some.rules, *more.rules) if not rule.unordered]
    few = Rules(None, tuple(plain[: len(plain) // 2]))
    all_of_them = Rules(None, tuple(plain))
    assert {one.path for one in compared(old, new, all_of_them).differences} <= {
        one.path for one in compared(old, new, few).differences
    }


@given(st.lists(_JSON, max_size=6), st.randoms(use_true_random=False))
def test_an_array_whose_order_does_not_count(items: list[Any], chance: Any) -> None:
    shuffled = items.copy()
    chance.shuffle(shuffled)
    unordered = Rules(None, (Rule(Pattern.parse("$"), unordered=True),))
    assert compared(items, shuffled, unordered).differences == []


@given(_JSON, _JSON)
def test_a_path_that_is_written_is_read_again(old: Any, new: Any) -> None:
    for found in compared(old, new).differences:
        assert Pattern.parse(written(found.path)).matches(found.path)
        assert Pattern.parse(of_every_item(found.path)).matches(found.path)


_PLAIN = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "rows"]), inner, max_size=3),
    max_leaves=10,
)


@given(_PLAIN, _PLAIN)
def test_the_shims_find_the_same_places(old: Any, new: Any) -> None:
    """What the mode shadow tells has one meaning; of an array that is longer it names the first place alone."""
    ours = [written(found.path) for found in compared(old, new).differences]
    theirs = list(shim_differences(old, new))
    assert set(theirs) <= set(ours)
    assert bool(theirs) == bool(ours)


@pytest.mark.parametrize(
    ("old", "new", "paths"),
    [
        ({"a": 1}, {"b": 1}, ["$.a", "$.b"]),
        ([1, 2, 3], [1], ["$[1]", "$[2]"]),
        ({"a": None}, {}, ["$.a"]),
        (True, 1, ["$"]),
        (1, 1.0, []),
        ({"odd key": 1}, {"odd key": 2}, ['$["odd key"]']),
        ({"a": [{"b": 1}]}, {"a": [{"b": "1"}]}, ["$.a[0].b"]),
    ],
)
def test_differences(old: Any, new: Any, paths: list[str]) -> None:
    assert [written(found.path) for found in compared(old, new).differences] == paths


def test_a_document_that_nobody_can_follow() -> None:
    """Within what a handler's result may be."""

    def nested(levels: int, innermost: int) -> Any:
        document: Any = innermost
        for _ in range(levels):
            document = [document]
        return document

    assert len(compared(nested(100, 1), nested(100, 2)).differences) == 1
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        compared(nested(900, 1), nested(900, 2))


def test_of_an_unordered_array_the_better_pairs_are_compared() -> None:
    """By what is not ignored; what is left is compared in its order, at the places of the old one."""
    rules = Rules(
        None,
        (
            Rule(Pattern.parse("$.rows"), unordered=True),
            Rule(Pattern.parse("$.rows[*].id"), ignore=True),
        ),
    )
    old = {"rows": [{"id": 1, "n": "a"}, {"id": 2, "n": "b"}, {"id": 3, "n": "c"}]}
    new = {"rows": [{"id": 9, "n": "c"}, {"id": 8, "n": "x"}, {"id": 7, "n": "a"}, {"id": 6, "n": "new"}]}
    found = compared(old, new, rules)
    assert [(written(one.path), one.old, one.new) for one in found.differences] == [
        ("$.rows[1].n", "b", "x"),
        ("$.rows[3]", None, {"id": 6, "n": "new"}),
    ]
    assert {rule.pattern.text: count for rule, count in found.forgiven.items()} == {"$.rows": 2, "$.rows[*].id": 3}


def test_of_an_unordered_array_what_is_tolerated_is_no_reason_to_pair_otherwise() -> None:
    """A long one, in another order, with every price and every time a little off; and one row too many."""
    chance = Random(20260116)
    rows: list[dict[str, Any]] = [
        {"n": number, "price": chance.random(), "at": f"2026-01-16T00:00:{number % 60:02}"} for number in range(500)
    ]
    prices = [{"price": number * 0.5} for number in range(500)]
    old = {"rows": rows, "prices": prices}
    new: dict[str, list[Any]] = {
        "rows": [{**row, "price": row["price"] + 0.001, "at": "2026-01-16T00:00:30"} for row in rows] + [{"n": 500}],
        "prices": [{"price": one["price"] + 0.001} for one in prices if one["price"] != 100],
    }
    for items in new.values():
        chance.shuffle(items)
    rules = Rules(
        None,
        (
            Rule(Pattern.parse("$.*"), unordered=True),
            Rule(Pattern.parse("$..price"), absolute=0.01),
            Rule(Pattern.parse("$..at"), time=timedelta(minutes=1)),
        ),
    )
    found = [(one.kind, one.old, one.new) for one in compared(old, new, rules).differences]
    assert found == [(Kind.MISSING, {"price": 100.0}, None), (Kind.EXTRA, None, {"n": 500})]


def test_items_that_are_paired_by_a_member() -> None:
    rules = Rules(None, (Rule(Pattern.parse("$"), unordered=True, by="number"),))
    old = [{"number": 1, "sum": 5, "x": 0}, {"number": 2, "sum": 6, "x": 0}, {"number": 3, "sum": 7, "x": 0}]
    new = [{"number": 4, "sum": 1, "x": 9}, {"number": 3, "sum": 8, "x": 0}, {"number": 2, "sum": 6, "x": 0}]
    assert [(written(one.path), one.kind, one.old, one.new) for one in compared(old, new, rules).differences] == [
        ("$[0]", Kind.MISSING, old[0], None),
        ("$[2].sum", Kind.CHANGED, 7, 8),
        ("$[0]", Kind.EXTRA, None, new[0]),
    ]
