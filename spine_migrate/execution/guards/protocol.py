"""Locks on entities: at most one holder, an end even if the holder dies, and numbers that tell a late one.

The ledger has a guard of its own: the unique index ``ix_runs_one_active_per_entity`` of seed 000 (``MemoryLedger`` does
the same) lets an entity have one pending, queued or running run, for as long as it is one, and ``submit`` raises
ConcurrencyError for a second. That needs no lock and no clock, and nobody has to keep it alive while a run waits.

These locks hold where the index cannot: between ledgers, between runs and work that is no run (the old tasks during a
migration, a script), and against a worker that was taken for dead and goes on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Held:
    """Who has a lock at the moment, and the fence that renews and releases it."""

    holder: str
    fence: int


class ConcurrencyGuard(Protocol):
    """``tests/integration/test_guard_contract.py`` holds every guard to it. All methods are thread-safe and raise
    BackendError where the lock's server cannot be reached; what was asked for may have been done or not, then, and
    asking again is harmless.

    ``holder`` says who has a lock, a run id where it is a run. The same holder may acquire again, without waiting for
    the lock to expire, and gets a new fence; the one it had before is lost. A fence is larger than all that were given
    for that entity before, so that what a lock protects can refuse a holder whose lock expired while it slept
    (M. Kleppmann, "How to do distributed locking", 2016). It is what renews and releases, not the holder's name: the
    first attempt of a run, waking up late, must not end the lock of the second.
    """

    def acquire(self, entity_type: str, entity_id: str, *, holder: str, ttl_seconds: float) -> int | None:
        """The fence, or None where another holder has the lock. Raises ValueError where ``ttl_seconds`` is not above 0
        and finite; it counts in milliseconds at least.
        """
        ...

    def renew(self, entity_type: str, entity_id: str, *, fence: int, ttl_seconds: float) -> bool:
        """Whether the lock was still there; one that has expired is lost, although nobody may have taken it."""
        ...

    def release(self, entity_type: str, entity_id: str, *, fence: int) -> bool:
        """Whether the lock was still there; a later one is left alone."""
        ...

    def held(self, entity_type: str, entity_id: str) -> Held | None:
        """Who has the lock; it may be another's as soon as this returns."""
        ...


def milliseconds(ttl_seconds: float) -> int:
    """Rounded up. Raises ValueError where it is not above 0 and finite."""
    if not 0 < ttl_seconds < math.inf:
        raise ValueError(f"A lock lasts for a number of seconds above 0, not {ttl_seconds!r}.")
    return math.ceil(ttl_seconds * 1000)
