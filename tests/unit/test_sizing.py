"""How many rows the next batch takes."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from spine_migrate.backfill.sizing import FIRST, LARGEST, SMALLEST, TARGET_SECONDS, Sizer


def settle(rate: float, batches: int = 60) -> Sizer:
    """After many batches of a server that moves ``rate`` rows a second."""
    sizer = Sizer(None)
    for _ in range(batches):
        sizer.succeeded(sizer.rows, sizer.rows / rate)
    return sizer


@given(st.floats(SMALLEST * 2, LARGEST / 2))
def test_settles_where_a_batch_takes_the_target(rate: float) -> None:
    assert abs(settle(rate).rows / rate - TARGET_SECONDS) < 0.05


def test_stays_between_its_bounds_whatever_the_server_does() -> None:
    assert settle(1.0).rows == SMALLEST
    assert settle(1e9).rows == LARGEST


def test_one_slow_batch_brings_it_down_at_once_but_up_it_goes_by_steps() -> None:
    sizer = settle(50_000)
    steady = sizer.rows
    sizer.succeeded(steady, 20.0)
    down = sizer.rows
    assert down < steady * 0.7
    sizer.succeeded(down, down / 500_000 + 0.5)
    assert sizer.rows <= down * 1.2 + 1


def test_doubles_while_batches_are_far_too_short() -> None:
    sizer = Sizer(None)
    sizer.succeeded(FIRST, 0.01)
    assert sizer.rows == FIRST * 2


def test_an_empty_batch_says_nothing_about_the_rate() -> None:
    sizer = Sizer(None)
    sizer.succeeded(0, 0.0)
    assert sizer.rows == FIRST


def test_a_fixed_size_stays() -> None:
    sizer = Sizer(7)
    sizer.succeeded(7, 100.0)
    sizer.succeeded(7, 0.0001)
    assert sizer.rows == 7


@given(st.integers(1, LARGEST), st.integers(1, 40))
def test_halves_down_to_one_row_and_comes_back(fixed: int, failures: int) -> None:
    sizer = Sizer(fixed)
    seen = [sizer.rows]
    for _ in range(failures):
        if sizer.rows == 1:
            break
        sizer.failed()
        seen.append(sizer.rows)
    assert all(1 <= after <= max(1, before // 2) for before, after in itertools.pairwise(seen))
    for _ in range(20):
        sizer.succeeded(sizer.rows, 0.1)
    assert sizer.rows == fixed


def test_halving_reaches_a_single_row_from_the_largest_batch() -> None:
    sizer = Sizer(LARGEST)
    for _ in range(18):
        sizer.failed()
    assert sizer.rows == 1


def test_a_busy_server_halves_it_and_from_then_on_it_grows_by_small_steps() -> None:
    sizer = settle(50_000)
    steady = sizer.rows
    for _ in range(3):
        sizer.ease()
    assert sizer.rows == steady // 8
    sizes = [sizer.rows]
    for _ in range(20):
        sizer.succeeded(sizer.rows, sizer.rows / 50_000)
        sizes.append(sizer.rows)
    assert all(after <= before * 1.2 + 1 for before, after in itertools.pairwise(sizes))
    assert sizes[-1] == steady


def test_a_busy_server_leaves_a_size_that_somebody_fixed_and_goes_no_lower_than_the_smallest() -> None:
    fixed, sizer = Sizer(7), Sizer(None)
    for _ in range(30):
        fixed.ease()
        sizer.ease()
    assert (fixed.rows, sizer.rows) == (7, SMALLEST)


@given(st.floats(0.1, 10))
def test_settles_where_a_batch_takes_the_target_that_is_asked_for(target: float) -> None:
    sizer = Sizer(None, target)
    for _ in range(60):
        sizer.succeeded(sizer.rows, sizer.rows / 5_000)
    assert abs(sizer.rows / 5_000 - target) < 0.05


def test_other_wishes_while_it_is_going() -> None:
    sizer = settle(50_000)
    sizer.change(300, TARGET_SECONDS)
    assert sizer.rows == 300
    sizer.failed()
    assert sizer.rows == 150
    sizer.change(300, TARGET_SECONDS)
    assert sizer.rows == 150, "nothing new is asked for"
    sizer.change(None, TARGET_SECONDS / 2)
    assert sizer.rows == 300
    for _ in range(60):
        sizer.succeeded(sizer.rows, sizer.rows / 50_000)
    assert abs(sizer.rows / 50_000 - TARGET_SECONDS / 2) < 0.05
