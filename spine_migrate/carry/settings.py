"""What may be changed while a run is going: names, bounds, and values as a user types them.

A limit is the most that is tolerated; None is no limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from spine_migrate.errors import ConfigurationError

Value = int | float | None

# The longest that a batch takes beside --nice-ratio: who wants to be felt by few statements is not to be felt for long.
NICE_SECONDS = 0.1
# What a user writes to go back to the options that the run was started with.
DEFAULT = "default"
_UNITS = {"": 1, "b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3, "tb": 1024**4}
_SIZE = re.compile(r"(?P<number>[0-9]{1,15})\s*(?P<unit>[a-z]*)", re.IGNORECASE)


@dataclass(frozen=True)
class Settings:
    """``batch_size`` in rows, None sizes batches by ``target_seconds``; ``max_wal_rate`` in bytes per second.
    ``nice_ratio``: how many times as long as a batch took its worker rests after it.
    """

    batch_size: int | None = None
    rows_per_second: float | None = None
    target_seconds: float = 1.0
    nice_ratio: float = 0.0
    max_lag_bytes: int | None = None
    max_lock_waits: int | None = None
    max_active_sessions: int | None = None
    max_wal_rate: int | None = None

    @property
    def batch_seconds(self) -> float:
        """What a batch is to take."""
        return min(self.target_seconds, NICE_SECONDS) if self.nice_ratio else self.target_seconds


@dataclass(frozen=True)
class Setting:
    """``none`` is the word for None, where there may be none. ``what`` completes "is not", for messages."""

    name: str
    what: str
    low: float
    high: float
    read: Callable[[str], int | float]
    none: str | None

    @property
    def field(self) -> str:
        return self.name.replace("-", "_")

    def parse(self, text: str) -> Value:
        """Raises ConfigurationError."""
        if text == self.none:
            return None
        try:
            found = self.read(text)
        except ValueError:
            raise self._wrong(text) from None
        return self.checked(found)

    def checked(self, value: object) -> Value:
        """A value as it stands in the ledger. Raises ConfigurationError."""
        if value is None and self.none is not None:
            return None
        kinds = (int, float) if self.read is float else (int,)
        if type(value) in kinds and isinstance(value, int | float) and self.low <= value <= self.high:
            return value
        raise self._wrong(value)

    def _wrong(self, value: object) -> ConfigurationError:
        word = f", nor {self.none}" if self.none is not None else ""
        return ConfigurationError(
            f"{self.name}: {str(value)[:40]!r} is not {self.what} between {self.low:,} and {self.high:,}{word}."
        )


def _bytes(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None or found["unit"].lower() not in _UNITS:
        raise ValueError(text)
    return int(found["number"]) * _UNITS[found["unit"].lower()]


_SIZES = "a number of bytes, as 64MB or 67108864,"
SETTINGS = {
    one.name: one
    for one in (
        Setting("batch-size", "a number of rows", 1, 1_000_000, int, "auto"),
        Setting("rows-per-second", "a number of rows", 1, 1_000_000_000, float, "none"),
        Setting("target-seconds", "a number of seconds", 0.05, 600, float, None),
        Setting("nice-ratio", "a number", 0, 1000, float, None),
        Setting("max-lag-bytes", _SIZES, 0, 1 << 50, _bytes, "none"),
        Setting("max-lock-waits", "a number of sessions", 0, 1_000_000, int, "none"),
        Setting("max-active-sessions", "a number of sessions", 0, 1_000_000, int, "none"),
        Setting("max-wal-rate", _SIZES, 1, 1 << 50, _bytes, "none"),
    )
}


@dataclass(frozen=True)
class Change:
    """``given`` by name; ``removed`` go back to the options of the run."""

    given: dict[str, Value]
    removed: list[str]


def change(words: Iterable[str]) -> Change:
    """From words as ``batch-size=500`` or ``max-lag-bytes=default``. Raises ConfigurationError."""
    given: dict[str, Value] = {}
    removed: list[str] = []
    for word in words:
        name, sign, text = word.partition("=")
        if name in given or name in removed:
            raise ConfigurationError(f"{name} is given twice; give it once.")
        if not sign or name not in SETTINGS:
            raise ConfigurationError(
                f"{word[:60]!r} is no setting; write NAME=VALUE, where NAME is one of {', '.join(SETTINGS)}."
            )
        if text == DEFAULT:
            removed.append(name)
        else:
            given[name] = SETTINGS[name].parse(text)
    return Change(given, removed)


def overlaid(base: Settings, told: Mapping[str, Any]) -> Settings:
    """``base`` with what the ledger says. Raises ConfigurationError where that makes no sense, perhaps because a newer
    version has written it: a limit that is not understood must not be taken for none.
    """
    values: dict[str, Any] = {}
    for name, value in told.items():
        if name not in SETTINGS:
            raise ConfigurationError(f"The ledger has a setting {name[:60]!r} that this version does not know.")
        values[SETTINGS[name].field] = SETTINGS[name].checked(value)
    return replace(base, **values)
