"""The whole: where it begins, what can happen next, and what must never be seen."""

from __future__ import annotations

from collections.abc import Iterator

from tests.protocol import application, applier, backfill, cutover
from tests.protocol.rules import Rules, Scope
from tests.protocol.state import Applier, Batch, Move, Phase, Row, State, Writer, shown


def beginnings(rules: Rules, scope: Scope) -> Iterator[State]:
    """The source holds the first of the rows, any number of them, and the target none; nothing is installed. Keys are
    alike as long as each has a range of its own, or all have one: which of them are there makes no difference.
    """
    if scope.ranges not in {1, scope.keys} and not scope.by_place:
        raise ValueError(f"{scope.keys} keys in {scope.ranges} ranges are not alike")
    for present in range(scope.keys + 1):
        rows = [Row(version=key + 1, place=key % scope.ranges) for key in range(present)]
        yield State(
            source=(*rows, *[None] * (scope.keys - present)),
            target=(None,) * scope.keys,
            writers=(Writer(),) * scope.transactions,
            batches=(Batch(),) * scope.ranges,
            appliers=(Applier(),) * (1 if rules.one_applier else 2),
            versions=present,
            committed=frozenset(row.version for row in rows),
        )


def moves(state: State, rules: Rules, scope: Scope) -> Iterator[Move]:
    """Every step that a session can take now, with what it leads to. None after the cutover: that is the end."""
    if state.cutover == Phase.OVER:
        return
    yield from application.moves(state, rules, scope)
    yield from backfill.moves(state, rules, scope)
    yield from applier.moves(state, rules, scope)
    yield from cutover.moves(state, rules, scope)


def phantom(state: State) -> str | None:
    """What is wrong at any time: the target shows what the source never did."""
    for version in state.target:
        if version is not None and version not in state.committed:
            return f"The target holds version {version}, which was never committed in the source."
    return None


def divergence(state: State) -> str | None:
    """What is wrong where nothing is pending, before the cutover or after it: the sides are not equal."""
    drained = cutover.drained(state)
    if not drained and state.cutover != Phase.OVER:
        return None
    source = [None if row is None else row.version for row in state.source]
    differing = [key for key, version in enumerate(source) if state.target[key] != version]
    if differing:
        here, there = (shown((key, side[key]) for key in differing) for side in (source, state.target))
        return f"Nothing is pending, the source has {here} and the target {there}."
    return None if drained else "The cutover is over and something is pending."


def fault(state: State) -> str | None:
    return phantom(state) or divergence(state)
