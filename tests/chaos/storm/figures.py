"""What a storm has to tell, per phase: what was written, how often writers had to try again, how long they waited."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from tests.chaos.storm.acts import OWN, SHARED, TRUNCATE
from tests.chaos.storm.record import COMMITTED, Told

_SHORT = {"READ_COMMITTED": "RC", "REPEATABLE_READ": "RR", "SERIALIZABLE": "SER"}
_PROCESS = re.compile(r"[Pp]rocess (\d+)")


@dataclass
class Phase:
    """``tried`` and ``again``, by isolation level: transactions, and those that ended in 40001. Seconds."""

    seconds: float = 0.0
    commits: int = 0
    deadlocks: int = 0
    tried: Counter[str] = field(default_factory=Counter)
    again: Counter[str] = field(default_factory=Counter)
    longest: dict[str, float] = field(default_factory=dict)

    def rate(self, level: str) -> float:
        """Of transactions that came to an end, how many were told to try again."""
        return self.again[level] / max(1, self.tried[level])


def phases(told: Told, names: list[str], spent: dict[str, float]) -> dict[str, Phase]:
    """By name, in the order in which they began."""
    found: dict[str, Phase] = defaultdict(Phase)
    for name in names:
        found[name].seconds = spent.get(name, 0.0)
    for entry in told.entries:
        phase = found[names[entry.phase]]
        phase.commits += entry.outcome == COMMITTED
        phase.deadlocks += entry.outcome == "deadlock"
        if entry.outcome in (COMMITTED, "again"):
            phase.tried[entry.level] += 1
            phase.again[entry.level] += entry.outcome == "again"
        for what, seconds in entry.longest.items():
            phase.longest[what] = max(phase.longest.get(what, 0.0), seconds)
    return found


_STRICT = ("REPEATABLE_READ", "SERIALIZABLE")
_CAPTURED = ("moved", "followed", "followed again")


class Rates:
    """How often transactions at the stricter levels were told to try again: alone, captured, and through the view."""

    def __init__(self, found: dict[str, Phase]) -> None:
        self._alone = _pooled(found, ("alone",))
        self._captured = _pooled(found, _CAPTURED)
        self._view = _pooled(found, ("view", "view again"))

    @property
    def beyond_chance(self) -> float:
        """By how many standard deviations the rate is higher with capture than alone."""
        (again, tried), (again_captured, tried_captured) = self._alone, self._captured
        if not tried or not tried_captured or not again + again_captured:
            return 0.0
        expected = (again + again_captured) / (tried + tried_captured)
        deviation = math.sqrt(expected * (1 - expected) * (1 / tried + 1 / tried_captured))
        return (again_captured / tried_captured - again / tried) / deviation

    @property
    def told(self) -> str:
        parts = (("alone", self._alone), ("captured", self._captured), ("through the view", self._view))
        return "40001 at REPEATABLE READ and SERIALIZABLE: " + ", ".join(
            f"{name} {again} of {tried:,} ({again / max(1, tried):.1%})" for name, (again, tried) in parts
        )


def _pooled(found: dict[str, Phase], names: tuple[str, ...]) -> tuple[int, int]:
    phases = [one for name, one in found.items() if name in names]
    return (
        sum(one.again[level] for one in phases for level in _STRICT),
        sum(one.tried[level] for one in phases for level in _STRICT),
    )


def refused_by_a_table(found: dict[str, Phase]) -> dict[str, int]:
    """Transactions at READ COMMITTED that a table told to try again, which only a view may do, by phase."""
    behind_views = ("view", "cutover", "rollback")
    return {
        name: one.again["READ_COMMITTED"]
        for name, one in found.items()
        if not name.startswith(behind_views) and one.again["READ_COMMITTED"]
    }


def deadlocks_with_others(told: Told) -> list[str]:
    """Deadlocks in which a session took part that is no writer's."""
    return [
        entry.detail
        for entry in told.entries
        if entry.outcome == "deadlock" and not {int(one) for one in _PROCESS.findall(entry.detail)} <= told.backends
    ]


def table(found: dict[str, Phase]) -> str:
    """As Markdown."""
    lines = [
        "| phase | s | commits | 40001 RC | RR | SER | deadlocks | longest, own rows | shared rows | truncate |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, one in found.items():
        rates = [f"{one.again[level]} ({one.rate(level):.1%})" for level in _SHORT]
        waits = [f"{one.longest.get(what, 0.0) * 1000:.0f} ms" for what in (OWN, SHARED, TRUNCATE)]
        lines.append(
            f"| {name} | {one.seconds:.0f} | {one.commits:,} | {' | '.join(rates)} | {one.deadlocks} |"
            f" {' | '.join(waits)} |"
        )
    return "\n".join(lines)
