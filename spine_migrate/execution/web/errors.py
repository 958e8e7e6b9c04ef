"""The runtime's errors as HTTP answers, with one body for all of them.

A route's own handler does it, so that the router works in any application and changes none of its other answers.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from spine_migrate.execution.errors import (
    BackendError,
    BackpressureError,
    ConcurrencyError,
    ExecutionNotFoundError,
    InvalidSpecError,
    OrchestrationError,
    PipelineNotFoundError,
    TransitionError,
)
from spine_migrate.execution.web.models import ErrorBody, Problem

#: Seconds that a client is asked to wait; a lane's queue moves on, and a server restarts, in about that time.
RETRY_AFTER = 5

#: Values of ``responses`` of an operation, and what they mean.
_MEANINGS = {
    404: "There is no such run.",
    409: "The run's status does not allow it, or another run of its entity is active.",
    422: "The request is not valid, or makes no run.",
    429: "The lane has as many waiting runs as it may have.",
    503: "The ledger or the broker cannot be reached.",
}

_STATUSES: dict[type[OrchestrationError], int] = {
    ExecutionNotFoundError: 404,
    ConcurrencyError: 409,
    TransitionError: 409,
    InvalidSpecError: 422,
    PipelineNotFoundError: 422,
    BackpressureError: 429,
    BackendError: 503,
}

_PASSWORD = re.compile(r"(://[^\s/@:]*):[^\s/]*@")
_log = logging.getLogger(__name__)

Handle = Callable[[Request], Coroutine[Any, Any, Response]]


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The ``responses`` of an operation that can end with ``statuses``."""
    wait = {"Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "integer"}}}
    return {
        status: {
            "model": ErrorBody,
            "description": _MEANINGS[status],
            **({"headers": wait} if status in (429, 503) else {}),
        }
        for status in statuses
    }


class RunsRoute(APIRoute):
    def get_route_handler(self) -> Handle:
        handle = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await handle(request)
            except OrchestrationError as error:
                return _refusal(error)
            except RequestValidationError as error:
                return _invalid([_problem(found) for found in error.errors()])
            except HTTPException as error:
                # A body that is no JSON at all, for a reason that json does not raise a JSONDecodeError for: bytes that
                # are no UTF-8, brackets without end, a number too long. An application's own exceptions pass.
                if error.status_code != 400 or not isinstance(error.__cause__, (ValueError, RecursionError)):  # noqa: PLR2004
                    raise
                return _invalid([Problem(field="body", detail="The body cannot be read as JSON.")])

        return answered


def _refusal(error: OrchestrationError) -> Response:
    status = next((status for kind, status in _STATUSES.items() if isinstance(error, kind)), None)
    if status is None:
        raise error
    detail = error.sentence
    if isinstance(error, BackendError):
        # Names of hosts, roles and databases are for those who run the service.
        _log.warning("Answered 503: %s", _PASSWORD.sub(r"\1:****@", str(error)))
        detail = "The ledger or the broker cannot be reached; try again later."
    problems = [Problem(field=error.field, detail=_text(detail))] if isinstance(error, InvalidSpecError) else []
    body = ErrorBody(
        category=error.category,
        retryable=error.retryable,
        detail=_text(detail),
        run_id=getattr(error, "run_id", None),
        problems=problems,
    )
    return _answer(status, body)


def _invalid(problems: list[Problem]) -> Response:
    detail = "; ".join(f"{problem.field}: {problem.detail}" for problem in problems)
    category, retryable = InvalidSpecError.category, InvalidSpecError.retryable
    return _answer(
        422, ErrorBody(category=category, retryable=retryable, detail=f"Not valid: {detail}", problems=problems)
    )


def _problem(found: dict[str, Any]) -> Problem:
    """What pydantic found, without the input, which may be a secret."""
    return Problem(field=_text(".".join(map(str, found["loc"]))), detail=_text(found["msg"]))


def _answer(status: int, body: ErrorBody) -> Response:
    headers = {"Retry-After": str(RETRY_AFTER)} if status in (429, 503) else None
    return JSONResponse(body.model_dump(), status, headers=headers)


def _text(text: str) -> str:
    """Fit for UTF-8: a key of the request may be half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode()
