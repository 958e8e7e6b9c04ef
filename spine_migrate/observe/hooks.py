"""Hooks: what a team has called on the events of a migration.

Those of ``before-`` events are waited for and may veto. All others are called by a thread of their own, so that no
batch and no transaction waits for them. One after another, and all in the order of the events.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self

from spine_migrate import __version__
from spine_migrate.errors import Refused
from spine_migrate.notices import Before, Notice, Quarantined, Subject
from spine_migrate.observe.facts import environment, events, facts
from spine_migrate.observe.saying import Say

FORMAT = 1
_GLANCE = 1.0


class Hook(Protocol):
    def __call__(self, body: bytes, environment: Mapping[str, str], seconds: float, /) -> str | None:
        """None for success, else what went wrong, in words. ``str()`` names it without a secret."""


class Hooks:
    """An observer and a context manager; at its end all that were to be called have been called."""

    def __init__(self, hooks: Iterable[tuple[str, Hook]], *, seconds: float, say: Say) -> None:
        self._hooks: dict[str, list[Hook]] = {}
        for event, hook in hooks:
            self._hooks.setdefault(event, []).append(hook)
        self._seconds = seconds
        self._say = say
        self._due: queue.SimpleQueue[tuple[Notice, datetime] | threading.Event | None] = queue.SimpleQueue()
        # Rows come into quarantine batch by batch; while a hook is busy they are added up for its next call.
        self._quarantined: dict[Subject, Counter[str]] = {}
        self._adding = threading.Lock()
        self._thread = threading.Thread(target=self._call_all, name="spine-hooks", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._due.put(None)
        self._thread.join()

    def notice(self, notice: Notice, /) -> None:
        """Raises Refused (``hook-veto``) for a Before."""
        if not any(event in self._hooks for event in events(notice)):
            return
        now = datetime.now(UTC)
        if isinstance(notice, Before):
            self._ask(notice, now)
            return
        if isinstance(notice, Quarantined):
            with self._adding:
                waiting = notice.subject in self._quarantined
                self._quarantined.setdefault(notice.subject, Counter()).update(notice.reasons)
            if waiting:
                return
        self._due.put((notice, now))

    def _ask(self, notice: Before, now: datetime) -> None:
        # What has happened before is told before, so that no two hooks run at once.
        told = threading.Event()
        self._due.put(told)
        while not told.wait(_GLANCE) and self._thread.is_alive():
            continue
        for event, hook, failure in self._failures(notice, now):
            raise Refused("hook-veto", f"The hook {event} ({hook}) vetoes: {failure}; nothing was changed.")

    def _call_all(self) -> None:
        while (due := self._due.get()) is not None:
            if isinstance(due, threading.Event):
                due.set()
                continue
            notice, at = due
            if isinstance(notice, Quarantined):
                with self._adding:
                    notice = replace(notice, reasons=self._quarantined.pop(notice.subject))
            for event, hook, failure in self._failures(notice, at):
                sentence = f"The hook {event} ({hook}) failed: {failure}; the command goes on."
                self._say(sentence, event="hook-failed", level="warning")

    def _failures(self, notice: Notice, at: datetime) -> Iterable[tuple[str, Hook, str]]:
        """Call the hooks of a notice, one by one as they are asked for; those that failed."""
        for event in events(notice):
            found: dict[str, Any] = {"event": event, **facts(notice)}
            told = {"format": FORMAT, "at": at.isoformat(), "tool_version": __version__, **found}
            for hook in self._hooks.get(event, ()):
                failure = hook(json.dumps(told).encode(), environment(os.environ, found), self._seconds)
                if failure is not None:
                    yield event, hook, failure
