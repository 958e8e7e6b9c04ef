"""A hook that is an executable: facts in its environment and on its stdin, its exit code for an answer."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from spine_migrate.errors import ConfigurationError
from spine_migrate.observe.facts import EVENTS

# Of what it writes to stderr, the first line is told, up to so many characters.
_TOLD = 200
_PREFIXES = ("before-", "after-", "on-")


@dataclass(frozen=True)
class Executable:
    file: Path

    def __str__(self) -> str:
        return str(self.file)

    def __call__(self, body: bytes, environment: Mapping[str, str], seconds: float) -> str | None:
        """Run it to its end. None where it exits with 0, else what went wrong, in words.

        It has a session of its own, so that Ctrl-C is ours, and is killed with its whole group after ``seconds``. Its
        stdin and stderr are files, not pipes: what it leaves in the background can hold nothing up. Its stdout is
        dropped, ours is for data.
        """
        try:
            return self._run(body, environment, seconds)
        except (OSError, ValueError) as error:
            return f"it cannot be started: {getattr(error, 'strerror', None) or error}"

    def _run(self, body: bytes, environment: Mapping[str, str], seconds: float) -> str | None:
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
            given.write(body)
            given.seek(0)
            process = subprocess.Popen(
                [self.file],
                stdin=given,
                stdout=subprocess.DEVNULL,
                stderr=said,
                env=dict(environment),
                start_new_session=True,
            )
            try:
                code = process.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                return f"it took more than {seconds:g} seconds and was killed"
            finally:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            if code == 0:
                return None
            said.seek(0)
            words = first_line(said.read(4 * _TOLD + 1))
            how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
            return f"{how}: {words}" if words else how


def first_line(text: bytes) -> str:
    """The first line that is not empty, without control characters, cut where it is long."""
    lines = text.decode(errors="replace").splitlines()
    line = next((line.strip() for line in lines if line.strip()), "")
    shown = "".join(letter if letter.isprintable() else " " for letter in line)
    return shown if len(shown) <= _TOLD else f"{shown[:_TOLD]}..."


def in_folder(folder: Path) -> dict[str, Executable]:
    """By event. Files of other names may lie beside them, but a name that looks like an event's and is none would be a
    hook that is never called, perhaps one that should veto.

    Raises ConfigurationError for those, for a file that is not executable, and where there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is not a folder; --hooks names one with executables called by the event.")
    found = {}
    for file in sorted(folder.iterdir()):
        if not file.name.startswith(_PREFIXES) or file.is_dir():
            continue
        if file.name not in EVENTS:
            raise ConfigurationError(f"{file} is called like no event; events are {', '.join(EVENTS)}.")
        if not os.access(file, os.X_OK):
            raise ConfigurationError(f"{file} is not executable; chmod +x it, or take it out of the folder.")
        found[file.name] = Executable(file.resolve())
    return found
