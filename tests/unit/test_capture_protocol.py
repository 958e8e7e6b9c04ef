"""The protocol of capture, apply and backfill: searched exhaustively in small scope, walked at random in a larger one.

What is found stands in tests/protocol/README.md, which is checked here piece by piece: no search is made twice.
"""

from __future__ import annotations

import os
import sys
from dataclasses import fields

import pytest

from tests.protocol.document import BEGINNING, DOCUMENT, KEPT, LEFT_OUT, SPARE, scope_row, section, spare_lines
from tests.protocol.removals import REMOVALS, SCOPES, SPARES, WIDE_SCOPES, Removal, Spare
from tests.protocol.rules import PROTOCOL, Rules, Scope
from tests.protocol.search import Found, search

FULL = bool(os.environ.get("SPINE_CHAOS_FULL"))
STALE = "Run python -m tests.protocol"


def documented() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def told(what: object, found: Found) -> None:
    sys.stdout.write(f"\n{what}: {found.states:,} states, {found.steps:,} steps. {found.fault or 'No fault.'}\n")


@pytest.mark.parametrize("scope", SCOPES + (WIDE_SCOPES if FULL else ()), ids=str)
def test_the_protocol_holds_whatever_happens(scope: Scope) -> None:
    """No interleaving and no kill leads to a fault, nor to where the cutover is out of reach."""
    found = search(PROTOCOL, scope)
    told(scope, found)
    assert found.fault is None, [step.what for step in found.trace]
    assert found.stuck == 0
    assert scope in WIDE_SCOPES or scope_row(scope, found) in documented(), STALE


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda removal: " and ".join(removal.without))
def test_without_a_rule_the_search_finds_a_fault(removal: Removal) -> None:
    """The trace in the document is what the search finds, step by step."""
    found = search(removal.rules, removal.scope, removal.wrong)
    told(" and ".join(removal.without), found)
    assert found.fault is not None
    assert section(removal, found) in documented(), STALE


def test_it_is_the_missing_rule_that_fails() -> None:
    """Each fault is found where the search with all rules kept finds none."""
    for one in (*REMOVALS, *SPARES):
        assert any(one.scope.within(scope) for scope in SCOPES), one


@pytest.mark.parametrize("spare", SPARES, ids=lambda spare: spare.without)
def test_a_rule_that_others_make_up_for_is_not_missed(spare: Spare) -> None:
    found = search(spare.rules, spare.scope)
    told(spare.without, found)
    assert found.fault is None, [step.what for step in found.trace]
    assert found.stuck == 0
    assert spare_lines(spare, found) in documented(), STALE


def test_every_rule_is_left_out_once() -> None:
    """Each alone: either that is a fault or it is said which rules make up for it, and with them it is one."""
    alone = {removal.without[0] for removal in REMOVALS if len(removal.without) == 1}
    together = {rule for removal in REMOVALS if len(removal.without) > 1 for rule in removal.without}
    spare = {one.without for one in SPARES}
    assert alone | spare == {field.name for field in fields(Rules)}
    assert not alone & spare
    assert spare <= together


def test_the_document_has_these_parts_and_no_others() -> None:
    text = documented()
    assert all(part in text for part in (BEGINNING, KEPT, LEFT_OUT, SPARE)), STALE
    titles = [line.removeprefix("### ") for line in text.splitlines() if line.startswith("### ")]
    assert titles == [removal.title for removal in REMOVALS], STALE
    rows = len(text.split(KEPT)[1].split("\n\n")[0].splitlines())
    assert rows == len(SCOPES), STALE
