"""Which differences of outputs are no differences, as a team writes it down in a TOML file::

    ["$.generated_at"]
    ignore = true
    because = "the time of the run"

    ["$.rows[*].price"]
    tolerance = { absolute = 0.01 }     # or relative = 1e-9, or both

    ["$..loaded_at"]
    time_tolerance = "2s"               # of ISO 8601 texts

    ["$.symbols"]
    unordered = true                    # the array, not what is in its items

    ["$.accounts"]
    by = "number"                       # likewise, and items with the same member are compared

A tolerance counts for the value at the path and for all that is in it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction
from functools import cached_property
from pathlib import Path as File
from typing import Any

from spine_migrate.errors import ConfigurationError, MappingError
from spine_migrate.mapping.document import Table, nearest, open_document
from spine_migrate.parity.outputs.json_path import RESULT, Path, Pattern

_KEYS = ("ignore", "tolerance", "time_tolerance", "unordered", "by", "because")
_SECONDS = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)(?P<unit>ms|s|m|h|d)")
_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

#: What rules can be about: the result, and what the ledger has beside it, but for how a run ends.
ROOTS = (RESULT, "error", "error_type", "attempts", "events", "children")
_ENDING = "status"


@dataclass(frozen=True)
class Rule:
    """``line`` is 1-based. ``time`` is a tolerance of instants, ``absolute`` and ``relative`` are of numbers. ``by`` is
    a member of the items of an array, which is ``unordered`` then.
    """

    pattern: Pattern
    line: int | None = None
    ignore: bool = False
    absolute: float | None = None
    relative: float | None = None
    time: timedelta | None = None
    unordered: bool = False
    by: str | None = None
    because: str | None = None

    @property
    def is_tolerance(self) -> bool:
        return any(bound is not None for bound in (self.absolute, self.relative, self.time))

    def tolerates(self, value: Any) -> bool:
        """Whether it could forgive that another value stands there."""
        if _is_number(value):
            return self.absolute is not None or self.relative is not None
        return self.time is not None and isinstance(value, str) and _instant(value) is not None

    def forgives(self, old: Any, new: Any) -> bool:
        if _is_number(old) and _is_number(new):
            return self._close(old, new)
        if self.time is not None and isinstance(old, str) and isinstance(new, str):
            return _near(old, new, self.time)
        return False

    def _close(self, old: float, new: float) -> bool:
        """In decimals, so that 1.1 is within 0.1 of 1.0; the relative one is of the larger of the two."""
        if self.absolute is None and self.relative is None:
            return False
        left, right = Fraction(str(old)), Fraction(str(new))
        bounds = [Fraction(str(self.absolute or 0)), Fraction(str(self.relative or 0)) * max(abs(left), abs(right))]
        return abs(left - right) <= max(bounds)


@dataclass(frozen=True)
class Rules:
    """In the order of the file: of two that forgive the same difference the first counts it."""

    file: File | None = None
    rules: tuple[Rule, ...] = field(default=())

    def ignoring(self, path: Path) -> Rule | None:
        return self._at(path).ignoring

    def unordering(self, path: Path) -> Rule | None:
        return self._at(path).unordering

    def forgiving(self, path: Path, old: Any, new: Any) -> Rule | None:
        return next((rule for rule in self._at(path).tolerating if rule.forgives(old, new)), None)

    def tolerates(self, path: Path, value: Any) -> bool:
        """Whether another value could stand there as well."""
        return any(rule.tolerates(value) for rule in self._at(path).tolerating)

    def _at(self, path: Path) -> _Applying:
        """Found once for all items of an array, unless a pattern tells them apart."""
        place = path if self._by_index else tuple(_ITEM if isinstance(step, int) else step for step in path)
        found = self._known.get(place)
        if found is None:
            found = self._known[place] = _Applying(
                next((rule for rule in self.rules if rule.ignore and rule.pattern.matches(path)), None),
                next((rule for rule in self.rules if rule.unordered and rule.pattern.matches(path)), None),
                tuple(rule for rule in self.rules if rule.is_tolerance and rule.pattern.covers(path)),
            )
        return found

    @cached_property
    def _known(self) -> dict[Path, _Applying]:
        return {}

    @cached_property
    def _by_index(self) -> bool:
        return any(isinstance(step, int) for rule in self.rules for step in rule.pattern.steps)


@dataclass(frozen=True)
class _Applying:
    """To one path."""

    ignoring: Rule | None
    unordering: Rule | None
    tolerating: tuple[Rule, ...]


#: In the place of any index.
_ITEM = 0

NO_RULES = Rules()


def load(file: File) -> Rules:
    """Raises ConfigurationError, one sentence with file, line and path."""
    try:
        document = open_document(file, "rules")
        return Rules(file, tuple(_rule(text, table) for text, table in document.tables()))
    except MappingError as error:
        raise ConfigurationError(f"{error.sentence}.") from error


def _rule(text: str, table: Table) -> Rule:
    table.only(_KEYS)
    try:
        pattern = Pattern.parse(text)
    except ValueError as error:
        table.fail(str(error))
    if pattern.root == _ENDING:
        table.fail("how a run ends is not forgiven")
    if pattern.root not in ROOTS:
        table.fail(f"nothing is compared that is called{nearest(pattern.root, ROOTS)}")
    tolerance = table.table("tolerance")
    if table.has("tolerance"):
        tolerance.only(("absolute", "relative"))
    rule = Rule(
        pattern,
        table.place().line,
        ignore=table.flag("ignore"),
        absolute=_bound(tolerance, "absolute"),
        relative=_bound(tolerance, "relative"),
        time=_duration(table),
        unordered=table.flag("unordered") or table.has("by"),
        by=table.text("by"),
        because=table.text("because"),
    )
    if not (rule.ignore or rule.unordered or rule.is_tolerance):
        table.fail("forgives nothing; give ignore, tolerance, time_tolerance, unordered or by")
    return rule


def _bound(table: Table, key: str) -> float | None:
    value: float | None = table.values.get(key)
    if value is None:
        return None
    if not _is_number(value) or not math.isfinite(value) or value < 0:
        table.fail(f"must be a number from 0 on, not {value!r}", key)
    return value


def _duration(table: Table) -> timedelta | None:
    text = table.text("time_tolerance")
    if text is None:
        return None
    found = _SECONDS.fullmatch(text)
    if found is None:
        table.fail(f"must be a duration such as 500ms, 2s, 1m, not {text!r}", "time_tolerance")
    return timedelta(**{_UNITS[found["unit"]]: float(found["number"])})


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _near(old: str, new: str, tolerance: timedelta) -> bool:
    """Where both are instants, and both or none have a zone."""
    left, right = _instant(old), _instant(new)
    if left is None or right is None or (left.tzinfo is None) is not (right.tzinfo is None):
        return False
    return abs(left - right) <= tolerance


def _instant(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
