"""Whatever goes wrong has one body, tells a client what to do, and tells it nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from psycopg_pool import ConnectionPool

from spine_migrate.execution import BackendError, Dispatcher, HandlerRegistry, RunRecord, SyncDispatcher, task_spec
from spine_migrate.execution.fastapi import create_runs_router
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from tests.http_api import PREFIX, Api, Postbox, serving

_BODY = {"category", "retryable", "detail", "run_id", "problems"}


@pytest.fixture(scope="module")
def served() -> Iterator[Api]:
    with serving() as opened:
        yield opened


@pytest.fixture
def api(served: Api) -> Api:
    return served.for_another_test()


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": ""}, "body.name"),
        ({"name": "n" * 101}, "body.name"),
        ({"name": "nul \0"}, "body.name"),
        ({"nmae": "misspelled"}, "body.nmae"),
        ({"lane": 7}, "body.lane"),
        ({"priority": "urgent"}, "body.priority"),
        ({"params": []}, "body.params"),
        ({"params": {"deep": "nul \0"}}, "params"),
        ({"tags": {"nul \0": 1}}, "tags"),
        ({"max_retries": "3"}, "body.max_retries"),
        ({"max_retries": True}, "body.max_retries"),
        ({"max_retries": 2**31}, "body.max_retries"),
        ({"retry_delay_seconds": -1}, "body.retry_delay_seconds"),
        ({"timeout_seconds": 0}, "body.timeout_seconds"),
        ({"due_at": "2026-11-20T12:00:00"}, "body.due_at"),
        ({"due_at": 1700000000}, "body.due_at"),
        ({"expires_at": "1700000000"}, "body.expires_at"),
        ({"parent_run_id": "no uuid"}, "body.parent_run_id"),
        ({"parent_run_id": "00000000-0000-4000-8000-000000000000"}, "parent_run_id"),
    ],
)
def test_what_makes_no_run_is_refused_with_the_field(api: Api, given: dict[str, Any], field: str) -> None:
    refused = api.submit(status=422, **given)
    assert set(refused) == _BODY
    assert (refused["category"], refused["retryable"]) == ("VALIDATION", False)
    assert [problem["field"] for problem in refused["problems"]] == [field]
    assert refused["problems"][0]["detail"] in refused["detail"]
    assert api.postbox.sent == []


def test_whole_numbers_may_be_written_with_a_point(api: Api) -> None:
    assert api.submit(max_retries=2.0)["max_retries"] == 2
    api.submit(max_retries=2.5, status=422)


def _deep(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"name": "x", "params": {"n": ' + b"9" * 5000 + b"}}",
        b'{"name": "x", "params": {"n": NaN}}',
        b'{"name": "x", "params": {"n": 1e999}}',
        b'{"name": "x", "\\ud800": 1}',
        b'{"name": "\\udfff"}',
        b'{"name": "x", "metadata": {"a": ["\\ud800"]}}',
        b'{"name": "x", "params": ' + _deep(500) + b"}",
        b'"text"',
        b"",
    ],
    ids=[
        "text",
        "bytes",
        "brackets",
        "digits",
        "nan",
        "infinite",
        "half key",
        "half name",
        "half value",
        "deep",
        "string",
        "none",
    ],
)
def test_no_body_makes_the_server_fail(api: Api, body: bytes) -> None:
    answer = api.client.post(f"{PREFIX}/runs/tasks", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, set(answer.json())) == (422, _BODY), answer.text


def test_what_is_taken_as_deep_as_allowed_can_be_read(api: Api) -> None:
    body = b'{"name": "x", "params": ' + _deep(99) + b', "tags": ' + _deep(99) + b"}"
    made = api.call("POST", "/runs/tasks", 201, content=body, headers={"Content-Type": "application/json"})
    assert api.call("GET", f"/runs/{made['run_id']}", 200)["params"] == made["params"]


@pytest.mark.parametrize(
    "query",
    [
        "status=done", "kind=job", "limit=0", "limit=1001", "limit=many", "offset=-1", "offset=99999999999999999999",
        "name=%00", "lane=%00", "tag=%00", "parent=none", "since=yesterday", "since=1700000000",
        "until=2026-11-20T12:00:00",
    ],
)  # fmt: skip
def test_filters_are_checked(api: Api, query: str) -> None:
    refused = api.call("GET", f"/runs?{query}", 422)
    assert [problem["field"] for problem in refused["problems"]] == [f"query.{query.partition('=')[0]}"]


def test_an_id_that_is_none_is_refused(api: Api) -> None:
    refused = api.call("GET", "/runs/42", 422)
    assert [problem["field"] for problem in refused["problems"]] == ["path.run_id"]


def test_no_input_comes_back(api: Api) -> None:
    answer = api.client.post(
        f"{PREFIX}/runs/tasks", json={"name": "x", "params": "hunter2", "lane": ["hunter2"], "priority": "hunter2"}
    )
    assert answer.status_code == 422
    assert "hunter2" not in answer.text


def test_a_full_lane_asks_to_wait() -> None:
    with serving(lane_bound=2) as api:
        api.submit()
        api.submit()
        answer = api.client.post(f"{PREFIX}/runs/tasks", json={"name": "work", "lane": api.lane})
        assert (answer.status_code, set(answer.json())) == (429, _BODY)
        assert (answer.json()["category"], answer.json()["retryable"]) == ("BACKPRESSURE", True)
        assert int(answer.headers["Retry-After"]) > 0
        assert len(api.postbox.sent) == 2


def test_an_unknown_handler_is_refused_where_handlers_are_checked() -> None:
    with serving(check_handlers=True) as api:
        refused = api.submit(status=422)
        assert (refused["category"], refused["retryable"]) == ("NOT_FOUND", False)
        assert "work" in refused["detail"]


class Severed(SyncDispatcher):
    """A dispatcher of an application's own, whose errors say where it connects to."""

    def get_run(self, run_id: str) -> RunRecord | None:
        raise BackendError(f"amqp://worker:s3cret@broker.internal:5672 knows nothing of {run_id}.")


