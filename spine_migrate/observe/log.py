"""The log as JSON: one object in a line of stderr, with ``ts``, ``level``, ``event`` and the facts of the event.

Its schema is ``log.schema.json`` beside this file.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from spine_migrate.notices import Batch, Before, End, Notice, Progress, Quarantined, Retry, Throttle
from spine_migrate.observe.facts import events, facts

#: Between two lines on the progress of one phase of one migration.
SECONDS_BETWEEN = 10.0


class JsonLog:
    """An observer, and what says sentences. Thread-safe: a line is one call of ``write``."""

    def __init__(
        self, write: Callable[[str], Any] | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        self._said: dict[tuple[str, str], float] = {}

    def __call__(self, sentence: str, /, *, event: str = "message", level: str = "info") -> None:
        self._line(level, event, {"message": sentence})

    def notice(self, notice: Notice, /) -> None:
        if isinstance(notice, Batch) or (isinstance(notice, Progress) and not self._due(notice)):
            return
        self._line(_level(notice), _name(notice), facts(notice))

    def _due(self, notice: Progress) -> bool:
        at, now = (notice.subject.mapping, notice.phase), self._clock()
        if at in self._said and now - self._said[at] < SECONDS_BETWEEN:
            return False
        self._said[at] = now
        return True

    def _line(self, level: str, event: str, found: dict[str, Any]) -> None:
        line = {"ts": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "event": event, **found}
        (self._write or sys.stderr.write)(json.dumps(line) + "\n")


def _name(notice: Notice) -> str:
    """As for hooks, without when they are called: ``transition``, ``throttle``, ``before-backfill``."""
    if isinstance(notice, Before):
        return next(iter(events(notice)))
    named = next(iter(events(notice)), None)
    return named.removeprefix("on-") if named else type(notice).__name__.lower()


def _level(notice: Notice) -> str:
    match notice:
        case End(exit_code=code) if code not in (0, 1):
            return "error"
        case End(exit_code=1) | Quarantined() | Retry():
            return "warning"
        case Throttle(signal=str()):
            return "warning"
        case _:
            return "info"
