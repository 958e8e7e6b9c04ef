"""Benchmarks that do not run any more are seen before somebody needs their figures, which are nothing to a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import spine_migrate

CHECKOUT = Path(spine_migrate.__file__).parents[1]


def test_benchmarks_run_to_their_end() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "order", "--rows", "200", "--rounds", "1", "--profile", "wheel"],
        check=False,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert {"one statement", "by blocks", "by key"} <= {line.strip()[:13].rstrip() for line in done.stdout.splitlines()}
