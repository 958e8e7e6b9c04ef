"""How soon ``spine-migrate --help`` is there, beside the start of Python with click; whole processes, no server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rounds import Side, alternate
from benchmarks.rounds import compare as show
from benchmarks.setup import Setup


def startup(setup: Setup) -> None:
    command = Path(sys.executable).with_name("spine-migrate")
    print(f"whole processes; {sys.version.split()[0]}")
    sides = {
        "import click": _process([sys.executable, "-c", "import click"]),
        "spine-migrate --help": _process([str(command), "--help"]),
        "executions-to-runs --help": _process([str(command), "executions-to-runs", "--help"]),
        "bare python": _process([sys.executable, "-c", "pass"]),
    }
    ratio = show(alternate(sides, max(20, setup.rounds), quiet=True), "import click")["spine-migrate --help"]
    print(f"  --help takes {1 / ratio.median:.2f} ({1 / ratio.high:.2f} to {1 / ratio.low:.2f}) times as long")


def _process(arguments: Sequence[str]) -> Side:
    def work() -> None:
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)

    return Side(lambda: None, work)
