"""What a comparison of backends found: plain data, from which every report is rendered."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import Any

from spine_migrate.parity.model import Reason, Verdict
from spine_migrate.parity.outputs.json_diff import Kind
from spine_migrate.parity.outputs.observation import HISTORY, Observation
from spine_migrate.parity.outputs.rules import Rule


@dataclass(frozen=True)
class Found:
    """A path at which a backend's outputs are not those of the baseline, and the values of the first time.

    ``times`` says in how many of its runs; with ``unsteady`` its own runs differ there, while those of the baseline do
    not.
    """

    path: str
    kind: Kind
    old: Any
    new: Any
    times: int
    unsteady: bool = False


@dataclass(frozen=True)
class Noise:
    """A path at which the baseline's own runs differ; of all items of an array it is one. ``paths`` differ there in
    the baseline, ``masked`` is how many differences of other backends that has explained.
    """

    path: str
    paths: int
    masked: int = 0


@dataclass(frozen=True)
class Applied:
    """How many differences a rule has forgiven, of all comparisons."""

    rule: Rule
    forgiven: int


@dataclass(frozen=True)
class Measured:
    """One backend. ``verdict`` and ``differences`` are against the baseline; ``events_compared`` is False for an old
    body, which has none. ``noisy`` are the paths at which its own runs differ.
    """

    name: str
    observations: tuple[Observation, ...]
    verdict: Verdict
    differences: tuple[Found, ...] = ()
    reasons: tuple[Reason, ...] = ()
    events_compared: bool = True
    noisy: tuple[str, ...] = ()

    @property
    def statuses(self) -> tuple[str, ...]:
        """Each once, in the order of the runs."""
        return tuple(dict.fromkeys(one.status for one in self.observations))

    @property
    def seconds(self) -> tuple[float, ...]:
        return tuple(one.seconds for one in self.observations if one.seconds is not None)

    @property
    def median_seconds(self) -> float | None:
        return median(self.seconds) if self.seconds else None

    @property
    def median_waited(self) -> float | None:
        waited = [one.waited for one in self.observations if one.waited is not None]
        return median(waited) if waited else None

    def of_result(self) -> tuple[Found, ...]:
        """How it ended, too."""
        return tuple(found for found in self.differences if not found.path.startswith(HISTORY))

    def of_events(self) -> tuple[Found, ...]:
        """Attempts and children are told by them."""
        return tuple(found for found in self.differences if found.path.startswith(HISTORY))


@dataclass(frozen=True)
class Outputs:
    """All backends, the baseline first. ``noise`` is None where it was not looked for."""

    kind: str
    name: str
    repeat: int
    verdict: Verdict
    reasons: tuple[Reason, ...]
    backends: tuple[Measured, ...]
    rules_file: str | None
    rules: tuple[Applied, ...]
    noise: tuple[Noise, ...] | None
    dry_run: bool
    tool_version: str
    not_checked: tuple[str, ...] = field(default=())

    @property
    def baseline(self) -> Measured:
        return self.backends[0]

    def overhead(self, one: Measured) -> float | None:
        """Seconds by which the median is above that of the baseline."""
        if one.median_seconds is None or self.baseline.median_seconds is None:
            return None
        return one.median_seconds - self.baseline.median_seconds
