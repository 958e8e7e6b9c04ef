"""The operations on runs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from spine_migrate.execution.errors import TransitionError
from spine_migrate.execution.events import RunEvent
from spine_migrate.execution.runs import FINAL, RunRecord, RunStatus, RunSummary
from spine_migrate.execution.spec import KINDS
from spine_migrate.execution.web.asking import AnyDispatcher, ask, existing_run
from spine_migrate.execution.web.errors import RunsRoute, documented
from spine_migrate.execution.web.models import (
    CancelRun,
    RetriedOut,
    RunEventOut,
    RunOut,
    RunPage,
    RunSummaryOut,
    SubmitRun,
    SubmitWork,
)
from spine_migrate.execution.web.parameters import (
    ByKind,
    ByLane,
    ByName,
    ByParent,
    ByStatus,
    ByTag,
    Limit,
    Offset,
    RunId,
    Since,
    Until,
)

_LOCATION = {"Location": {"description": "The run.", "required": True, "schema": {"type": "string"}}}
_SUBMITTED: dict[int | str, dict[str, Any]] = {
    200: {"model": RunOut, "description": "The first run of this idempotency key.", "headers": _LOCATION},
    201: {"headers": _LOCATION},
    **documented(409, 422, 429, 503),
}
_RETRIED: dict[int | str, dict[str, Any]] = {201: {"headers": _LOCATION}, **documented(404, 409, 422, 429, 503)}
_CANCELLED: dict[int | str, dict[str, Any]] = {
    202: {"model": RunOut, "description": "Its worker was asked to stop."},
    **documented(404, 409, 422, 503),
}


def runs_router(dispatcher: AnyDispatcher) -> APIRouter:
    """Paths are relative to the prefix under which it is included, which must not be empty."""
    runs = _Runs(dispatcher)
    router = APIRouter(route_class=RunsRoute)
    add = router.add_api_route
    add("", runs.list_runs, methods=["GET"], responses=documented(422, 503), summary="List runs")
    add("", runs.submit, methods=["POST"], status_code=201, responses=_SUBMITTED, summary="Submit a run")
    for kind in KINDS:
        add(
            f"/{kind}s", runs.submitter(kind), methods=["POST"], status_code=201, responses=_SUBMITTED,
            name=f"submit_{kind}", summary=f"Submit a {kind}",
        )  # fmt: skip
        # Not a run's id, which the next path would take it for.
        add(f"/{kind}s", _only_post, methods=["GET"], include_in_schema=False)
    one, known = "/{run_id}", documented(404, 422, 503)
    add(one, runs.get_run, methods=["GET"], responses=known, summary="Get a run")
    add(f"{one}/events", runs.get_events, methods=["GET"], responses=known, summary="What happened to a run")
    add(f"{one}/children", runs.get_children, methods=["GET"], responses=known, summary="The runs that a run started")
    add(f"{one}/cancel", runs.cancel, methods=["POST"], responses=_CANCELLED, summary="Cancel a run")
    add(
        f"{one}/retry", runs.retry, methods=["POST"], status_code=201, responses=_RETRIED,
        summary="Submit a failed or cancelled run again, as a new one",
    )  # fmt: skip
    add(
        f"{one}/reprocess", runs.reprocess, methods=["POST"], responses=documented(404, 409, 422, 503),
        summary="Bring a dead letter back",
    )  # fmt: skip
    return router


class _Runs:
    """A ``Location`` is relative to the request's own path, and so right behind any prefix, mount or proxy."""

    def __init__(self, dispatcher: AnyDispatcher) -> None:
        self._dispatcher = dispatcher

    async def list_runs(
        self,
        *,
        status: ByStatus = None,
        kind: ByKind = None,
        name: ByName = None,
        lane: ByLane = None,
        tag: ByTag = None,
        since: Since = None,
        until: Until = None,
        parent: ByParent = None,
        limit: Limit = 100,
        offset: Offset = 0,
    ) -> RunPage:
        """The newest first."""
        found: list[RunSummary] = await ask(
            self._dispatcher.list_runs, kind, status, name, None if parent is None else str(parent), limit + 1, offset,
            lane=lane, tag=tag, since=since, until=until,
        )  # fmt: skip
        return _page(found, limit, offset)

    async def submit(self, body: SubmitRun, request: Request, response: Response) -> RunOut:
        """Of any kind. A run that has the same idempotency key already is the answer, with 200, instead."""
        last = request.url.path.rpartition("/")[2]
        return await self._submit(body, body.kind, response, f"{last}/")

    def submitter(self, kind: str) -> Any:
        async def submit(body: SubmitWork, response: Response) -> RunOut:
            return await self._submit(body, kind, response, "")

        return submit

    async def _submit(self, body: SubmitWork, kind: str, response: Response, base: str) -> RunOut:
        run = body.run(kind)
        stored: RunRecord = await ask(self._dispatcher.submit_run, run, body.delivery())
        response.headers["Location"] = f"{base}{stored.run_id}"
        if stored.run_id != run.run_id:
            response.status_code = 200
        return RunOut.of(stored)

    async def get_run(self, run_id: RunId) -> RunOut:
        return RunOut.of(await existing_run(self._dispatcher, str(run_id)))

    async def get_events(self, run_id: RunId) -> list[RunEventOut]:
        """In the order in which they were recorded."""
        found: list[RunEvent] = await ask(self._dispatcher.get_events, str(run_id))
        return [RunEventOut.of(event) for event in found]

    async def get_children(self, run_id: RunId, limit: Limit = 100, offset: Offset = 0) -> RunPage:
        """The newest first."""
        await existing_run(self._dispatcher, str(run_id))
        found: list[RunSummary] = await ask(self._dispatcher.get_children, str(run_id), limit + 1, offset)
        return _page(found, limit, offset)

    async def cancel(self, run_id: RunId, response: Response, body: CancelRun | None = None) -> RunOut:
        """202 where a worker has the run: it is cancelled once that has stopped. Cancelling again changes nothing."""
        cancelled: bool = await ask(self._dispatcher.cancel, str(run_id), (body or CancelRun()).reason)
        run = await existing_run(self._dispatcher, str(run_id))
        if not cancelled and run.status is not RunStatus.CANCELLED:
            raise TransitionError(run.run_id, run.status, RunStatus.CANCELLED, "it has ended already")
        if run.status not in FINAL:
            response.status_code = 202
        return RunOut.of(run)

    async def retry(self, run_id: RunId, response: Response) -> RetriedOut:
        """The new run has the same spec, but not the idempotency key."""
        new: str = await ask(self._dispatcher.retry, str(run_id))
        response.headers["Location"] = f"../{new}"
        return RetriedOut(run_id=new, retry_of_run_id=str(run_id))

    async def reprocess(self, run_id: RunId) -> RunOut:
        """The same run, with all its retries."""
        return RunOut.of(await ask(self._dispatcher.reprocess, str(run_id)))


async def _only_post() -> None:
    raise HTTPException(405, headers={"Allow": "POST"})


def _page(found: list[RunSummary], limit: int, offset: int) -> RunPage:
    """``found`` has one more than fits where there is another page."""
    runs = [RunSummaryOut.model_validate(run) for run in found[:limit]]
    return RunPage(runs=runs, next_offset=offset + limit if len(found) > limit else None)
