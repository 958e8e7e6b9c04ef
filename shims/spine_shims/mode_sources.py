"""Modes of tasks as an environment variable and as a file have them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from spine_migrate.errors import ConfigurationError

Parsed = TypeVar("Parsed")

#: For all tasks that are not named.
ALL = "*"
#: ``legacy`` for all tasks, ``shop.tasks.bill=canary=10%;*=legacy`` for some.
VARIABLE = "SPINE_SHIM_MODE"
#: The path of a TOML file.
FILE = "SPINE_SHIM_MODES_FILE"


def by_environment(text: str, parse: Callable[[str], Parsed]) -> dict[str, Parsed]:
    """From ``MODE`` or ``TASK=MODE``, several with semicolons between them. Raises ConfigurationError."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        task, mode = _split(part, parse)
        if not task or task in found:
            why = "names no task" if not task else f"names {task} twice"
            raise ConfigurationError(f"{VARIABLE} {why}; write MODE, or TASK=MODE;TASK=MODE.")
        found[task] = mode
    return found


def _split(part: str, parse: Callable[[str], Parsed]) -> tuple[str, Parsed]:
    """``canary=10%`` is a mode of all tasks, ``canary=legacy`` one of a task with this name."""
    task, separator, mode = part.partition("=")
    try:
        return ALL, parse(part)
    except ConfigurationError as error:
        try:
            if separator:
                return task.strip(), parse(mode)
        except ConfigurationError as of_task:
            raise ConfigurationError(f"{VARIABLE}: {of_task.sentence}") from None
        raise ConfigurationError(f"{VARIABLE}: {error.sentence}") from None


def by_file(path: str | os.PathLike[str], parse: Callable[[str], Parsed]) -> dict[str, Parsed]:
    """From the table ``modes`` of a TOML file; a task's name may stand in quotes or, dots and all, without. Raises
    ConfigurationError.
    """
    # Most processes have no such file.
    import tomllib

    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror or error}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML ({error}).") from None
    modes = document.pop("modes", {})
    if document or not isinstance(modes, dict):
        raise ConfigurationError(f'{path}: modes stand in a table [modes], as TASK = "MODE", and nothing else does.')
    found = {}
    for task, mode in _flat(modes):
        if not isinstance(mode, str) or task in found:
            why = "stands twice" if task in found else "has no text for its mode"
            raise ConfigurationError(f'{path}: {task} {why}; write TASK = "MODE".')
        try:
            found[task] = parse(mode)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {task}: {error.sentence}") from None
    return found


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """``shop.tasks.bill = …`` without quotes is a table in a table."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
