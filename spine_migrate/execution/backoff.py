"""How long to wait before a run is tried again."""

from __future__ import annotations

import random

#: Seconds. Beyond it waiting longer tells nobody anything.
LONGEST = 3600.0


def delay(
    first_seconds: float, attempt: int, *, longest: float = LONGEST, chance: random.Random | None = None
) -> float:
    """Seconds after the failure of ``attempt`` (from 1): doubled each time, at most ``longest``, then between half and
    all of it by chance, so that runs that failed together are not tried again together.

    Source: M. Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), "equal jitter".
    """
    whole = min(longest, first_seconds * 2.0 ** min(attempt - 1, 60))
    return whole / 2 + (chance or random).uniform(0, whole / 2)