def test_an_address_is_for_the_log_and_a_password_for_nobody(caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()
    app.include_router(create_runs_router(Severed(Postbox())))
    with TestClient(app) as client, caplog.at_level(logging.WARNING, "spine_migrate"):
        answer = client.get("/runs/00000000-0000-4000-8000-000000000000")
    assert (answer.status_code, set(answer.json())) == (503, _BODY)
    assert (answer.json()["category"], answer.json()["retryable"]) == ("BACKEND", True)
    assert int(answer.headers["Retry-After"]) > 0
    assert "broker.internal" not in answer.text
    assert "amqp://worker:****@broker.internal:5672" in caplog.text
    assert "s3cret" not in answer.text + caplog.text


def test_a_broker_that_is_away_fails_no_request(api: Api) -> None:
    """The relay publishes what is pending."""
    run_id = api.submit()["run_id"]
    api.postbox.down = True
    assert api.submit()["status"] == "pending"
    assert api.call("POST", f"/runs/{run_id}/cancel", 200)["status"] == "cancelled"
    assert api.call("POST", f"/runs/{run_id}/retry", 201)["retry_of_run_id"] == run_id
    assert api.postbox.sent == [run_id]


def test_a_database_that_is_away_is_unavailable() -> None:
    """Nobody listens on port 1."""
    nowhere = "host=127.0.0.1 port=1 user=worker password=s3cret dbname=prod connect_timeout=1"
    with (
        ConnectionPool(nowhere, min_size=0, max_size=1, timeout=0.2, open=True) as pool,
        serving(PostgresLedger(pool)) as api,
    ):
        for method, path in [("GET", "/runs"), ("GET", "/executions"), ("POST", "/runs/tasks")]:
            answer = api.client.request(method, f"{PREFIX}{path}", json={"name": "x"} if method == "POST" else None)
            assert (answer.status_code, answer.json()["category"]) == (503, "BACKEND")
            assert "Retry-After" in answer.headers
            assert not {"s3cret", "127.0.0.1", "worker", "prod"} & set(answer.text.replace('"', " ").split())


class Broken(SyncDispatcher):
    def get_run(self, run_id: str) -> RunRecord | None:
        raise RuntimeError(f"s3cret of {run_id}")


def test_a_fault_of_our_own_shows_no_traceback() -> None:
    app = FastAPI()
    app.include_router(create_runs_router(Broken(Postbox())))
    with TestClient(app, raise_server_exceptions=False) as client:
        answer = client.get("/runs/00000000-0000-4000-8000-000000000000")
    assert answer.status_code == 500
    assert "s3cret" not in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_applications_own_refusals_pass_as_they_are(status: int) -> None:
    def guard() -> None:
        try:
            int("no number")
        except ValueError:
            raise HTTPException(status, "Not you.", headers={"WWW-Authenticate": "Bearer"}) from None

    app = FastAPI()
    app.include_router(create_runs_router(Dispatcher(Postbox())), dependencies=[Depends(guard)])
    with TestClient(app) as client:
        answer = client.get("/runs")
    assert (answer.status_code, answer.json()) == (status, {"detail": "Not you."})
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_another_dispatcher_method_that_is_a_coroutine_is_awaited() -> None:
    """An application's own subclass, of which only the awaitable side exists."""
    asked: list[str] = []

    class Counting(Dispatcher):
        async def get_run(self, run_id: str) -> RunRecord | None:
            asked.append(run_id)
            return await super().get_run(run_id)

    app = FastAPI()
    dispatcher = Counting(Postbox(), MemoryLedger(), HandlerRegistry())
    app.include_router(create_runs_router(dispatcher, "/work", executions_prefix=None))
    with TestClient(app) as client:
        run_id = client.post("/work", json={"kind": "task", "name": "x"}).json()["run_id"]
        assert client.get(f"/work/{run_id}").status_code == 200
        assert asked == [run_id]
        assert client.get("/executions").status_code == 404
        assert client.get("/runs").status_code == 404


def test_results_that_are_no_json_are_shown_by_their_type() -> None:
    """Only a ledger in memory could hold one."""

    class Secretive:
        def __repr__(self) -> str:
            return "s3cret"

    run = RunRecord(task_spec("x"))
    run.mark_completed({"odd": Secretive(), "nan": float("nan"), "set": {1}})

    class Holding(SyncDispatcher):
        def get_run(self, run_id: str) -> RunRecord | None:
            return run if run_id == run.run_id else None

    app = FastAPI()
    app.include_router(create_runs_router(Holding(Postbox())))
    with TestClient(app) as client:
        for path in ("runs", "executions"):
            shown = client.get(f"/{path}/{run.run_id}").json()["result"]
            assert shown == {"odd": "Secretive", "nan": None, "set": [1]}
