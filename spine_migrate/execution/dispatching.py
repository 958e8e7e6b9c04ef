"""``dispatch``: one call for a pipeline, whatever carries it, as market-spine has it (seed 003).

Which backend that is, is the caller's argument, else the environment's ORCHESTRATOR_BACKEND, else ``simple``. An
application registers its own; these three need nothing and keep their runs in memory:

- ``simple`` runs the pipeline in the calling thread, once, and is over when the call is;
- ``memory`` keeps it until ``get_backend("memory").executor.run_all()`` (for tests);
- ``local`` runs it in a thread of this process.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

from spine_migrate.errors import ConfigurationError
from spine_migrate.execution.core import SyncDispatcher
from spine_migrate.execution.dispatcher import Dispatcher
from spine_migrate.execution.errors import ExecutionNotFoundError
from spine_migrate.execution.executors.memory import MemoryExecutor
from spine_migrate.execution.executors.simple import SimpleExecutor
from spine_migrate.execution.runs import RunRecord, RunStatus

#: What the old application calls them (seed 003).
ExecutionResult = RunRecord
ExecutionStatus = RunStatus

VARIABLE = "ORCHESTRATOR_BACKEND"

_NOT_SHIPPED = ("airflow", "dagster", "prefect", "temporal")

Factory = Callable[[], SyncDispatcher | Dispatcher]


def _local() -> SyncDispatcher:
    from spine_migrate.execution.executors.local import LocalExecutor

    return SyncDispatcher(LocalExecutor(), check_handlers=True)


def _needs_an_application() -> SyncDispatcher:
    raise ConfigurationError(
        "The backend celery needs the application's Celery app and ledger; register it with"
        " register_backend('celery', lambda: Dispatcher(CeleryExecutor(app), ledger))."
    )


_SHIPPED: dict[str, Factory] = {
    "simple": lambda: SyncDispatcher(SimpleExecutor(), check_handlers=True),
    "memory": lambda: SyncDispatcher(MemoryExecutor(), check_handlers=True),
    "local": _local,
    "celery": _needs_an_application,
}
_factories: dict[str, Factory] = dict(_SHIPPED)
_made: dict[str, SyncDispatcher] = {}
_lock = threading.RLock()


async def dispatch(
    pipeline: str, params: dict[str, Any] | None = None, backend: str | None = None, **fields: Any
) -> RunRecord:
    """As ``dispatch_sync``, without blocking the loop."""
    return await asyncio.to_thread(dispatch_sync, pipeline, params, backend, **fields)


def dispatch_sync(
    pipeline: str, params: dict[str, Any] | None = None, backend: str | None = None, **fields: Any
) -> RunRecord:
    """Submit a pipeline and give its run: finished with the backend ``simple``, as far as it is by then with others.
    ``fields`` as of ``SyncDispatcher.submit``.

    Raises ConfigurationError for a backend that is not there, PipelineNotFoundError for a pipeline that is not, and as
    ``SyncDispatcher.submit``.
    """
    dispatcher = get_backend(backend)
    if isinstance(dispatcher.executor, SimpleExecutor):
        # There is nobody to try it again, and a caller who sees how it ended.
        fields.setdefault("max_retries", 0)
    run_id = dispatcher.submit(pipeline, params, **fields)
    run = dispatcher.get_run(run_id)
    if run is None:
        raise ExecutionNotFoundError(run_id)
    return run


def register_backend(name: str, factory: Factory) -> None:
    """``factory`` makes the dispatcher of a backend when it is first used; it takes the place of the one shipped, or
    registered before, under that name.
    """
    with _lock:
        _factories[_name(name)] = factory
        _made.pop(_name(name), None)


def reset_backends() -> None:
    """Only those that are shipped, without the runs they had; for tests."""
    with _lock:
        _factories.clear()
        _factories.update(_SHIPPED)
        _made.clear()


def get_backend(name: str | None = None) -> SyncDispatcher:
    """The dispatcher of a backend, the same one each time. Raises ConfigurationError."""
    chosen = _name(os.environ.get(VARIABLE, "") if name is None else name) or "simple"
    with _lock:
        if chosen not in _made:
            made = _factory(chosen)()
            _made[chosen] = made.sync if isinstance(made, Dispatcher) else made
        return _made[chosen]


def _factory(name: str) -> Factory:
    if name in _factories:
        return _factories[name]
    known = ", ".join(sorted(_factories))
    if name in _NOT_SHIPPED:
        raise ConfigurationError(
            f"The backend {name} is not shipped; register one with register_backend({name!r}, ...), or choose one of"
            f" {known}."
        )
    raise ConfigurationError(f"There is no backend {name!r}; choose one of {known}, by argument or by {VARIABLE}.")


def _name(text: str) -> str:
    return text.strip().lower()
