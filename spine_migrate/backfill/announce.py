"""What a run tells its observer, always about the migration at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from spine_migrate.carry.rows import Done
from spine_migrate.db.faults import cause
from spine_migrate.notices import (
    NOBODY,
    Batch,
    Before,
    Observer,
    Progress,
    Quarantined,
    Retry,
    Subject,
    Throttle,
    Transition,
)


class Announcer:
    """``subject`` becomes more exact as the run finds its tables and its migration."""

    def __init__(self, observer: Observer, subject: Subject, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._observer = observer
        self._clock = clock
        self._held: tuple[str, float] | None = None
        self.subject = subject

    def before(self, stage: str, step: str | None) -> None:
        """Raises Refused where an observer vetoes."""
        self._observer.notice(Before(self.subject, stage, step))

    def transition(self, from_step: str | None, to_step: str, *, ends: str | None = None) -> None:
        self._observer.notice(Transition(self.subject, from_step, to_step, ends))

    def batch(self, done: Done, seconds: float | None) -> None:
        self._observer.notice(Batch(self.subject, done.moved, done.adopted, seconds))
        self.quarantined(done.reasons)

    def quarantined(self, reasons: Mapping[str, int]) -> None:
        if reasons:
            self._observer.notice(Quarantined(self.subject, dict(reasons)))

    def progress(
        self,
        phase: str,
        *,
        rows: int,
        accounted: int,
        blocks: int,
        total_blocks: int,
        rows_per_second: float,
        seconds_left: float | None,
    ) -> None:
        self._observer.notice(
            Progress(self.subject, phase, rows, accounted, blocks, total_blocks, rows_per_second, seconds_left)
        )

    def held(self, signal: str | None, detail: str | None = None) -> None:
        """What holds the run back now, None for nothing; told where it is another one than before. One call at a time,
        as those of a Pace are.
        """
        before, since = self._held or (None, 0.0)
        if signal == before:
            return
        now = self._clock()
        self._held = None if signal is None else (signal, now)
        self._observer.notice(Throttle(self.subject, signal, detail, before, now - since if before else 0.0))

    def retry(self, error: BaseException, attempt: int, wait_seconds: float) -> None:
        self._observer.notice(Retry(self.subject, cause(error), attempt, wait_seconds))


SILENT = Announcer(NOBODY, Subject(""))
