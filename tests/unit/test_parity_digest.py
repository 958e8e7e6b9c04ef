"""Digests as numbers, portions of tables, and the merge of two ordered streams."""

from __future__ import annotations

import random
import struct
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from spine_migrate.db.catalog import Leaf, Name
from spine_migrate.mapping.emit.digest import BUCKETS
from spine_migrate.parity.buckets import Buckets
from spine_migrate.parity.digest import portions
from spine_migrate.parity.drill import Row, chunks, unlike
from spine_migrate.parity.rows import Keys

SIGNED = st.integers(-(2**63), 2**63 - 1)


def packed(values: dict[int, int]) -> bytes:
    return struct.pack(f">{BUCKETS}q", *(values.get(number, 0) for number in range(BUCKETS)))


def buckets(*portions: dict[int, list[int]]) -> Buckets:
    """From hashes by bucket, as the server packs them."""
    made = Buckets()
    for portion in portions:
        hashes = dict.fromkeys(portion, 0)
        for number, each in portion.items():
            for one in each:
                hashes[number] ^= one
        made.add(packed({number: len(each) for number, each in portion.items()}), packed(hashes))
    return made


# Packing 65,536 numbers takes a while.
@settings(deadline=None, max_examples=20)
@given(
    st.dictionaries(st.integers(0, BUCKETS - 1), st.lists(SIGNED, min_size=1, max_size=4), max_size=6),
    st.randoms(use_true_random=False),
)
def test_digests_do_not_depend_on_the_portions(rows: dict[int, list[int]], chance: random.Random) -> None:
    split: list[dict[int, list[int]]] = [defaultdict(list) for _ in range(3)]
    for number, hashes in rows.items():
        for hashed in hashes:
            chance.choice(split)[number].append(hashed)
    one, other = buckets(rows), buckets(*split)
    assert one.differing(other) is None
    assert one.rows == other.rows == sum(map(len, rows.values()))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, BUCKETS - 1), SIGNED, SIGNED.filter(bool))
def test_the_bucket_that_differs_is_named_by_its_bit(number: int, hashed: int, change: int) -> None:
    bits = buckets({7: [1], number: [hashed]}).differing(buckets({7: [1], number: [hashed ^ change]}))
    assert bits is not None
    # As get_bit() numbers them: from the right in each byte.
    assert [n for n in range(BUCKETS) if bits[n // 8] >> (n % 8) & 1] == [number]


def test_two_like_rows_that_one_side_has_more_are_counted_though_their_hashes_cancel() -> None:
    assert buckets({5: [9]}).differing(buckets({5: [9, 9, 9]})) is not None


def leaf(number: int, blocks: int) -> Leaf:
    return Leaf(Name("s", f"t{number}"), number, blocks)


@given(st.lists(st.integers(0, 500), min_size=1, max_size=8), st.integers(1, 100))
def test_portions_cover_every_block_once_and_are_of_a_size(sizes: list[int], size: int) -> None:
    made = list(portions([leaf(number, blocks) for number, blocks in enumerate(sizes)], size, source=True))
    ranges = [one for portion in made for one in portion.ranges]
    for number, blocks in enumerate(sizes):
        mine = [(one.low, one.high) for one in ranges if one.table.table == f"t{number}"]
        assert mine[0][0] == 0
        assert mine[-1][1] is None
        assert [low for low, _ in mine[1:]] == [high for _, high in mine[:-1]]
        assert mine[-1][0] <= blocks
    assert all(portion.blocks <= size + len(portion.ranges) for portion in made)


ROW = st.tuples(st.integers(0, 3), st.sampled_from(["a", "b", "é", "z" * 3]), st.integers(0, 2))


@given(st.lists(ROW, max_size=12), st.lists(ROW, max_size=12))
def test_the_merge_gives_each_key_whose_rows_differ_once_and_whole(
    old: list[tuple[int, str, int]], new: list[tuple[int, str, int]]
) -> None:
    legacy = [Row(place, key, f"s{number}", hashed) for number, (place, key, hashed) in enumerate(old)]
    ours = [Row(place, key, None, hashed) for place, key, hashed in new]
    found = list(unlike(iter(sorted(legacy, key=lambda row: row.order)), iter(sorted(ours, key=lambda row: row.order))))
    expected: list[tuple[set[str | None], str]] = []
    for place, key in {(place, key) for place, key, _ in [*old, *new]}:
        left = [row for row in legacy if (row.place, row.target_key) == (place, key)]
        right = [row for row in ours if (row.place, row.target_key) == (place, key)]
        if sorted(row.hash for row in left) != sorted(row.hash for row in right):
            expected.append(({row.source_key for row in left}, key))
    assert sorted((sorted(keys.source), *keys.target) for keys in found) == sorted(
        (sorted(map(str, sources)), key) for sources, key in expected
    )


def test_rows_without_a_key_are_never_alike() -> None:
    assert [keys.source for keys in unlike(iter([Row(1, None, "a", 5)]), iter([Row(1, None, None, 5)]))] == [["a"]]


def test_chunks_keep_the_rows_of_a_key_together() -> None:
    groups = [Keys(["a", "b", "c"], ["k"]), Keys([], ["l"]), Keys(["d"], [])]
    made = list(chunks(iter(groups), 3))
    assert [(chunk.source, chunk.target) for chunk in made] == [(["a", "b", "c"], ["k"]), (["d"], ["l"])]
