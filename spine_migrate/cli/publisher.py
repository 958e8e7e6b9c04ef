"""What a user names as ``module:name``: the Celery application, or the executor, by which runs are published."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from spine_migrate.errors import ConfigurationError

if TYPE_CHECKING:
    from spine_migrate.execution.executors.protocol import Executor


def publisher(place: str) -> Executor:
    """The executor at ``place``, or one for the Celery application there.

    The working directory comes first on the path, as with ``celery --app``. Raises ConfigurationError.
    """
    found = _named(place)
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


def _named(place: str) -> Any:
    module_name, colon, attribute = place.partition(":")
    if not (colon and module_name and attribute):
        raise ConfigurationError(f"{place!r} does not name an object; write MODULE:NAME, such as shop.celery:app.")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = import_module(module_name)
    except ImportError as error:
        raise ConfigurationError(f"The module {module_name} cannot be imported: {error}.") from error
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ConfigurationError(f"The module {module_name} has no {attribute!r}.") from None
