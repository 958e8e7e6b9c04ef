"""How often something may happen that was seen so many times: the exact upper bound on a rate.

C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
Biometrika 26 (1934): the rate at which as few as were seen, or fewer, would be as improbable as 1 - confidence. It is a
quantile of the beta distribution, found here by bisection on the binomial tail; no library that is at hand has it.
For none in n it is near 3/n at 95 % (the rule of three: Hanley and Lippman-Hand, JAMA 249, 1983).
"""

from __future__ import annotations

import math

#: Halvings of an interval of length 1, after which a double has no more digits.
_HALVINGS = 100
#: Where the rest of a sum does not count any more.
_NEGLIGIBLE = 1e-18
#: Beyond it no number of samples is looked for.
_MOST_SAMPLES = 10**9


def upper_bound(seen: int, samples: int, confidence: float = 0.95) -> float:
    """One-sided: the rate is below it with at least this ``confidence``, if samples are independent. 1 where there is
    no sample.
    """
    if not 0 <= seen <= samples:
        raise ValueError(f"Of {samples} samples {seen} cannot have been seen.")
    if not 0 < confidence < 1:
        raise ValueError(f"Confidence is above 0 and below 1, not {confidence!r}.")
    if seen == samples:
        return 1.0
    improbable = 1 - confidence
    if seen == 0:
        return -math.expm1(math.log(improbable) / samples)
    low, high = seen / samples, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if at_most(seen, samples, middle) > improbable:
            low = middle
        else:
            high = middle
    return high


def samples_needed(seen: int, rate: float, confidence: float = 0.95) -> int | None:
    """The fewest samples, with so many seen, by which the bound is at most ``rate``; None beyond a billion."""
    low, high = seen, max(2 * seen, 1)
    while upper_bound(seen, high, confidence) > rate:
        low, high = high, 2 * high
        if low > _MOST_SAMPLES:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        if upper_bound(seen, middle, confidence) > rate:
            low = middle
        else:
            high = middle
    return high


def at_most(seen: int, samples: int, rate: float) -> float:
    """The probability that a binomial variable is ``seen`` or less, for a rate above ``seen / samples``: from there
    down its terms only become smaller.
    """
    if rate >= 1:
        return 0.0
    ways = math.lgamma(samples + 1) - math.lgamma(seen + 1) - math.lgamma(samples - seen + 1)
    term = math.exp(ways + seen * math.log(rate) + (samples - seen) * math.log1p(-rate))
    total, odds = 0.0, (1 - rate) / rate
    for count in range(seen, -1, -1):
        total += term
        if term <= total * _NEGLIGIBLE:
            break
        term *= count / (samples - count + 1) * odds
    return total
