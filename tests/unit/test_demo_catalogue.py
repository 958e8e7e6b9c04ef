"""The catalogue of awkward rows is complete, and so is the document made of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from spine_migrate.demo import kind as kinds
from spine_migrate.demo.awkward import CATALOGUE, FOLLOWING, catalogue_markdown, place
from spine_migrate.demo.kind import Draw, Entity, Kind

RUNBOOK = Path(__file__).parents[2] / "runbooks" / "demo.md"
FATES = {
    kinds.MOVED,
    kinds.SHORTENED,
    kinds.LINK_BROKEN,
    kinds.LINK_WAITING,
    kinds.ONE_MOVES,
    kinds.ONE_MOVES_EVENT,
    kinds.TOO_LONG,
    kinds.UNKNOWN_VALUE,
    kinds.NULL_VALUE,
    kinds.OUT_OF_RANGE,
    kinds.ORPHAN,
    kinds.PARENT_QUARANTINED,
}


def test_every_fate_is_that_of_some_kind_and_no_name_stands_twice() -> None:
    named = [(kind.name, kind.fate) for kind in CATALOGUE] + [(name, fate) for name, fate, _story in FOLLOWING]
    assert {fate for _name, fate in named} == FATES
    assert [name for name, times in Counter(name for name, _fate in named).items() if times > 1] == []


@pytest.mark.parametrize("kind", CATALOGUE, ids=lambda kind: kind.name)
def test_groups_follow_the_share_within_their_bounds(kind: Kind) -> None:
    assert kind.groups(0, 1.0) == kind.groups(1_000_000, 0) == 0
    assert kind.groups(1, 0.001) == kind.at_least
    if kind.at_most is None:
        assert kind.groups(10_000_000, 1.0) == kind.per_100k * 100
        assert kind.groups(10_000_000, 2.0) == kind.per_100k * 200
    else:
        assert kind.groups(10_000_000, 1.0) == kind.at_most


@pytest.mark.parametrize("entity", ["executions", "execution_events", "jobs"])
@pytest.mark.parametrize("rows", [1, 3_000, 200_000])
def test_keys_are_unique_and_about_one_row_in_a_hundred_is_awkward(entity: Entity, rows: int) -> None:
    placed = place(entity, Draw(1), rows, 1.0)
    assert len({row.key for row in placed}) == len(placed)
    assert {row.kind for row in placed} == {kind.name for kind in CATALOGUE if kind.entity == entity}
    if rows == 200_000:
        assert 0.008 * rows < len(placed) < 0.013 * rows


def test_another_seed_makes_other_keys() -> None:
    first, second = (place("execution_events", Draw(seed), 100, 1.0) for seed in (1, 2))
    assert len(first) == len(second)
    assert {row.key for row in first}.isdisjoint(row.key for row in second)


def test_the_runbook_holds_the_catalogue_as_it_is() -> None:
    assert catalogue_markdown() in RUNBOOK.read_text(encoding="utf-8")
