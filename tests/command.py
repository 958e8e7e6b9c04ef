"""The installed command line, as a user calls it."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from tests.loaded import Loaded

PROGRAM = Path(sys.executable).parent / "spine-migrate"
_LONGEST = 240.0
_loaded = Loaded()
atexit.register(_loaded.close)


def environment(url: str | None, **more: str) -> dict[str, str]:
    """Ours, with one database named and the program on PATH."""
    path = f"{PROGRAM.parent}{os.pathsep}{os.environ['PATH']}"
    named = {"SPINE_DATABASE_URL": url} if url is not None else {}
    return {**os.environ, "PATH": path, "COLUMNS": "200", **named, **more}


def run(
    url: str | None, *words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """One call. Gives exit code, stdout and stderr; a traceback on the terminal fails the test at once."""
    given, typed = environment(url, **(env or {})), [str(PROGRAM), *words]
    with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
        code = _loaded.run(typed, given, cwd or Path.cwd(), (out, err), _LONGEST)
        if code is None:
            started = subprocess.run(typed, check=False, stdout=out, stderr=err, cwd=cwd, env=given, timeout=_LONGEST)
            code = started.returncode
        out.seek(0)
        err.seek(0)
        done = subprocess.CompletedProcess(typed, code, out.read(), err.read())
    assert "Traceback" not in done.stderr, done.stderr
    return done


def start(url: str, *words: str) -> subprocess.Popen[str]:
    """The same without waiting, for tests that signal or kill it."""
    return subprocess.Popen(
        [PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(url)
    )
