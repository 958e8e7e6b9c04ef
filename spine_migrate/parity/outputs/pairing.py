"""Which items of two arrays are compared with each other where their order does not count.

Items have a key of all that has to be the same: not what a rule ignores, and not what it tolerates. Of the items of one
key those are paired that the rules let pass, going through both sides by the tolerated values in their order. What is
left is paired in the order in which it stands. With ``by`` the key is one member of the items, and what is left is
alone.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

from spine_migrate.parity.outputs.json_path import Path
from spine_migrate.parity.outputs.rules import Rules

#: Places in the old and in the new array; None where there is nothing to be compared with.
Pair = tuple[int | None, int | None]
Passes = Callable[[int, int], bool]
#: Tolerated values, told apart by type, since text and numbers have no order.
_Loose = tuple[tuple[int, Any], ...]


def pairs(old: list[Any], new: list[Any], path: Path, rules: Rules, passes: Passes) -> list[Pair]:
    """By their places in the old array; the new ones that are alone come last. ``passes`` says whether two items, by
    their places, are the same to the rules.
    """
    rule = rules.unordering(path)
    if rule is not None and rule.by is not None:
        made = _by_member(old, new, rule.by)
    else:
        made = _by_key(_Side(old, path, rules), _Side(new, path, rules), passes)
    return sorted(made, key=lambda pair: (pair[0] is None, pair))


class _Side:
    """The places of an array's items by key, each with its tolerated values, in their order."""

    def __init__(self, items: list[Any], path: Path, rules: Rules) -> None:
        self.buckets: defaultdict[str, list[tuple[_Loose, int]]] = defaultdict(list)
        for at, item in enumerate(items):
            loose: list[tuple[int, Any]] = []
            key = json.dumps(_strict(item, (*path, at), rules, loose), sort_keys=True)
            self.buckets[key].append((tuple(loose), at))
        for bucket in self.buckets.values():
            bucket.sort()


def _by_key(old: _Side, new: _Side, passes: Passes) -> list[Pair]:
    made: list[Pair] = []
    left: list[int] = []
    right: list[int] = []
    for key in old.buckets.keys() | new.buckets.keys():
        ours, theirs = old.buckets.get(key, []), new.buckets.get(key, [])
        mine = other = 0
        while mine < len(ours) and other < len(theirs):
            (our_values, our_place), (their_values, their_place) = ours[mine], theirs[other]
            if passes(our_place, their_place):
                made.append((our_place, their_place))
                mine, other = mine + 1, other + 1
            elif our_values <= their_values:
                left.append(our_place)
                mine += 1
            else:
                right.append(their_place)
                other += 1
        left += [place for _, place in ours[mine:]]
        right += [place for _, place in theirs[other:]]
    return made + list(zip_longest(sorted(left), sorted(right)))


def _by_member(old: list[Any], new: list[Any], member: str) -> list[Pair]:
    ours, theirs = _places(old, member), _places(new, member)
    return [pair for key in ours.keys() | theirs.keys() for pair in zip_longest(ours.get(key, []), theirs.get(key, []))]


def _places(items: list[Any], member: str) -> dict[str, list[int]]:
    """Items without it have the same key."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for at, item in enumerate(items):
        has = isinstance(item, dict) and member in item
        found[json.dumps(item[member], sort_keys=True) if has else ""].append(at)
    return found


def _strict(value: Any, path: Path, rules: Rules, loose: list[tuple[int, Any]]) -> Any:
    """The value without what is ignored, and without what is tolerated, which goes to ``loose``."""
    if isinstance(value, dict):
        return {
            key: _strict(inner, (*path, key), rules, loose)
            for key, inner in sorted(value.items())
            if rules.ignoring((*path, key)) is None
        }
    if isinstance(value, list):
        return [_strict(inner, (*path, at), rules, loose) for at, inner in enumerate(value)]
    if not rules.tolerates(path, value):
        return value
    loose.append((1, value) if isinstance(value, str) else (0, value))
    return None
