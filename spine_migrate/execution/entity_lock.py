"""The lock on a run's entity, which a worker has while it executes the run.

The worker takes it, right after its claim, and not ``submit``: a run may wait for hours. A lock taken at submit would
have to be kept alive all that time by a relay, which may be away and then guards nothing, or last so long that a crash
blocks the entity for as long; and what waits needs no lock, as the ledger has at most one active run of an entity
without any clock (guards/protocol.py). So a lock lives as a lease does: acquired with the claim, renewed with it,
released when the handler has ended, and expired when its worker is dead. A worker that does not get it gives the run
back, which uses up neither an attempt nor a retry, and the relay publishes it again after a while.

``submit`` only looks, so that its caller hears at once what the worker would find; between the look and the claim
anything can happen, and the worker decides.

It is released before the run is marked. Whoever sees that a run has ended can submit the next one; the ledger still has
this one as active until then. What reports about work that is done elsewhere (``mark_started``, ``mark_completed``) has
no handler here to guard, and takes no lock.
"""

from __future__ import annotations

import logging
import time

from spine_migrate.execution.errors import BackendError, ConcurrencyError, LockLost
from spine_migrate.execution.guards.protocol import ConcurrencyGuard
from spine_migrate.execution.invariants import entity
from spine_migrate.execution.runs import RunRecord, run_uuid

_log = logging.getLogger(__name__)


class EntityLock:
    """``fence`` is the guard's. Thread-safe: a handler's thread may check what another one keeps."""

    def __init__(self, guard: ConcurrencyGuard, run: RunRecord, about: tuple[str, str], ttl_seconds: float) -> None:
        """Raises ConcurrencyError where another has the lock, BackendError where the guard cannot say."""
        self._guard = guard
        self._about = about
        self._ttl = ttl_seconds
        # From before it was asked for, as the server's time starts later: until then it is ours for sure.
        self._until = time.monotonic() + ttl_seconds
        fence = guard.acquire(*about, holder=run.run_id, ttl_seconds=ttl_seconds)
        if fence is None:
            held = guard.held(*about)
            raise locked(about, None if held is None else held.holder)
        self.fence = fence
        self._lost = False

    @classmethod
    def of(cls, guard: ConcurrencyGuard | None, run: RunRecord, ttl_seconds: float) -> EntityLock | None:
        """None where there is no guard, or the run is about no entity. Raises as the constructor."""
        about = entity(run.spec.metadata)
        return None if guard is None or about is None else cls(guard, run, about, ttl_seconds)

    def keep(self) -> bool:
        """Renew it; False where it is lost, or may be."""
        if self._lost:
            return False
        asked = time.monotonic()
        try:
            still = self._guard.renew(*self._about, fence=self.fence, ttl_seconds=self._ttl)
        except Exception as error:  # noqa: BLE001 whatever it is, the handler is to be told if it lasts
            _log.warning("The lock on the %s %s was not renewed: %s", *self._about, error)
            return asked < self._until
        if still:
            self._until = asked + self._ttl
        else:
            self._lost = True
        return still

    def check(self) -> None:
        """Raises LockLost where another may have had the lock since it was acquired."""
        if self._lost or (time.monotonic() >= self._until and not self.keep()):
            raise LockLost(
                f"The lock on the {self._about[0]} {self._about[1]} was lost before the handler had ended, so that "
                f"another may have worked on it at the same time."
            )

    def release(self) -> None:
        try:
            self._guard.release(*self._about, fence=self.fence)
        except BackendError as error:
            _log.warning("The lock on the %s %s was not released and expires by itself: %s", *self._about, error)


def locked(about: tuple[str, str], holder: str | None) -> ConcurrencyError:
    """``holder`` is None where the lock was free again a moment later."""
    by = "" if holder is None else f" by {holder}"
    run_id = None if holder is None or run_uuid(holder) is None else holder
    return ConcurrencyError(f"The {about[0]} {about[1]} is locked{by}.", run_id=run_id)
