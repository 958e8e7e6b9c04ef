"""What a user names as ``module:name``, such as the Celery application by which runs are published."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from spine_migrate.errors import ConfigurationError

if TYPE_CHECKING:
    from spine_migrate.execution.executors.protocol import Executor


def publisher(place: str) -> Executor:
    """The executor at ``place``, or one for the Celery application there. Raises ConfigurationError."""
    found = named(place)
    if callable(getattr(found, "submit", None)) and hasattr(found, "name"):
        return cast("Executor", found)
    try:
        from spine_migrate.execution.executors.celery import CeleryExecutor
    except ImportError as error:
        raise ConfigurationError(f"{error}.") from error
    from celery import Celery

    if not isinstance(found, Celery):
        raise ConfigurationError(
            f"{place} is of the type {type(found).__name__}, neither a Celery application nor an executor; "
            f"name one of them, such as shop.celery:app."
        )
    return CeleryExecutor(found)


def named(place: str, example: str = "shop.celery:app") -> Any:
    """The object at ``module:name``. Raises ConfigurationError."""
    module_name, colon, attribute = place.partition(":")
    if not (colon and module_name and attribute):
        raise ConfigurationError(f"{place!r} does not name an object; write MODULE:NAME, such as {example}.")
    module = imported(module_name)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ConfigurationError(f"The module {module_name} has no {attribute!r}.") from None


def imported(module_name: str) -> ModuleType:
    """The working directory comes first on the path, as with ``celery --app``. Raises ConfigurationError."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return import_module(module_name)
    except ImportError as error:
        raise ConfigurationError(f"The module {module_name} cannot be imported: {error}.") from error
