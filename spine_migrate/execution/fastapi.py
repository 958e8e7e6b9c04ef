"""Runs over HTTP: a FastAPI router around a dispatcher (seed 000).

``app.include_router(create_runs_router(dispatcher), dependencies=[Depends(...)])`` is how an application puts its own
authentication in front; the router has none. Needs the extra ``fastapi``.
"""

from __future__ import annotations

try:
    from fastapi import APIRouter
except ModuleNotFoundError as error:
    if error.name != "fastapi":
        raise
    raise ImportError("The runs router needs FastAPI; install it with: pip install 'spine-migrate[fastapi]'") from error

from spine_migrate.execution.web.asking import AnyDispatcher
from spine_migrate.execution.web.executions import executions_router
from spine_migrate.execution.web.runs import runs_router


def create_runs_router(
    dispatcher: AnyDispatcher, prefix: str = "/runs", *, executions_prefix: str | None = "/executions"
) -> APIRouter:
    """Submit, list, read, cancel, retry and reprocess runs under ``prefix``; read them in the old application's field
    names under ``executions_prefix``, unless that is None.

    Every error of the runtime has one body, ``web.models.ErrorBody``: 404 unknown run, 409 another run of its entity is
    active or the run's status does not allow it, 422 the request makes no run, 429 the lane is full, 503 the ledger or
    the broker cannot be reached; the last two with ``Retry-After``.
    """
    router = APIRouter()
    router.include_router(runs_router(dispatcher), prefix=prefix, tags=["runs"])
    if executions_prefix is not None:
        router.include_router(executions_router(dispatcher), prefix=executions_prefix, tags=["executions"])
    return router
