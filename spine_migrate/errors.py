"""The error tree: every failure a user can meet is one of these, with one sentence and one exit code.

Exit codes (see README): 1 is not an error here, it is a verdict; 2 usage, configuration or mapping; 3 a precondition is
missing; 4 interrupted and resumable; 5 a server or network fault that outlived the retries.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class SpineMigrateError(Exception):
    """Base of the tree. ``str(error)`` is one sentence: what, where, and what to do about it."""

    exit_code: ClassVar[int] = 2

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


class ConfigurationError(SpineMigrateError):
    """An option, an environment variable or a connection URL is missing or makes no sense."""


class MappingError(SpineMigrateError):
    """A mapping file cannot be used.

    ``path`` is the dotted key path inside the file (``fields.status.values``), ``line`` the 1-based line it stands on,
    or None where the file gives no line.
    """

    def __init__(self, message: str, *, file: Path | None = None, path: str = "", line: int | None = None) -> None:
        place = "" if file is None else f"{file}{f':{line}' if line else ''}: "
        super().__init__(f"{place}{f'{path}: ' if path else ''}{message}")
        self.message = message
        self.file = file
        self.path = path
        self.line = line


class RowRejected(SpineMigrateError):
    """A mapping cannot carry a row; ``reason`` is the code that quarantine has, ``field`` the rule's dotted target.

    Exit code 1: such rows are a verdict on the data, not a fault.
    """

    exit_code = 1

    def __init__(self, reason: str, field: str, rule: str) -> None:
        super().__init__(f"The row cannot be carried by the rule {rule}: {reason}.")
        self.reason = reason
        self.field = field


class Refused(SpineMigrateError):
    """A precondition is missing; ``precondition`` is its stable name, nothing was changed."""

    exit_code = 3

    def __init__(self, precondition: str, sentence: str) -> None:
        super().__init__(sentence)
        self.precondition = precondition


class Drift(Refused):
    """The live catalog does not have the shape that the mapping declares."""

    def __init__(self, differences: list[str]) -> None:
        super().__init__(
            "catalog-drift",
            f"The database does not match the mapping, and one of them must be mended: {'; '.join(differences)}.",
        )
        self.differences = differences


class Interrupted(SpineMigrateError):
    """Stopped on request after a committed batch; running the same command again goes on from there."""

    exit_code = 4


class ServerFault(SpineMigrateError):
    """The server or the network failed for longer than the retries last; what was committed stays, a run can resume."""

    exit_code = 5

    def __init__(self, sentence: str, *, sqlstate: str | None = None) -> None:
        super().__init__(sentence)
        self.sqlstate = sqlstate
