"""Breadth first through every interleaving: the first fault found is one with the fewest steps."""

from __future__ import annotations

import gc
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.protocol.model import beginnings, fault, moves
from tests.protocol.rules import Rules, Scope
from tests.protocol.state import Phase, State

NONE = -1


@dataclass(frozen=True)
class Step:
    """``what`` led to ``state``."""

    what: str
    state: State


@dataclass(frozen=True)
class Found:
    """``fault`` None: no state within the scope has one. ``trace`` is the way to the fault, the beginning included.

    ``steps`` counts the transitions that were looked at, ``stuck`` the states from which no cutover can be reached.
    """

    states: int
    steps: int
    fault: str | None = None
    trace: tuple[Step, ...] = ()
    stuck: int = 0


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """The states have no cycles, and the collector would go through all of them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_nothing_collected()
def search(rules: Rules, scope: Scope, wrong: Callable[[State], str | None] = fault) -> Found:
    """Every state that can be reached, up to the first that is ``wrong``."""
    numbers: dict[State, int] = {}
    states: list[State] = []
    parents = array("l")
    what: list[str] = []
    edges = (array("l"), array("l"))

    def met(state: State, parent: int, label: str) -> int:
        number = numbers.setdefault(state, len(states))
        if number == len(states):
            states.append(state)
            parents.append(parent)
            what.append(label)
        return number

    def trace(number: int) -> Iterator[Step]:
        while number != NONE:
            yield Step(what[number], states[number])
            number = parents[number]

    for state in beginnings(rules, scope):
        met(state, NONE, "beginning")
    number = 0
    while number < len(states):
        found = wrong(states[number])
        if found is not None:
            return Found(len(states), len(edges[0]), found, tuple(trace(number))[::-1])
        for label, after in moves(states[number], rules, scope):
            edges[0].append(number)
            edges[1].append(met(after, number, label))
        number += 1
    return Found(len(states), len(edges[0]), stuck=_stuck(states, edges))


def _stuck(states: list[State], edges: tuple[array[int], array[int]]) -> int:
    """How many states there are from which the cutover cannot be reached, whatever happens."""
    before: list[array[int]] = [array("l") for _ in states]
    for start, end in zip(*edges, strict=True):
        before[end].append(start)
    reaching = [number for number, state in enumerate(states) if state.cutover == Phase.OVER]
    seen = set(reaching)
    while reaching:
        for number in before[reaching.pop()]:
            if number not in seen:
                seen.add(number)
                reaching.append(number)
    return len(states) - len(seen)
