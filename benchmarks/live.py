"""What a live migration costs the application: its mix alone, with capture on, and while history is moved.

Two databases with the same history on one server; one of them is migrated, the other is not. The mix runs on both in
turns, some seconds each at a fixed rate well under what the server can do, and the tool is suspended while the other
one has its turn, so that what disturbs the machine disturbs both. Of each percentile the medians over all turns are
compared: on a machine that is shared, one turn's slowest hundredth says more about its neighbours than about us, and
``alone again`` says how far two measurements of the same thing are apart. Throughput is what there is at full speed.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

from benchmarks.application import Application, Measured, application
from benchmarks.history import History, copy_of, history
from benchmarks.rounds import Spread
from benchmarks.server import load
from benchmarks.setup import Setup
from benchmarks.tool import Beside, applied, beside, call, moved

# Turns of a phase; seconds of each at a fixed rate, at full speed, and before anything is measured.
_TURNS, _AT_RATE, _FULL, _WARM = 8, 3.0, 1.5, 2.0
# Seconds for the tool to find its pace again once it goes on.
_SETTLE = 0.5
_MOVE = ("executions-to-runs", "--no-events", "--live")
_ONE = (*_MOVE, "--workers", "1")
_APART = ", tool apart"
#: None: the mix on the database that is not migrated; nothing: changes are captured, and nobody applies them.
_PHASES: dict[str, tuple[str, ...] | None] = {
    "alone again": None,
    "capture": (),
    "capture and sync run": ("sync", "run"),
    f"capture and sync run{_APART}": ("sync", "run"),
    "nice ratio 100": (*_ONE, "--nice-ratio", "100"),
    f"nice ratio 100{_APART}": (*_ONE, "--nice-ratio", "100"),
    "nice ratio 20": (*_ONE, "--nice-ratio", "20"),
    "1,000 rows/s": (*_ONE, "--max-rows-per-second", "1000"),
    f"1,000 rows/s{_APART}": (*_ONE, "--max-rows-per-second", "1000"),
    "5,000 rows/s": (*_ONE, "--max-rows-per-second", "5000"),
    "backfill, defaults": _MOVE,
}
# It moves too much for more.
_UNTHROTTLED_TURNS = 1
_PERCENTILES = (50, 95, 99)


@dataclass
class Phase:
    """Turns in pairs, alone and here."""

    alone: list[Measured] = field(default_factory=list)
    here: list[Measured] = field(default_factory=list)
    throughput: list[float] = field(default_factory=list)
    rows: int = 0
    seconds: float = 0.0

    def ratio(self, percent: float) -> float:
        mine, other = (statistics.median(one.percentile(percent) for one in turns) for turns in (self.here, self.alone))
        return mine / other

    @property
    def longest(self) -> float:
        """In seconds."""
        return max(one.seconds for turn in self.here for one in turn.samples)


@dataclass(frozen=True)
class Pair:
    """``rate`` in statements per second."""

    alone: Application
    other: Application
    rate: float
    migrated: History

    def measure(self, phase: Phase, turns: int, tool: Beside | None) -> None:
        before = moved(self.migrated)
        for turn in range(turns):
            if tool is not None:
                tool.suspend()
            phase.alone.append(self.alone.at_rate(_AT_RATE, self.rate))
            fast = None if turn else self.alone.at_full_speed(_FULL)
            if tool is not None:
                tool.go_on()
            began = time.monotonic()
            time.sleep(_SETTLE)
            phase.here.append(self.other.at_rate(_AT_RATE, self.rate))
            if fast is not None:
                phase.throughput.append(self.other.at_full_speed(_FULL).throughput / fast.throughput)
            phase.seconds += time.monotonic() - began
        after = moved(self.migrated)
        assert after < self.migrated.rows["executions"], "The history came to its end; give more --rows."
        phase.rows += after - before


def live(setup: Setup) -> None:
    with setup.server() as server:
        original = history(server, executions=setup.rows)
        original.empty_target()
        alone, migrated = copy_of(server, original, "alone"), copy_of(server, original, "migrated")
        found = {name: Phase() for name in _PHASES}
        with application(alone) as untouched, application(migrated) as beside_us:
            rate = min(one.calm_rate(_WARM) for one in (untouched, beside_us))
            print(f"  {rate:.0f} statements/s, {_TURNS} turns of {_AT_RATE:.0f} s each", flush=True)
            for number in range(setup.rounds):
                # Changes are captured and nothing is moved yet.
                _begin(migrated)
                for name, words in _PHASES.items():
                    pair = Pair(untouched, untouched if words is None else beside_us, rate, migrated)
                    if words:
                        with beside(migrated, *words, apart=name.endswith(_APART)) as tool:
                            _ready(migrated, words)
                            pair.measure(found[name], _UNTHROTTLED_TURNS if words is _MOVE else _TURNS, tool)
                    else:
                        pair.measure(found[name], _TURNS, None)
                    _tell(f"round {number + 1}, {name}", found[name])
                call(migrated, "sync", "stop", "--yes")
                migrated.empty_target()
        heads = "".join(f"{f'p{percent}':>8}" for percent in _PERCENTILES)
        print(f"  {'times alone':28}{heads}  throughput  longest ms   rows/s")
        for name, phase in found.items():
            _tell(name, phase)


def _begin(database: History) -> None:
    with beside(database, *_MOVE, "--max-rows-per-second", "1"):
        end = time.monotonic() + 60
        while not moved(database):
            assert time.monotonic() < end
            time.sleep(0.1)


def _ready(database: History, words: tuple[str, ...]) -> None:
    """What was changed before is applied by then, and history is on the move, where it is to be moved."""
    before = moved(database)
    end = time.monotonic() + 60
    while "--live" in words and moved(database) == before:
        assert time.monotonic() < end
        time.sleep(0.1)
    applied(database)


def _tell(name: str, phase: Phase) -> None:
    ratios = "".join(f"{phase.ratio(percent):8.2f}" for percent in _PERCENTILES)
    print(
        f"  {name:28}{ratios}  {Spread.of(phase.throughput)!s:10}  {phase.longest * 1000:10.1f}"
        f"  {phase.rows / phase.seconds:7,.0f}  {load()}",
        flush=True,
    )
