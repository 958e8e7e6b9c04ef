"""Keeping a claim while its handler works, and telling the handler when it is to stop."""

from __future__ import annotations

import logging
import threading
import time

from spine_migrate.execution.alarm import set_alarm
from spine_migrate.execution.context import TaskContext
from spine_migrate.execution.entity_lock import EntityLock
from spine_migrate.execution.errors import ExecutionNotFoundError, LeaseLost, RunTimeout, TransitionError
from spine_migrate.execution.ledgers.protocol import Claim, Ledger

_log = logging.getLogger(__name__)


class Lease:
    """Renews a claim, and the lock on its run's entity, until its end: three times in the ``seconds`` that they last.
    The thread that does it is started when the first renewal is due; most runs end before that.

    ``context.cancelled`` is set where the run is to be cancelled, takes too long, or is no longer ours: because the
    ledger or the guard says so, or because it could not be asked for as long as the lease lasts. A handler that takes
    too long and does not look keeps its claim, as two at once would be worse; one whose claim is lost keeps its lock.
    """

    def __init__(
        self, ledger: Ledger, claim: Claim, context: TaskContext, seconds: float, lock: EntityLock | None = None
    ) -> None:
        self._ledger = ledger
        self._claim = claim
        self._context = context
        self._seconds = seconds
        self._lock = lock
        self._ended = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._timed_out = False
        self._lost = False
        self._held_until = time.monotonic() + seconds
        self._deadline = None if claim.run.timeout_seconds is None else time.monotonic() + claim.run.timeout_seconds

    def start(self) -> None:
        set_alarm(time.monotonic() + self._pause(), self)

    @property
    def over(self) -> bool:
        return self._ended.is_set()

    def wake(self) -> None:
        """The first renewal is due. Raises RuntimeError where no thread can be started."""
        with self._starting:
            if not self._ended.is_set():
                thread = threading.Thread(target=self._run, name="spine-lease", daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while self._keep(time.monotonic()) and not self._ended.wait(self._pause()):
            pass
        # The claim is lost, which does not end the handler: nobody else is to start on its entity.
        while self._lock is not None and not self._ended.wait(self._seconds / 3) and self._lock.keep():
            pass

    def check(self) -> None:
        """Raises RunTimeout where the handler has taken too long, LockLost where another may have worked beside it."""
        if self._timed_out:
            raise RunTimeout(f"The handler took longer than {self._claim.run.timeout_seconds:g} seconds.")
        if self._lock is not None:
            self._lock.check()

    def check_lost(self) -> None:
        """Raises LeaseLost where the handler was told to stop because the ledger was away."""
        if self._lost:
            raise LeaseLost("The handler stopped because the lease could not be renewed in time.")

    def end(self) -> None:
        with self._starting:
            self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _keep(self, now: float) -> bool:
        """Whether there is still something to keep."""
        if self._deadline is not None and now >= self._deadline:
            self._timed_out, self._deadline = True, None
            self._context.cancelled.set()
        if self._lock is not None and not self._lock.keep():
            self._context.cancelled.set()
        try:
            asked = self._ledger.renew(self._claim.run.run_id, self._claim.fence, lease_seconds=self._seconds)
        except (TransitionError, ExecutionNotFoundError):
            self._context.cancelled.set()
            return False
        except Exception as error:  # noqa: BLE001 a thread that ended here would leave the handler without a lease
            _log.warning("The lease of run %s was not renewed: %s", self._claim.run.run_id, error)
            if now >= self._held_until:
                self._lost = True
                self._context.cancelled.set()
            return True
        self._held_until = now + self._seconds
        if asked:
            self._context.cancelled.set()
        return True

    def _pause(self) -> float:
        third = self._seconds / 3
        return third if self._deadline is None else max(0.0, min(third, self._deadline - time.monotonic()))
