"""The rate of WAL over a window, from readings of a clock of our own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_migrate.carry.signals.wal_rate import WINDOW, WalRate


def test_the_first_reading_says_nothing() -> None:
    assert WalRate().rate(10_000, 5.0) is None


@given(st.integers(0, 10**9), st.lists(st.floats(0.5, 30), min_size=1, max_size=60))
def test_a_steady_rate_is_found_however_often_one_looks(rate: int, waits: list[float]) -> None:
    signal, at = WalRate(), 0.0
    signal.rate(0, at)
    for wait in waits:
        at += wait
        assert signal.rate(round(rate * at), at) == pytest.approx(rate, abs=2)


def test_a_burst_is_forgotten_after_the_window() -> None:
    signal = WalRate()
    signal.rate(0, 0.0)
    assert signal.rate(1_000_000, 1.0) == 1_000_000
    rates = [signal.rate(1_000_000, 1.0 + second) for second in range(1, 12)]
    assert rates == sorted(rates, key=lambda rate: -(rate or 0)), "it only falls"
    assert rates[int(WINDOW) - 2] == pytest.approx(1_000_000 / WINDOW)
    assert rates[int(WINDOW)] == 0


@pytest.mark.parametrize(("position", "at"), [(500, 2.0), (2000, 0.5)])
def test_another_server_or_another_clock_starts_anew(position: int, at: float) -> None:
    signal = WalRate()
    signal.rate(1000, 1.0)
    assert signal.rate(position, at) is None
    assert signal.rate(position + 100, at + 1) == 100
