"""Four times the rows: time, and memory of the tool's own process, measured on the installed command."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field

from benchmarks.history import History, history
from benchmarks.rounds import Side, Spread
from benchmarks.setup import Setup


def scale(setup: Setup) -> None:
    with setup.server() as server:
        sizes = [history(server, executions=rows) for rows in (setup.rows, 4 * setup.rows)]
        for workers in (1, 2):
            print(f"spine-migrate executions-to-runs --no-events --workers {workers}")
            commands = {f"{sized.rows['executions']:,} rows": _Command(sized, workers) for sized in sizes}
            taken = setup.alternate({name: Side(one.sized.empty_target, one.run) for name, one in commands.items()})
            for name, seconds in taken.items():
                peaks = commands[name].peaks
                print(
                    f"  {name}: median {statistics.median(seconds):.1f} s,"
                    f" server processor {statistics.median(taken.cpu[name]):.1f} s,"
                    f" the tool's peak resident memory {min(peaks):.0f} to {max(peaks):.0f} MB"
                )
            print(
                f"  time, four times the rows: {_times(taken.values())}; by processor time {_times(taken.cpu.values())}"
            )


def _times(sides: Iterable[list[float]]) -> Spread:
    one, four = sides
    return Spread.of([large / small for small, large in zip(one, four, strict=True)])


@dataclass
class _Command:
    sized: History
    workers: int
    peaks: list[float] = field(default_factory=list)
    """Peak resident memory of each run, in MB."""

    def run(self) -> None:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "spine_migrate", "executions-to-runs", "--no-events", "--quiet", "--json"),
                *("--workers", str(self.workers)),
            ],
            env={**os.environ, "SPINE_DATABASE_URL": self.sized.url},
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, process.returncode
        self.peaks.append(usage.ru_maxrss / 1024)
