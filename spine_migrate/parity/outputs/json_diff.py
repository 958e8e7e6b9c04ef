"""Where two JSON documents differ.

Objects are compared by their keys, arrays place by place, numbers by their value (1 is 1.0), text character by
character; true is not 1. Rules can forgive a difference. A rule never makes one: of an array whose order does not
count, the way of pairing its items is taken that leaves fewer differences.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from spine_migrate.errors import ConfigurationError
from spine_migrate.parity.outputs.json_path import RESULT, Path
from spine_migrate.parity.outputs.pairing import Pair, pairs
from spine_migrate.parity.outputs.rules import NO_RULES, Rule, Rules


class Kind(StrEnum):
    """``missing``: only the old one has it; ``extra``: only the new one."""

    CHANGED = "changed"
    MISSING = "missing"
    EXTRA = "extra"


@dataclass(frozen=True)
class Difference:
    """``old`` and ``new`` are the values at ``path``, None where there is none."""

    path: Path
    kind: Kind
    old: Any = None
    new: Any = None


@dataclass
class Compared:
    """What is left, and how many differences each rule has forgiven."""

    differences: list[Difference] = field(default_factory=list)
    forgiven: Counter[Rule] = field(default_factory=Counter)

    def add(self, other: Compared) -> None:
        self.differences += other.differences
        self.forgiven.update(other.forgiven)


def compared(old: Any, new: Any, rules: Rules = NO_RULES, *, root: str = RESULT) -> Compared:
    """The outermost differences, in the order of keys and places. Raises ConfigurationError for documents that are
    nested deeper than Python follows, which is some hundred levels.
    """
    try:
        return Compared() if same(old, new) else _compared(old, new, (root,), rules)
    except RecursionError:
        raise ConfigurationError(f"What is at {root} is nested too deeply to be compared; leave it out.") from None


def same(old: Any, new: Any) -> bool:
    """Whether two documents are the same by every rule above."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(same(value, new[key]) for key, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(same, old, new))
    return isinstance(old, bool) is isinstance(new, bool) and bool(old == new)


def _compared(old: Any, new: Any, path: Path, rules: Rules) -> Compared:
    """Of two that are not the same."""
    if (ignoring := rules.ignoring(path)) is not None:
        return Compared(forgiven=Counter({ignoring: 1}))
    if isinstance(old, dict) and isinstance(new, dict):
        return _objects(old, new, path, rules)
    if isinstance(old, list) and isinstance(new, list):
        return _arrays(old, new, path, rules)
    if (forgiving := rules.forgiving(path, old, new)) is not None:
        return Compared(forgiven=Counter({forgiving: 1}))
    return Compared([Difference(path, Kind.CHANGED, old, new)])


def _objects(old: dict[str, Any], new: dict[str, Any], path: Path, rules: Rules) -> Compared:
    found = Compared()
    for key in sorted(old.keys() | new.keys()):
        if key in old and key in new:
            if not same(old[key], new[key]):
                found.add(_compared(old[key], new[key], (*path, key), rules))
        elif key in old:
            found.add(_alone(Difference((*path, key), Kind.MISSING, old=old[key]), rules))
        else:
            found.add(_alone(Difference((*path, key), Kind.EXTRA, new=new[key]), rules))
    return found


def _arrays(old: list[Any], new: list[Any], path: Path, rules: Rules) -> Compared:
    most = max(len(old), len(new))
    ordered = _paired(old, new, [(at, at) for at in range(most)], path, rules)
    unordering = rules.unordering(path)
    if unordering is None or not ordered.differences:
        return ordered

    def passes(left: int, right: int) -> bool:
        return same(old[left], new[right]) or not _compared(old[left], new[right], (*path, left), rules).differences

    unordered = _paired(old, new, pairs(old, new, path, rules, passes), path, rules)
    fewer = len(ordered.differences) - len(unordered.differences)
    if fewer <= 0:
        return ordered
    unordered.forgiven[unordering] += fewer
    return unordered


def _paired(old: list[Any], new: list[Any], places: Iterable[Pair], path: Path, rules: Rules) -> Compared:
    """An item that is compared has its place in ``old``."""
    found = Compared()
    for left, right in places:
        if left is not None and left < len(old) and right is not None and right < len(new):
            if not same(old[left], new[right]):
                found.add(_compared(old[left], new[right], (*path, left), rules))
        elif left is not None and left < len(old):
            found.add(_alone(Difference((*path, left), Kind.MISSING, old=old[left]), rules))
        elif right is not None:
            found.add(_alone(Difference((*path, right), Kind.EXTRA, new=new[right]), rules))
    return found


def _alone(difference: Difference, rules: Rules) -> Compared:
    ignoring = rules.ignoring(difference.path)
    return Compared([difference]) if ignoring is None else Compared(forgiven=Counter({ignoring: 1}))
