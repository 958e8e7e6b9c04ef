"""Segments of a table, positions in it, and the SQL that names a batch's rows."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from spine_migrate.backfill.batch import segments, tid
from spine_migrate.carry.rows import Care
from spine_migrate.carry.scope import Blocks, Parameters
from spine_migrate.carry.statements import Found, Rejects
from spine_migrate.db.catalog import Leaf, Name


def leaf(number: int, blocks: int) -> Leaf:
    return Leaf(Name("s", f"t{number}"), 1000 + number, blocks)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=6), st.integers(1, 64))
def test_segments_cover_every_block_of_every_leaf_once_and_the_last_has_no_end(sizes: list[int], count: int) -> None:
    made = list(segments([leaf(number, blocks) for number, blocks in enumerate(sizes)], count))
    for number, blocks in enumerate(sizes):
        ranges = [(low, high) for one, low, high in made if one.name.table == f"t{number}"]
        assert ranges[0][0] == 0
        assert ranges[-1][1] is None
        assert all(high == low for (_, high), (low, _) in pairwise(ranges))
        assert all(low <= blocks for low, _ in ranges)


@given(st.integers(1, 1_000_000), st.integers(1, 64))
def test_one_table_is_cut_into_as_many_segments_as_asked_for(blocks: int, count: int) -> None:
    assert len(list(segments([leaf(0, blocks)], count))) == count


@given(st.integers(0, 2**32 - 2), st.integers(0, 65535))
def test_a_position_reads_as_it_is_written(block: int, offset: int) -> None:
    assert tid(f"({block},{offset})") == (block, offset)


def test_rejected_rows_are_left_out_by_parameter_never_by_text() -> None:
    parameters = Parameters()
    text = Blocks(Name('s"', "t%"), "(0,0)", "(9,1)").without("s", ["(1,2)"], parameters).as_string(None)
    assert parameters.values == ["(0,0)", "(9,1)", ["(1,2)"]]
    assert "(1,2)" not in text
    assert "$3" in text


def test_the_list_of_rejects_is_not_written_where_there_are_none() -> None:
    parameters = Parameters()
    Blocks(Name("s", "t"), "(0,0)", "(9,1)").without("s", [], parameters)
    assert len(parameters.values) == 2


def test_a_leaf_is_read_alone() -> None:
    """Without ONLY a parent's rows would be its children's as well, with tids that mean nothing there."""
    assert Blocks(Name("s", "t"), "(0,0)", "(9,1)").table("s").as_string(None) == 'ONLY "s"."t" AS "s"'


def test_adopted_rows_are_left_out_but_not_quarantined() -> None:
    rejects = Rejects(judged=["a"], found={"b": Found("key_taken", "taken")}, adopted=["c"])
    assert rejects.handles == ["a", "b", "c"]
    assert rejects.quarantined == 2


def test_only_a_refused_value_is_not_looked_at_again() -> None:
    assert not Care().refused_itself
    assert not Care(refused=Found("server_refused", "", sqlstate="23505")).refused_itself
    assert Care(refused=Found("server_refused", "", sqlstate="22P02")).refused_itself
