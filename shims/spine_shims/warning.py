"""The warning at the line that still calls an old task, and the error once the date of its removal has passed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

from spine_migrate.errors import ConfigurationError
from spine_migrate.execution.errors import OrchestrationError
from spine_shims.caller import CallSite

#: Up to and including this day, calls of what was to be removed before are warned about and go on working.
ALLOW_REMOVED_UNTIL = "SPINE_SHIMS_ALLOW_REMOVED_UNTIL"


class DispatchDeprecationWarning(DeprecationWarning):
    """An old task was called; ``task`` is its name, ``replacement`` what to call, ``removal`` the last day on which it
    works, where there is one.
    """

    def __init__(self, sentence: str, *, task: str = "", replacement: str = "", removal: date | None = None) -> None:
        super().__init__(sentence)
        self.task = task
        self.replacement = replacement
        self.removal = removal


class ShimRemoved(OrchestrationError):
    """An old task was called after the last day on which it worked; nothing was stored and nothing published.

    A result backend makes it again from its sentence alone.
    """

    category = "REMOVED"

    def __init__(self, sentence: str, *, task: str = "", replacement: str = "", removal: date | None = None) -> None:
        super().__init__(sentence)
        self.task = task
        self.replacement = replacement
        self.removal = removal


def removal_date(given: str | date | None) -> date | None:
    """The last day on which an old task works, from ``2026-12-31``. Raises ConfigurationError."""
    if given is None or (isinstance(given, date) and not isinstance(given, datetime)):
        return given
    return _day(given, "The date of a removal")


def allowed_until(environment: Mapping[str, str] = os.environ) -> date | None:
    """What ``SPINE_SHIMS_ALLOW_REMOVED_UNTIL`` says. Raises ConfigurationError where that is no date."""
    text = environment.get(ALLOW_REMOVED_UNTIL)
    return None if not text else _day(text, ALLOW_REMOVED_UNTIL)


def _day(given: Any, what: str) -> date:
    try:
        # fromisoformat takes 20261231 and 2026-W53 as well, which nobody reads as a day at a glance.
        found = date.fromisoformat(given)
    except (TypeError, ValueError):
        found = None
    if found is None or found.isoformat() != given:
        raise ConfigurationError(f"{what} is {given!r}, which is not a day such as 2026-12-31.")
    return found


def _today() -> date:
    return datetime.now(UTC).date()


class Deprecations:
    """Which call sites have been warned. ``today`` gives the day in UTC."""

    def __init__(self, *, today: Callable[[], date] = _today, environment: Mapping[str, str] | None = None) -> None:
        self._today = today
        self._environment = os.environ if environment is None else environment
        self._warned: dict[tuple[str, str, int], object] = {}

    def called(self, task: str, replacement: str, removal: date | None, site: CallSite | None) -> None:
        """Warn at ``site``, once for each; a caller that is not known is left to the telemetry.

        Raises ShimRemoved after ``removal``, unless ``SPINE_SHIMS_ALLOW_REMOVED_UNTIL`` names today or a later day; and
        the warning itself where the application's filters make it an error.
        """
        if removal is not None and self._today() > removal:
            self._check_allowed(task, replacement, removal, site)
        if site is None:
            return
        key, mark = (task, site.path or site.file, site.line), object()
        # Whoever puts its own mark in is the one that warns: no lock, which a fork could leave held.
        if self._warned.setdefault(key, mark) is not mark:
            return
        last = "" if removal is None else f" It works until {removal.isoformat()}."
        warning = DispatchDeprecationWarning(
            f"The task {task} goes through the dispatcher now; call {replacement} instead.{last}",
            task=task,
            replacement=replacement,
            removal=removal,
        )
        try:
            # No registry: whether this line has been warned is known here, and a changed filter does not make it new.
            warnings.warn_explicit(
                warning, DispatchDeprecationWarning, site.path or site.file, site.line, module=site.module or None
            )
        except DispatchDeprecationWarning:
            del self._warned[key]
            raise

    def _check_allowed(self, task: str, replacement: str, removal: date, site: CallSite | None) -> None:
        where = "" if site is None else f" at {site}"
        hint = f"{ALLOW_REMOVED_UNTIL}=YYYY-MM-DD in the environment lets it work until that day"
        try:
            until = allowed_until(self._environment)
        except ConfigurationError as error:
            until, hint = None, error.sentence.removesuffix(".")
        if until is not None:
            if self._today() <= until:
                return
            hint = f"{ALLOW_REMOVED_UNTIL} allowed it until {until.isoformat()}"
        raise ShimRemoved(
            f"The task {task} worked until {removal.isoformat()} and was called{where}; call {replacement} instead "
            f"({hint}).",
            task=task,
            replacement=replacement,
            removal=removal,
        )
