"""The bound on a rate, against exact arithmetic and published values."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine_migrate.parity.outputs.confidence import at_most, samples_needed, upper_bound


def _exactly(seen: int, samples: int, rate: float) -> Fraction:
    """The probability of so many or fewer, without rounding."""
    exact = Fraction(rate)
    return sum(
        (comb(samples, count) * exact**count * (1 - exact) ** (samples - count) for count in range(seen + 1)),
        Fraction(0),
    )


@pytest.mark.parametrize(
    ("seen", "samples", "confidence", "bound"),
    [
        # qbeta(confidence, seen + 1, samples - seen), by scipy 1.17.1 (beta.ppf).
        (0, 10, 0.95, 0.258865551),
        (1, 10, 0.95, 0.394163302),
        (2, 20, 0.95, 0.282618525),
        (5, 100, 0.95, 0.102253378),
        (1, 1000, 0.95, 0.004734994),
        (30, 100, 0.99, 0.418093962),
        (999, 1000, 0.95, 0.999948708),
        (700, 100_000, 0.95, 0.007449425),
    ],
)
def test_known_values(seen: int, samples: int, confidence: float, bound: float) -> None:
    assert upper_bound(seen, samples, confidence) == pytest.approx(bound, rel=1e-7)


@given(
    st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n))),
    st.sampled_from([0.8, 0.95, 0.999]),
)
def test_at_the_bound_it_is_as_improbable_as_was_asked(of: tuple[int, int], confidence: float) -> None:
    seen, samples = of
    bound = upper_bound(seen, samples, confidence)
    assert seen / samples < bound < 1
    assert float(_exactly(seen, samples, bound)) == pytest.approx(1 - confidence, rel=1e-6)


@given(st.integers(1, 60), st.data())
def test_the_sum_is_the_exact_one(samples: int, data: st.DataObject) -> None:
    seen = data.draw(st.integers(0, samples - 1))
    rate = data.draw(st.floats(seen / samples, 0.999, exclude_min=True))
    assert at_most(seen, samples, rate) == pytest.approx(float(_exactly(seen, samples, rate)), rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("samples", [30, 300, 3000, 10**6])
def test_the_rule_of_three(samples: int) -> None:
    assert upper_bound(0, samples) == pytest.approx(3 / samples, rel=0.06)


def test_ends() -> None:
    assert upper_bound(0, 0) == 1
    assert upper_bound(7, 7) == 1
    with pytest.raises(ValueError, match="Of 3 samples 4"):
        upper_bound(4, 3)
    with pytest.raises(ValueError, match="Confidence"):
        upper_bound(0, 3, 1.0)


@given(st.integers(0, 20), st.sampled_from([0.001, 0.01, 0.1, 0.5]))
def test_as_many_as_are_needed_and_no_more(seen: int, rate: float) -> None:
    needed = samples_needed(seen, rate)
    assert needed is not None
    assert upper_bound(seen, needed) <= rate < upper_bound(seen, max(needed - 1, seen))


def test_what_no_number_of_samples_shows() -> None:
    assert samples_needed(1, 1e-12) is None
    assert samples_needed(0, 0.01) == 299
