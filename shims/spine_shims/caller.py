"""Whose line a call came from, through whatever Celery puts between that line and the shim."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from types import FrameType
from typing import NamedTuple

#: Packages whose frames are never the caller's: ours, Celery's, what calls on behalf of somebody, and what instruments
#: Celery by putting a frame of its own around ``apply_async``.
MACHINERY = frozenset(
    {
        "spine_shims", "celery", "kombu", "billiard", "vine", "amqp",
        "asyncio", "concurrent", "contextlib", "contextvars", "functools", "runpy", "threading",
        "ddtrace", "elasticapm", "newrelic", "opentelemetry", "sentry_sdk", "wrapt",
    }
)  # fmt: skip
#: Modules by name, so that a frame costs one look-up; there are no more than the process has imported.
_known: dict[str, bool] = {}


class CallSite(NamedTuple):
    """A line of an application. ``file`` is relative to what the application is imported from; ``path`` is the file as
    the interpreter knows it, ``module`` the name of its module.
    """

    file: str
    line: int
    function: str
    path: str = ""
    module: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.function}"


def call_site() -> CallSite | None:
    """The nearest frame that is nobody's machinery; None where there is none, as where a worker sends the next task of
    a chain. Follows frames alone and reads no file.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - inspect.stack() reads source files
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        passed = _known.get(name)
        if passed is None:
            passed = _known[name] = name.partition(".")[0] in MACHINERY
        if not passed:
            code = frame.f_code
            if name == "__main__" and _is_celery_itself(code.co_filename, frame.f_globals.get("__package__")):
                return None
            return CallSite(shown(code.co_filename, name), frame.f_lineno, code.co_qualname, code.co_filename, name)
        frame = frame.f_back
    return None


def _is_celery_itself(path: str, package: str | None) -> bool:
    """``celery worker`` and ``python -m celery worker``, whose outermost frame is a module named ``__main__``."""
    return package == "celery" or os.path.splitext(os.path.basename(path))[0] in _PROGRAMS  # noqa: PTH119, PTH122 - no Path


_PROGRAMS = frozenset({"celery", "celery-script"})


@lru_cache(maxsize=1024)
def shown(path: str, module: str) -> str:
    """A file relative to the folder that its module was imported from, which its name tells: ``shop/tasks.py`` for the
    module ``shop.tasks``. A program, which has no such name, is relative to the working directory where it is under it.
    """
    plain = path.replace("\\", "/")
    parts = plain.split("/")
    depth = module.count(".") + 1
    if parts[-1] == "__init__.py":
        depth += 1
    end = "/".join(parts[-depth:])
    if os.path.splitext(end)[0].removesuffix("/__init__").replace("/", ".") == module:  # noqa: PTH122 - no Path here
        return end
    for folder in (_STARTED_IN, *sys.path):
        if folder and plain.startswith(f"{folder.rstrip('/')}/"):
            return plain[len(folder.rstrip("/")) + 1 :]
    return plain


def _working_directory() -> str:
    """None to speak of where it was removed under the process."""
    try:
        return os.getcwd().replace("\\", "/")  # noqa: PTH109 - no Path here
    except OSError:
        return ""


_STARTED_IN = _working_directory()
