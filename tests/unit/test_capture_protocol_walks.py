"""Walks at random through worlds that are too large to be searched, by the same model: tests/protocol/README.md."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.protocol import application, applier, backfill, cutover
from tests.protocol.model import beginnings, fault, moves
from tests.protocol.rules import PROTOCOL, Rules, Scope
from tests.protocol.state import Move, State
from tests.protocol.state import Phase as Of

FULL = bool(os.environ.get("SPINE_CHAOS_FULL"))
SETTINGS = settings(
    max_examples=5_000 if FULL else 150,
    stateful_step_count=80,
    deadline=None,
    derandomize=not FULL,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)

CALM = Scope(keys=2, transactions=8, operations=12, ranges=2, by_place=True, rollbacks=False, kills=False)
KINDS = sorted(CALM.kinds)
WILD = replace(CALM, rollbacks=True, kills=True)
#: Nothing is begun any more: every step leads towards the end.
CLOSING = replace(CALM, operations=0)


class World(RuleBasedStateMachine):
    rules_kept: ClassVar[Rules] = PROTOCOL
    state: State

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        self.state = data.draw(st.sampled_from(list(beginnings(self.rules_kept, CALM))))

    def step(self, possible: Iterable[Move], data: st.DataObject) -> None:
        by_name = dict(possible) if self.state.cutover != Of.OVER else {}
        if by_name:
            self.state = by_name[data.draw(st.sampled_from(list(by_name)))]

    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        """The kind first: of some there are many more operations than of others."""
        kinds = frozenset({data.draw(st.sampled_from(KINDS))})
        self.step(application.moves(self.state, self.rules_kept, replace(CALM, kinds=kinds)), data)

    @rule(data=st.data())
    def fill(self, data: st.DataObject) -> None:
        self.step(backfill.moves(self.state, self.rules_kept, CALM), data)

    @rule(data=st.data())
    def apply(self, data: st.DataObject) -> None:
        self.step(applier.moves(self.state, self.rules_kept, CALM), data)

    @rule(data=st.data())
    def conduct(self, data: st.DataObject) -> None:
        self.step(cutover.moves(self.state, self.rules_kept, CALM), data)

    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """A kill or a rollback."""
        calm = dict(moves(self.state, self.rules_kept, CALM))
        self.step((move for move in moves(self.state, self.rules_kept, WILD) if move[0] not in calm), data)

    @invariant()
    def sound(self) -> None:
        found = fault(self.state)
        assert found is None, found

    def teardown(self) -> None:
        """What is open is ended, and the cutover comes within as many steps as there can be."""
        for _ in range(500):
            if self.state.cutover == Of.OVER:
                return
            self.state = next(iter(moves(self.state, self.rules_kept, CLOSING)))[1]
            self.sound()
        raise AssertionError("the cutover is out of reach")


def test_no_walk_finds_a_fault() -> None:
    run_state_machine_as_test(World, settings=SETTINGS)


@pytest.mark.parametrize("missing", ["triggers_first", "keys_only"])
def test_walks_find_that_a_rule_is_missing(missing: str) -> None:
    """So they would find it here too; the other rules are for the search, which misses nothing in its scope."""

    class Without(World):
        rules_kept = replace(PROTOCOL, **{missing: False})

    walks = settings(SETTINGS, max_examples=2000, phases=[Phase.generate], report_multiple_bugs=False, database=None)
    with pytest.raises(AssertionError, match=r"Nothing is pending|never committed|The cutover is over"):
        run_state_machine_as_test(Without, settings=walks)
