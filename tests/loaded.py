"""``python -m tests.loaded FD``: a process that has loaded the libraries of others, and forks off installed commands.

Half of the processor time of a short command is the import of its libraries. Here each is imported once in a test
session; of ours nothing is, so that a command still imports all of its own. What depends on the start of a process is
tested with commands that are started: ``tests.command.start``, and every runbook.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import IO

_LIBRARIES = (
    "alembic.command", "alembic.config", "alembic.script", "click", "jinja2", "psycopg", "psycopg_pool", "rich.console",
    "rich.live", "rich.progress", "rich.table", "rich.text", "sqlalchemy", "tenacity", "tomllib",
)  # fmt: skip
#: What an interpreter reads when it starts, and libraries when they are imported. Its path is made anew.
_AT_START = ("PYTHON", "LC_", "LANG", "PSYCOPG_", "DISABLE_SQLALCHEMY_", "LD_")
_PATH = "PYTHONPATH"


class Loaded:
    """The other side of it: one command at a time."""

    def __init__(self) -> None:
        self._at_work = threading.Lock()
        self._environment: dict[str, str] = {}
        self._ours: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def run(
        self, words: Sequence[str], env: Mapping[str, str], cwd: Path, files: tuple[IO[str], IO[str]], seconds: float
    ) -> int | None:
        """The exit code of the script ``words[0]`` with these words, as ``subprocess`` tells it. None where it must be
        started: another one is at work, or the interpreter is to begin in another environment.
        """
        if not self._at_work.acquire(blocking=False):
            return None
        try:
            ours = self._ours or self._start()
            if _at_start(env) != self._environment:
                return None
            asked = json.dumps([list(words), dict(env), str(cwd)]).encode()
            socket.send_fds(ours, [len(asked).to_bytes(8, "big")], [file.fileno() for file in files])
            ours.sendall(asked)
            pid = int.from_bytes(_exactly(ours, 8), "big")
            ours.settimeout(seconds)
            try:
                return int.from_bytes(_exactly(ours, 8), "big", signed=True)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                ours.settimeout(None)
                _exactly(ours, 8)
                raise subprocess.TimeoutExpired(list(words), seconds) from None
            finally:
                ours.settimeout(None)
        finally:
            self._at_work.release()

    def close(self) -> None:
        if self._ours is not None and self._process is not None:
            self._ours.close()
            self._process.wait()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.loaded", str(theirs.fileno())],
                cwd=Path(__file__).parents[1],
                pass_fds=[theirs.fileno()],
                stdout=subprocess.DEVNULL,
            )
        self._environment = _at_start(os.environ)
        self._ours = ours
        return ours


def _at_start(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name.startswith(_AT_START) and name != _PATH}


def _exactly(connection: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        part = connection.recv(count - len(received))
        if not part:
            raise EOFError("the other side has gone")
        received += part
    return received


def _serve(connection: socket.socket) -> list[str]:
    """In each process that is forked off: its words."""
    while True:
        length, files, _, _ = socket.recv_fds(connection, 8, 2)
        if not length:
            raise SystemExit
        words, env, cwd = json.loads(_exactly(connection, int.from_bytes(length, "big")))
        pid = os.fork()
        if pid == 0:
            connection.close()
            for file, number in zip(files, (1, 2), strict=True):
                os.dup2(file, number)
                os.close(file)
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(env)
            time.tzset()
            return list(words)
        for file in files:
            os.close(file)
        connection.sendall(pid.to_bytes(8, "big"))
        _, status = os.waitpid(pid, 0)
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, "big", signed=True))


def _main() -> None:
    connection = socket.socket(fileno=int(sys.argv[1]))
    for library in _LIBRARIES:
        import_module(library)
    before = _on_path()
    gc.freeze()
    sys.argv[:] = _serve(connection)
    # As for a script: its own folder comes first.
    sys.path[:] = [
        str(Path(sys.argv[0]).parent), *_on_path(), *(folder for folder in sys.path[1:] if folder not in before)
    ]  # fmt: skip
    runpy.run_path(sys.argv[0], run_name="__main__")


def _on_path() -> list[str]:
    return [str(Path(folder).absolute()) for folder in os.environ.get(_PATH, "").split(os.pathsep) if folder]


if __name__ == "__main__":
    _main()
