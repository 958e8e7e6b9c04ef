"""Handlers and old bodies for tests of ``compare-backends``, without Celery. They write into the working folder."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from spine_migrate.execution import HandlerRegistry, SyncDispatcher, register_backend, register_pipeline, register_task
from spine_migrate.execution.executors.simple import SimpleExecutor

Params = dict[str, Any]

#: Longer than any test takes.
_LONG = 600

nothing = HandlerRegistry()
register_backend("own", lambda: SyncDispatcher(SimpleExecutor()))


def _dry(params: Params) -> Params:
    return {**params, "dry": True}


def _note(name: str) -> None:
    with Path(name).open("a", encoding="utf-8") as file:
        file.write("x")


@register_pipeline("double", pure=True)
def double(params: Params) -> int:
    sys.stdout.write("said by the handler\n")
    return int(params["n"] * 2)


@register_pipeline("where", pure=True)
def where(_: Params) -> Params:
    return {"rows": [1, {"thread": threading.current_thread().name}]}


@register_pipeline("writes")
def writes(_: Params) -> None:
    _note("written")


@register_pipeline("careful", dry_run=_dry)
def careful(params: Params) -> Params:
    if not params.get("dry"):
        raise AssertionError("for real")
    return params


@register_pipeline("charge")
def charge(params: Params) -> int:
    if not params.get("dry"):
        raise AssertionError("charged twice")
    return int(params["n"])


@register_pipeline("deaf", pure=True)
def deaf(_: Params) -> None:
    time.sleep(_LONG)


@register_pipeline("twice")
@register_task("twice")
def twice(_: Params) -> int:
    return 1


@register_pipeline("fails", pure=True)
def fails(_: Params) -> None:
    raise ValueError("no")


def old_double(n: int, factor: int = 2) -> int:
    return n * factor


async def old_async(n: int) -> int:
    return n * 2


def old_stuck(n: int) -> int:
    time.sleep(_LONG)
    return n


def old_exits(n: int) -> None:
    sys.exit(n)


def old_charge(n: int) -> int:
    _note("charged")
    return n


charge_dry = _dry
