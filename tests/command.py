"""The installed command line, as a user calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PROGRAM = Path(sys.executable).parent / "spine-migrate"


def environment(url: str | None, **more: str) -> dict[str, str]:
    """Ours, with one database named and the program on PATH."""
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    named = {"SPINE_DATABASE_URL": url} if url is not None else {}
    return {**os.environ, "PATH": path, "COLUMNS": "200", **named, **more}


def run(
    url: str | None, *words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """One call. Gives exit code, stdout and stderr; a traceback on the terminal fails the test at once."""
    done = subprocess.run(
        [PROGRAM, *words],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(url, **(env or {})),
        timeout=240,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def start(url: str, *words: str) -> subprocess.Popen[str]:
    """The same without waiting, for tests that signal or kill it."""
    return subprocess.Popen(
        [PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(url)
    )
