"""Measuring two or more ways of doing one thing against each other, in turns, on a machine that is not quiet."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.server import load


@dataclass(frozen=True)
class Side:
    """``prepare`` is not measured; ``work`` is, unless it gives the seconds itself, a float."""

    prepare: Callable[[], object]
    work: Callable[[], object]

    def seconds(self) -> float:
        gc.collect()
        began = time.perf_counter()
        told = self.work()
        return told if isinstance(told, float) else time.perf_counter() - began


@dataclass(frozen=True)
class Spread:
    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min(values), statistics.median(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


class Taken(dict[str, list[float]]):
    """Seconds of each side in each round; ``cpu`` holds the server's processor seconds, where they were metered."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__({name: [] for name in names})
        self.cpu: dict[str, list[float]] = {name: [] for name in names}


def alternate(
    sides: Mapping[str, Side],
    rounds: int,
    *,
    warm_up: bool = True,
    meter: Callable[[], float] | None = None,
    quiet: bool = False,
) -> Taken:
    """Do all sides in every round, each round starting with another one; one round before them is not counted.

    ``meter`` gives the server's processor seconds so far. On a machine that others use too, they say more than the
    clock about what a side costs, though nothing about its waiting for disks.
    """
    names = list(sides)
    taken = Taken(names)
    for number in range(-1 if warm_up else 0, rounds):
        start = max(number, 0) % len(names)
        for name in [*names[start:], *names[:start]]:
            sides[name].prepare()
            before = meter() if meter else 0.0
            took = sides[name].seconds()
            if number >= 0:
                taken[name].append(took)
                if meter:
                    taken.cpu[name].append(meter() - before)
        if number >= 0 and not quiet:
            print(f"  round {number + 1}:", *(f"{name} {taken[name][-1]:.2f} s," for name in names), load(), flush=True)
    return taken


def compare(seconds: Mapping[str, Sequence[float]], base: str, *, rows: int | None = None) -> dict[str, Spread]:
    """Print every side beside ``base``. A ratio above 1 means faster than ``base``; ratios are taken within a round."""
    ratios = _ratios(seconds, base)
    # The server's clock ticks in hundredths of a second; what takes less has no ratio.
    metered = isinstance(seconds, Taken) and all(values and all(values) for values in seconds.cpu.values())
    cpu = seconds.cpu if isinstance(seconds, Taken) and metered else None
    cpu_ratios = _ratios(cpu, base) if cpu else {}
    width = max(map(len, seconds))
    print(
        f"  {'':{width}} median s     rows/s  speed / {base}" + ("    cpu s  the same by processor time" if cpu else "")
    )
    for name, took in seconds.items():
        median = statistics.median(took)
        rate = f"{rows / median:10,.0f}" if rows else f"{'':10}"
        its_cpu = f"  {statistics.median(cpu[name]):7.2f}  {cpu_ratios[name]}" if cpu else ""
        print(f"  {name:{width}} {median:8.3f} {rate}  {ratios[name]!s:21}{its_cpu}", flush=True)
    return ratios


def medians(calls: Mapping[str, Callable[[int], object]], times: int) -> dict[str, float]:
    """Seconds of each call, in turns, so that whatever disturbs the machine disturbs all; each is given its number."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(times):
        for name, call in calls.items():
            began = time.perf_counter()
            call(number)
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _ratios(seconds: Mapping[str, Sequence[float]], base: str) -> dict[str, Spread]:
    return {
        name: Spread.of([theirs / ours for ours, theirs in zip(took, seconds[base], strict=True)])
        for name, took in seconds.items()
    }
