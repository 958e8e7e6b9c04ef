"""One shell in which an operator types one line after the other; what was left in the background goes on meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

import pytest

_LONGEST = 120.0


class Typed(NamedTuple):
    """What became of a line."""

    line: str
    code: int
    told: str
    said: str


class Terminal:
    """Ends with everything that was started in it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._lines = 0

    def __enter__(self) -> Self:
        self._shell = subprocess.Popen(
            ["/bin/bash"], cwd=self._folder, env=self._environment, stdin=subprocess.PIPE, start_new_session=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()
        assert self._shell.stdin is not None
        self._shell.stdin.close()

    def types(self, block: str, *, codes: tuple[int, ...] = (0,)) -> list[Typed]:
        """Line by line; an exit code that is none of ``codes`` fails the test."""
        return [self._types(line, codes) for line in block.splitlines() if line.strip()]

    def _types(self, line: str, codes: tuple[int, ...]) -> Typed:
        self._lines += 1
        told, said, ended = (self._folder / f"{name}-{self._lines}" for name in ("told", "said", "ended"))
        assert self._shell.stdin is not None
        self._shell.stdin.write(
            f"{{ {line}\n}} >{told} 2>{said}\necho $? >{ended}.part && mv {ended}.part {ended}\n".encode()
        )
        self._shell.stdin.flush()
        end = time.monotonic() + _LONGEST
        while not ended.exists():
            if time.monotonic() > end or self._shell.poll() is not None:
                pytest.fail(f"{line} does not end\n{told.read_text()}\n{said.read_text()}")
            time.sleep(0.02)
        code = int(ended.read_text())
        typed = Typed(line, code, told.read_text(encoding="utf-8"), said.read_text(encoding="utf-8"))
        assert code in codes, f"{line}: exit {code}\n{typed.told}\n{typed.said}"
        return typed
