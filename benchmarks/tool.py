"""The installed command beside an application: started, let go on for a while, stopped as by Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.history import History
from spine_migrate.errors import Interrupted

_LONGEST_S = 120.0
# For the statement in flight to end, once the command is suspended.
_PAUSE_S = 0.3


def call(database: History, *words: str) -> Any:
    """The command's JSON, once it is done."""
    ran = subprocess.run(_command(*words, "--json"), env=_environment(database), capture_output=True, check=False)
    assert ran.returncode == 0, (words, ran.returncode, ran.stderr.decode()[-2000:], ran.stdout.decode()[:4000])
    return json.loads(ran.stdout)


class Beside:
    """The command while it is going."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def suspend(self) -> None:
        """At once, whatever it is at; its transaction stays open."""
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(_PAUSE_S)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def beside(database: History, *words: str, apart: bool = False) -> Iterator[Beside]:
    """The command goes on until the block ends; that it ended by itself is an error. ``apart``: as nearly as it can be
    had on one machine, as if the command were on another: it waits for a processor that nobody else wants. What the
    server does for it, it does as for everybody.
    """
    command = [*(("nice", "-n", "19") if apart else ()), *_command(*words, "--quiet")]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, env=_environment(database), stdout=subprocess.DEVNULL, stderr=said)
        try:
            yield Beside(process)
        finally:
            by_itself = process.poll()
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGINT)
            status = process.wait(timeout=_LONGEST_S)
        said.seek(0)
        ended = by_itself is None and status in (0, Interrupted.exit_code)
        assert ended, (words, status, said.read()[-2000:])


def applied(database: History, *, most: int = 100) -> None:
    """Wait until hardly any change is left to apply."""
    end = time.monotonic() + _LONGEST_S
    with database.connect() as connection:
        while True:
            ((left,),) = connection.execute("SELECT count(*) FROM spine_migrate.change_log").fetchall()
            if left <= most:
                return
            assert time.monotonic() < end, f"{left:,} changes are not applied"
            time.sleep(0.2)


def moved(database: History) -> int:
    """Rows that the backfill has moved."""
    with database.connect() as connection:
        ((rows,),) = connection.execute(
            "SELECT coalesce(sum(rows_moved), 0)::bigint FROM spine_migrate.checkpoint"
        ).fetchall()
    return int(rows)


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "spine_migrate", *words]


def _environment(database: History) -> dict[str, str]:
    return {**os.environ, "SPINE_DATABASE_URL": database.url}
