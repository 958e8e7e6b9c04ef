"""What the workers of one run share: the row limit, the rate limit, what holds the run back, the wish to stop, and the
figures of progress.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from spine_migrate.backfill.announce import SILENT, Announcer
from spine_migrate.backfill.sizing import SMALLEST
from spine_migrate.carry.orders import Hold
from spine_migrate.carry.rows import Done
from spine_migrate.carry.settings import Settings
from spine_migrate.carry.throttle import INTERVAL, Throttle

# Seconds between two looks at the wish to stop.
_GLANCE = 0.2
# Seconds of a rate limit that one batch takes, where that is a batch worth its transaction; never more than one second.
BURST_SECONDS = 0.1
# Seconds that a worker rests at most: a batch that waited long for a lock does not put the move off for hours.
LONGEST_REST = 60.0


@dataclass(frozen=True)
class Progress:
    """Where a run stands. ``blocks`` of ``total_blocks`` is exact whatever the keys are; rows and seconds are of this
    run, ``accounted`` of all runs. ``held`` is what it waits for now.
    """

    mapping: str
    stage: str
    blocks: int
    total_blocks: int
    rows: int
    moved: int
    quarantined: int
    accounted: int
    batches: int
    seconds: float
    blocks_done: int = 0
    held: Hold | None = None

    @property
    def rate(self) -> float:
        """Rows per second of this run."""
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        """From the blocks done in this run; None before the first batch."""
        if not self.blocks_done:
            return None
        return (self.total_blocks - self.blocks) * self.seconds / self.blocks_done


class Pace:
    """Thread-safe. ``report`` and ``announcer`` are called under the lock, after each batch and when something begins
    or ends to hold the run back, so they must be quick and must not call back. Without a ``throttle`` nothing does.
    """

    def __init__(
        self,
        start: Progress,
        *,
        limit: int | None,
        rows_per_second: float | None,
        nice_ratio: float = 0.0,
        stop: threading.Event,
        report: Callable[[Progress], None],
        throttle: Throttle | None = None,
        clock: Callable[[], float] = time.monotonic,
        announcer: Announcer = SILENT,
    ) -> None:
        self.stop = stop
        self.announcer = announcer
        self._report = report
        self._clock = clock
        self._left = limit
        self._granted = 0
        self._throttle = throttle
        self._interval = _interval(rows_per_second)
        self._nice_ratio = nice_ratio
        self._free_at = self._began = clock()
        self._lock = threading.Condition(threading.Lock())
        self.progress = start
        self._announce()

    def ready(self) -> bool:
        """Return when nothing holds the run back, or when it is to stop; ask before each batch, outside of a
        transaction. Whether the server was busy meanwhile. Raises SpineMigrateError.
        """
        if self._throttle is None:
            return False
        busy = self._throttle.wait(self._hold)
        told = self._throttle.settings
        interval = _interval(told.rows_per_second)
        with self._lock:
            self._nice_ratio = told.nice_ratio
            if interval != self._interval:
                self._interval, self._free_at = interval, self._clock()
        return busy

    @property
    def settings(self) -> Settings | None:
        """As they are told to the run at present; None where nobody can."""
        return None if self._throttle is None else self._throttle.settings

    def take(self, rows: int) -> int:
        """Rows that may be moved now, at most ``rows``; 0 when the limit is reached or the run is to stop.

        A rate limit grants little at a time: a commit of the application waits until the WAL of the batch before it is
        on disk as well. ``settle`` each grant. While others hold what is left of the limit this waits: they may not use
        all of it.
        """
        if self._interval:
            rows = min(rows, _at_once(1 / self._interval))
        with self._lock:
            if self._left is None:
                return 0 if self.stop.is_set() else rows
            while not self._left and self._granted and not self.stop.is_set():
                self._lock.wait(_GLANCE)
            granted = 0 if self.stop.is_set() else min(rows, self._left)
            self._left -= granted
            self._granted += granted
            return granted

    def settle(self, granted: int, *, used: int) -> None:
        """Give back what was granted and not used."""
        with self._lock:
            if self._left is not None:
                self._left += granted - used
                self._granted -= granted
                self._lock.notify_all()

    @property
    def exhausted(self) -> bool:
        """Whether the limit is used up for good."""
        with self._lock:
            return self._left is not None and not self._left and not self._granted

    def count(self, done: Done, *, seconds: float | None = None) -> None:
        """Add a batch, which took ``seconds``, to the figures, tell them, and wait as the rate limit and the nice ratio
        ask.
        """
        with self._lock:
            now = self._clock()
            at = self.progress
            self.progress = replace(
                at,
                blocks=min(at.total_blocks, at.blocks + done.blocks),
                blocks_done=at.blocks_done + done.blocks,
                rows=at.rows + done.rows,
                moved=at.moved + done.moved,
                quarantined=at.quarantined + done.quarantined,
                accounted=at.accounted + done.rows,
                batches=at.batches + 1,
                seconds=now - self._began,
            )
            self.announcer.batch(done, seconds)
            self._tell()
            # A second's worth of unused time may be caught up on, not more.
            self._free_at = max(self._free_at, now - 1) + done.rows * self._interval
            wait = self._free_at - now
        if self._interval and wait > 0:
            self.stop.wait(wait)
        if seconds is not None:
            self._rest(now, seconds)

    def between(self, seconds: float) -> None:
        """After a statement that counts no rows and took ``seconds``: rest, and wait while something holds the run
        back. Raises SpineMigrateError.
        """
        self._rest(self._clock(), seconds)
        self.ready()

    def _rest(self, began: float, seconds: float) -> None:
        """As the nice ratio asks after so many seconds of work, or until it asks for less."""
        ratio = self._nice_ratio
        end = began + min(LONGEST_REST, seconds * ratio)
        while (left := end - self._clock()) > 0 and not self.stop.is_set():
            self.stop.wait(min(left, INTERVAL))
            if self._throttle is not None:
                self._throttle.current()
                if self._throttle.settings.nice_ratio < ratio:
                    return

    def _hold(self, hold: Hold | None) -> None:
        with self._lock:
            if hold != self.progress.held:
                self.progress = replace(self.progress, held=hold, seconds=self._clock() - self._began)
                self.announcer.held(None if hold is None else hold.by, None if hold is None else hold.detail)
                self._tell()

    def stage(self, stage: str) -> None:
        with self._lock:
            self.progress = replace(self.progress, stage=stage, seconds=self._clock() - self._began)
            self._tell()

    def _tell(self) -> None:
        self._report(self.progress)
        self._announce()

    def _announce(self) -> None:
        at = self.progress
        self.announcer.progress(
            at.stage,
            rows=at.rows,
            accounted=at.accounted,
            blocks=at.blocks,
            total_blocks=at.total_blocks,
            rows_per_second=at.rate,
            seconds_left=at.seconds_left,
        )


def _at_once(rows_per_second: float) -> int:
    """Rows of one batch under a rate limit."""
    return max(1, int(min(rows_per_second, max(BURST_SECONDS * rows_per_second, SMALLEST))))


def _interval(rows_per_second: float | None) -> float:
    return 1 / rows_per_second if rows_per_second else 0.0
