"""The log as JSON: one object in a line of stderr, with ``ts``, ``level``, ``event`` and the facts of the event.

Its schema is ``log.schema.json`` beside this file.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from spine_migrate.notices import (
    Batch,
    Before,
    End,
    Lag,
    Notice,
    Progress,
    Quarantined,
    Retry,
    Throttle,
    Transition,
    Waits,
)
from spine_migrate.observe.facts import events, facts

#: Between two lines on the progress of one phase of one migration, and between two on its lag.
SECONDS_BETWEEN = 10.0


class JsonLog:
    """An observer, and what says sentences. Thread-safe, and safe in a handler of signals."""

    def __init__(
        self, write: Callable[[str], Any] | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write or _to_stderr
        self._clock = clock
        self._said: dict[tuple[str, str], float] = {}
        self._applied: dict[tuple[str, str], int] = {}

    def __call__(self, sentence: str, /, *, event: str = "message", level: str = "info") -> None:
        self._line(level, event, {"message": sentence})

    def notice(self, notice: Notice, /) -> None:
        if isinstance(notice, Lag):
            notice = self._with_those_before(notice)
        if isinstance(notice, Batch | Waits) or (isinstance(notice, Progress | Lag) and not self._due(notice)):
            return
        self._line(_level(notice), _name(notice), facts(notice))

    def _with_those_before(self, notice: Lag) -> Lag:
        """Changes are counted from line to line."""
        at = (notice.subject.mapping, notice.direction)
        self._applied[at] = self._applied.get(at, 0) + notice.applied
        return replace(notice, applied=self._applied[at])

    def _due(self, notice: Progress | Lag) -> bool:
        phase = notice.phase if isinstance(notice, Progress) else f"lag {notice.direction}"
        at, now = (notice.subject.mapping, phase), self._clock()
        if at in self._said and now - self._said[at] < SECONDS_BETWEEN:
            return False
        self._said[at] = now
        if isinstance(notice, Lag):
            self._applied[notice.subject.mapping, notice.direction] = 0
        return True

    def _line(self, level: str, event: str, found: dict[str, Any]) -> None:
        line = {"ts": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "event": event, **found}
        self._write(json.dumps(line) + "\n")


# Workers write at the same time, and a handler of signals may come in between, so it can be taken twice.
_writing = threading.RLock()


def _to_stderr(line: str) -> None:
    """Past ``sys.stderr``, whose buffer mixes the lines of threads up and bears no second call from a handler."""
    left = line.encode()
    # A migration does not end because whoever reads its log has gone, or the log's disk is full.
    with _writing, suppress(OSError):
        while left:
            left = left[os.write(sys.stderr.fileno(), left) :]


def _name(notice: Notice) -> str:
    """As for hooks, without when they are called: ``transition``, ``throttle``, ``before-backfill``."""
    if isinstance(notice, Before):
        return next(iter(events(notice)))
    if isinstance(notice, Transition):
        return "transition"
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
