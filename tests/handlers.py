"""Handlers for tests of executors, importable by name in every process.

What they did is told by files in ``params["folder"]``: ``ran-<run id>`` has a line per execution, ``began-<run id>`` is
there once one waits, which it does until there is a file ``go``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from spine_migrate.execution import HandlerRegistry, TaskContext
from spine_migrate.execution.errors import RunCancelled

registry = HandlerRegistry()


def _ran(params: dict[str, Any], context: TaskContext) -> Path:
    folder = Path(params["folder"])
    with (folder / f"ran-{context.run_id}").open("a") as lines:
        lines.write(f"{os.getpid()}\n")
    return folder


def quick(params: dict[str, Any], context: TaskContext) -> Any:
    _ran(params, context)
    return {"attempt": context.attempt, "given": params.get("value")}


async def tells(params: dict[str, Any], context: TaskContext) -> str:
    _ran(params, context)
    await context.report_progress(50, "half")
    context.report_progress(100)
    return "told"


def waits(params: dict[str, Any], context: TaskContext) -> str:
    """Until it may go on, or is told to stop."""
    folder = _ran(params, context)
    (folder / f"began-{context.run_id}").touch()
    while not (folder / "go").exists():
        if context.cancelled.wait(0.005):
            raise RunCancelled("told to stop")
    return "went on"


def deaf(params: dict[str, Any], context: TaskContext) -> None:
    """Waits, and never looks whether it is to stop."""
    folder = _ran(params, context)
    (folder / f"began-{context.run_id}").touch()
    pause = signal.sigtimedwait
    while not (folder / "go").exists():
        pause([], 0.005)


def fails_once(params: dict[str, Any], context: TaskContext) -> str:
    _ran(params, context)
    if context.attempt == 1:
        raise ValueError("the first attempt fails")
    return "at last"


def dies_once(params: dict[str, Any], context: TaskContext) -> str:
    """As kill -9, or the system for want of memory."""
    _ran(params, context)
    if context.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return "at last"


def leaves(params: dict[str, Any], context: TaskContext) -> None:
    _ran(params, context)
    sys.exit("leaving")


def gives_no_json(params: dict[str, Any], context: TaskContext) -> object:
    _ran(params, context)
    return {1, 2}


def fence(_: dict[str, Any], context: TaskContext) -> int | None:
    return context.entity_fence


def forks(params: dict[str, Any], context: TaskContext) -> int:
    """Leaves a process behind that holds whatever this one has open, then dies."""
    folder = _ran(params, context)
    if context.attempt > 1:
        return 0
    if os.fork() == 0:
        while not (folder / "go").exists():
            signal.sigtimedwait([], 0.005)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
    return 1


for handler in (quick, tells, waits, deaf, fails_once, dies_once, leaves, gives_no_json, fence, forks):
    registry.register("task", handler.__name__, handler)
