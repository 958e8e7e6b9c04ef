"""What the applier tells its observer about each migration: how far behind it is, and what came into quarantine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from spine_migrate.db import captures
from spine_migrate.db.faults import cause
from spine_migrate.notices import Lag, Observer, Quarantined, Retry, Subject
from spine_migrate.sync.work import Applied


class Announcer:
    """Tells only what is new since it told last."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._told: dict[Subject, Applied] = {}

    def applied(self, subject: Subject, applied: Applied, lag: captures.Lag) -> None:
        """``applied`` is of the whole run."""
        told = self._told.get(subject, Applied())
        self._told[subject] = replace(applied, reasons=dict(applied.reasons))
        changes = applied.entries - told.entries
        self._observer.notice(Lag(subject, captures.FORWARD, lag.entries, lag.seconds, changes))
        if reasons := Counter(applied.reasons) - Counter(told.reasons):
            self._observer.notice(Quarantined(subject, dict(reasons)))

    def retry(self, subjects: Iterable[Subject], error: BaseException, wait_seconds: float) -> None:
        for subject in subjects:
            self._observer.notice(Retry(subject, cause(error), 1, wait_seconds))
