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
        "spine_shims", "celery", "kombu", "vine", "amqp",
        "asyncio", "concurrent", "contextlib", "contextvars", "functools", "runpy", "threading",
        "ddtrace", "elasticapm", "newrelic", "opentelemetry", "sentry_sdk", "wrapt",
    }
)  # fmt: skip
#: What sends on nobody's behalf: a worker the next task of a chain, beat an entry, ``celery call`` what it was told.
PROGRAMS = ("billiard", "celery.apps", "celery.beat", "celery.bin", "celery.concurrency", "celery.worker")
_APPLICATION, _PASSED, _END = range(3)
#: Modules by name, so that a frame costs one look-up; there are no more than the process has imported.
_known: dict[str, int] = {}


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
    """The nearest frame that is nobody's machinery; None where a program of Celery comes first, or there is none, as in
    a thread whose target is ``task.delay`` itself. Follows frames alone and reads no file.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - inspect.stack() reads source files
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        kind = _known.get(name)
        if kind is None:
            kind = _known[name] = _kind(name)
        if kind == _APPLICATION:
            code = frame.f_code
            return CallSite(shown(code.co_filename, name), frame.f_lineno, code.co_qualname, code.co_filename, name)
        if kind == _END:
            return None
        frame = frame.f_back
    return None


def _kind(module: str) -> int:
    if any(module == program or module.startswith(f"{program}.") for program in PROGRAMS):
        return _END
    return _PASSED if module.partition(".")[0] in MACHINERY else _APPLICATION


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
