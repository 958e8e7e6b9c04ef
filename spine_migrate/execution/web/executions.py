"""The old application's read API: runs under the names that an execution's fields had (seeds 000 and 001).

The mapping is ``mappings/capture-spine/executions.toml``, backwards. Every kind of run is shown, since one place to
look for any work was what that application wanted (seed 001); ``kind=pipeline`` are those that it called executions.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from spine_migrate.execution.events import RunEvent
from spine_migrate.execution.runs import RunRecord, RunStatus, RunSummary
from spine_migrate.execution.web.asking import AnyDispatcher, ask, existing_run
from spine_migrate.execution.web.errors import RunsRoute, documented
from spine_migrate.execution.web.models import shown
from spine_migrate.execution.web.parameters import (
    ByKind,
    ByLane,
    ByName,
    ByStatus,
    Limit,
    Offset,
    RunId,
    Since,
    Until,
)


class ExecutionOut(BaseModel):
    execution_id: str
    pipeline_name: str
    params: dict[str, Any]
    lane: str | None
    trigger_source: str | None
    status: RunStatus
    backend_task_id: str | None
    feed_id: str | None
    retry_count: int | None
    max_retries: int | None
    parent_execution_id: str | None
    retry_of_execution_id: str | None
    idempotency_key: str | None
    result: Any
    error: str | None
    error_type: str | None
    created_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None

    @classmethod
    def of(cls, run: RunRecord) -> ExecutionOut:
        spec = run.spec
        return cls(
            execution_id=run.run_id,
            pipeline_name=spec.name,
            params=spec.params,
            lane=spec.lane,
            trigger_source=spec.trigger_source,
            status=run.status,
            backend_task_id=run.external_ref,
            feed_id=_feed_id(spec.metadata),
            retry_count=_retry_count(run),
            max_retries=spec.max_retries,
            parent_execution_id=spec.parent_run_id,
            retry_of_execution_id=run.retry_of_run_id,
            idempotency_key=spec.idempotency_key,
            result=shown(run.result),
            error=run.error,
            error_type=_error_type(run),
            created_at=run.created_at,
            started_at=run.started_at,
            completed_at=run.completed_at,
        )


class ExecutionEventOut(BaseModel):
    event_id: str
    execution_id: str
    event_type: str
    timestamp: datetime | None
    data: Any

    @classmethod
    def of(cls, event: RunEvent) -> ExecutionEventOut:
        return cls(
            event_id=event.event_id,
            execution_id=event.run_id,
            event_type=str(event.event_type),
            timestamp=event.timestamp,
            data=shown(event.data),
        )


def executions_router(dispatcher: AnyDispatcher) -> APIRouter:
    """Paths are relative to the prefix under which it is included, which must not be empty."""
    executions = _Executions(dispatcher)
    router = APIRouter(route_class=RunsRoute)
    known = documented(404, 422, 503)
    router.add_api_route(
        "", executions.list_executions, methods=["GET"], responses=documented(422, 503), summary="List executions"
    )
    router.add_api_route(
        "/{execution_id}", executions.get_execution, methods=["GET"], responses=known, summary="Get an execution"
    )
    router.add_api_route(
        "/{execution_id}/events", executions.get_events, methods=["GET"], responses=known,
        summary="What happened to an execution",
    )  # fmt: skip
    return router


class _Executions:
    def __init__(self, dispatcher: AnyDispatcher) -> None:
        self._dispatcher = dispatcher

    async def list_executions(
        self,
        *,
        status: ByStatus = None,
        pipeline_name: ByName = None,
        lane: ByLane = None,
        kind: ByKind = None,
        since: Since = None,
        until: Until = None,
        limit: Limit = 100,
        offset: Offset = 0,
    ) -> list[ExecutionOut]:
        """The newest first."""
        found: list[RunSummary] = await ask(
            self._dispatcher.list_runs, kind, status, pipeline_name, None, limit, offset,
            lane=lane, since=since, until=until,
        )  # fmt: skip
        runs: list[RunRecord] = await ask(self._dispatcher.get_runs, [run.run_id for run in found])
        return [ExecutionOut.of(run) for run in runs]

    async def get_execution(self, execution_id: RunId) -> ExecutionOut:
        return ExecutionOut.of(await existing_run(self._dispatcher, str(execution_id)))

    async def get_events(self, execution_id: RunId) -> list[ExecutionEventOut]:
        """In the order in which they were recorded."""
        found: list[RunEvent] = await ask(self._dispatcher.get_events, str(execution_id))
        return [ExecutionEventOut.of(event) for event in found]


def _feed_id(metadata: dict[str, Any]) -> str | None:
    """Work that was submitted here may name its feed as the entity only."""
    found = metadata.get("feed_id")
    if found is None and metadata.get("entity_type") == "feed":
        found = metadata.get("entity_id")
    return None if found is None else str(found)


def _retry_count(run: RunRecord) -> int | None:
    """Attempts after the first. NULL became the first attempt, and the mapping kept that it was NULL."""
    legacy = _legacy(run)
    was_null = run.attempt == 1 and "retry_count" in legacy and legacy["retry_count"] is None
    return None if was_null else run.attempt - 1


def _error_type(run: RunRecord) -> str | None:
    """The whole of it, where the mapping had to shorten it."""
    whole = _legacy(run).get("error_type")
    if isinstance(whole, str) and run.error_type and whole.startswith(run.error_type):
        return whole
    return run.error_type


def _legacy(run: RunRecord) -> dict[str, Any]:
    found = run.spec.metadata.get("legacy")
    return found if isinstance(found, dict) else {}
