"""What the applier tells its observer about each migration: how far behind it is, what came into quarantine, and what
holds it back.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from spine_migrate.carry.orders import Hold
from spine_migrate.db import captures
from spine_migrate.db.faults import cause
from spine_migrate.notices import Lag, Observer, Quarantined, Retry, Subject, Throttle
from spine_migrate.sync.work import Applied


class Announcer:
    """Tells only what is new since it told last."""

    def __init__(self, observer: Observer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._observer = observer
        self._clock = clock
        self._held: dict[Subject, tuple[str, bool, float]] = {}
        self._told: dict[Subject, Applied] = {}

    def applied(self, subject: Subject, applied: Applied, lag: captures.Lag) -> None:
        """``applied`` is of the whole run."""
        told = self._told.get(subject, Applied())
        self._told[subject] = replace(applied, reasons=dict(applied.reasons))
        changes = applied.entries - told.entries
        self._observer.notice(Lag(subject, captures.FORWARD, lag.entries, lag.seconds, changes))
        if reasons := Counter(applied.reasons) - Counter(told.reasons):
            self._observer.notice(Quarantined(subject, dict(reasons)))

    def held(self, subject: Subject, hold: Hold | None, *, overdue: bool) -> None:
        """What holds a migration back now; told where it is another one than before, or is not obeyed any more."""
        by = None if hold is None else hold.by
        before, was_overdue, since = self._held.get(subject, (None, False, 0.0))
        if (by, overdue) == (before, was_overdue):
            return
        now = self._clock()
        if by is None:
            self._held.pop(subject)
        else:
            self._held[subject] = (by, overdue, now)
        detail = None if hold is None else hold.detail
        self._observer.notice(Throttle(subject, by, detail, before, now - since if before else 0.0))

    def retry(self, subjects: Iterable[Subject], error: BaseException, wait_seconds: float) -> None:
        for subject in subjects:
            self._observer.notice(Retry(subject, cause(error), 1, wait_seconds))
