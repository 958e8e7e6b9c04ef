"""The execution runtime: what is to be run becomes a run of the ledger, by way of one dispatcher (seed 000).

Application workers import it, so it imports nothing but the standard library; what needs a driver or a broker is in
modules of its own: ``ledgers.postgres``, ``guards.postgres``, ``guards.redis``, ``executors.celery``. What most of them
do not use is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spine_migrate.execution.context import TaskContext
from spine_migrate.execution.core import SyncDispatcher
from spine_migrate.execution.errors import (
    BackendError,
    BackpressureError,
    ConcurrencyError,
    ExecutionNotFoundError,
    InvalidSpecError,
    OrchestrationError,
    PipelineNotFoundError,
    RunCancelled,
    TransitionError,
)
from spine_migrate.execution.events import EventType, RunEvent
from spine_migrate.execution.registry import (
    HandlerRegistry,
    get_default_registry,
    register_pipeline,
    register_step,
    register_task,
    register_workflow,
    reset_default_registry,
)
from spine_migrate.execution.runs import RunRecord, RunStatus, RunSummary
from spine_migrate.execution.spec import WorkSpec, pipeline_spec, step_spec, task_spec, workflow_spec

if TYPE_CHECKING:
    from spine_migrate.execution.dispatcher import Dispatcher
    from spine_migrate.execution.dispatching import (
        ExecutionResult,
        ExecutionStatus,
        dispatch,
        dispatch_sync,
        get_backend,
        register_backend,
    )
    from spine_migrate.execution.pipelines import PIPELINES, PipelineSpec

__all__ = [
    "PIPELINES",
    "BackendError",
    "BackpressureError",
    "ConcurrencyError",
    "Dispatcher",
    "EventType",
    "ExecutionNotFoundError",
    "ExecutionResult",
    "ExecutionStatus",
    "HandlerRegistry",
    "InvalidSpecError",
    "OrchestrationError",
    "PipelineNotFoundError",
    "PipelineSpec",
    "RunCancelled",
    "RunEvent",
    "RunRecord",
    "RunStatus",
    "RunSummary",
    "SyncDispatcher",
    "TaskContext",
    "TransitionError",
    "WorkSpec",
    "dispatch",
    "dispatch_sync",
    "get_backend",
    "get_default_registry",
    "pipeline_spec",
    "register_backend",
    "register_pipeline",
    "register_step",
    "register_task",
    "register_workflow",
    "reset_default_registry",
    "step_spec",
    "task_spec",
    "workflow_spec",
]

_LATER = {
    "Dispatcher": "dispatcher",
    "ExecutionResult": "dispatching",
    "ExecutionStatus": "dispatching",
    "PIPELINES": "pipelines",
    "PipelineSpec": "pipelines",
    "dispatch": "dispatching",
    "dispatch_sync": "dispatching",
    "get_backend": "dispatching",
    "register_backend": "dispatching",
}


def __getattr__(name: str) -> Any:
    home = _LATER.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted(globals().keys() | _LATER)
