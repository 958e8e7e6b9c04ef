"""The OpenAPI document tells the truth: schemathesis asks for what it describes, and for what it does not.

All of schemathesis' phases but the examples, of which there are none, with its checks: no server error, no status,
header, content type or body that is not documented, nothing refused that is described, nothing accepted that is not.
The requests are the same in every run. tests/integration/test_fastapi_errors.py asks for the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import schemathesis
from fastapi import FastAPI
from psycopg_pool import ConnectionPool
from schemathesis.engine import Status, from_schema
from schemathesis.engine.events import FatalError, NonFatalError, ScenarioFinished
from schemathesis.python.asgi import shutdown_lifespans

from spine_migrate.db import schema as revisions
from spine_migrate.execution import Dispatcher
from spine_migrate.execution.fastapi import create_runs_router
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.spec import KINDS, PRIORITIES
from spine_migrate.execution.web.models import Kind, Priority
from tests.database import Database
from tests.http_api import Postbox

_SETTINGS: dict[str, Any] = {
    "seed": 3,
    # Text in nested JSON may have a NUL for all that JSON Schema can say, and PostgreSQL none.
    "generation": {"max-examples": 5, "deterministic": True, "database": "none", "allow-x00": False},
    "phases": {"examples": {"enabled": False}},
    # Starlette names the methods of one route, where several share a path.
    "checks": {"allow_header_conformance": {"enabled": False}},
}


@pytest.fixture
def described(database: Database) -> Iterator[Any]:
    revisions.upgrade(database.url)
    app = FastAPI()
    with ConnectionPool(database.url, min_size=1, max_size=4) as pool:
        app.include_router(create_runs_router(Dispatcher(Postbox(), PostgresLedger(pool))))
        yield _described(app)
        shutdown_lifespans()


def _described(app: FastAPI) -> Any:
    found = schemathesis.openapi.from_asgi("/openapi.json", app, config=schemathesis.Config.from_dict(_SETTINGS))

    @found.hook("filter_case")
    def no_unknown_parent(_context: Any, case: Any) -> bool:
        """That it exists is nothing that a schema could say."""
        return not (isinstance(case.body, dict) and case.body.get("parent_run_id"))

    return found


def test_schemathesis_finds_nothing(described: Any) -> None:
    found: list[str] = []
    statuses: Counter[int] = Counter()
    operations: set[str] = set()
    for event in from_schema(described).execute():
        assert not isinstance(event, (FatalError, NonFatalError)), event
        if isinstance(event, ScenarioFinished):
            operations.add(event.recorder.label)
            statuses.update(
                seen.response.status_code for seen in event.recorder.interactions.values() if seen.response is not None
            )
            found += [
                f"{event.recorder.label}: {check.failure_info.failure.message}\n{check.failure_info.code_sample}"
                for checks in event.recorder.checks.values()
                for check in checks
                if check.failure_info is not None
            ]
            assert event.status in {Status.SUCCESS, Status.SKIP} or found
    assert not found, "\n\n".join(found)
    # It has come to more than the doors.
    assert {200, 201, 404, 405, 409, 422} <= set(statuses)
    assert len(operations & {f"{method} {path}" for path, item in _paths(described) for method in item}) == 15


def _paths(described: Any) -> list[tuple[str, list[str]]]:
    return [(path, [method.upper() for method in item]) for path, item in described.raw_schema["paths"].items()]


def test_every_refusal_is_documented_with_the_one_body() -> None:
    app = FastAPI()
    app.include_router(create_runs_router(Dispatcher(Postbox())))
    document = app.openapi()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            refusals = {status: told for status, told in operation["responses"].items() if status[0] in "45"}
            assert {"422", "503"} <= set(refusals), f"{method} {path}"
            for told in refusals.values():
                assert told["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ErrorBody"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_api_knows_the_kinds_and_priorities_that_specs_know() -> None:
    assert get_args(Kind) == KINDS
    assert get_args(Priority) == PRIORITIES
