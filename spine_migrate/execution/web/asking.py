"""Asking a dispatcher from a loop, whether its methods are coroutines or not."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fastapi.concurrency import run_in_threadpool

from spine_migrate.execution.core import SyncDispatcher
from spine_migrate.execution.dispatcher import Dispatcher
from spine_migrate.execution.errors import ExecutionNotFoundError
from spine_migrate.execution.runs import RunRecord

AnyDispatcher = Dispatcher | SyncDispatcher


async def ask(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What ``method`` gives; one that is no coroutine function runs in a thread, so that the loop is never blocked."""
    if inspect.iscoroutinefunction(method):
        return await method(*args, **options)
    return await run_in_threadpool(method, *args, **options)


async def existing_run(dispatcher: AnyDispatcher, run_id: str) -> RunRecord:
    """Raises ExecutionNotFoundError."""
    run: RunRecord | None = await ask(dispatcher.get_run, run_id)
    if run is None:
        raise ExecutionNotFoundError(run_id)
    return run
