"""Runs over HTTP, on both ledgers: submit, list, read, cancel, retry, reprocess; and the old application's names."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any
from uuid import uuid4

import pytest
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.execution.runs import RunStatus
from spine_migrate.execution.spec import KINDS
from tests.database import Role, fresh_database
from tests.http_api import PREFIX, Api, serving


@pytest.fixture(scope="module")
def pool(server_url: str, owner: Role) -> Iterator[ConnectionPool[Any]]:
    with fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database:
        database.arrange(schema.upgrade)
        with ConnectionPool(database.url, min_size=1, max_size=4) as opened:
            yield opened


@pytest.fixture(scope="module", params=["awaited in PostgreSQL", "synchronous in memory"])
def served(request: pytest.FixtureRequest) -> Iterator[Api]:
    awaited = request.param == "awaited in PostgreSQL"
    ledger: Ledger = PostgresLedger(request.getfixturevalue("pool")) if awaited else MemoryLedger()
    with serving(ledger, awaitable=awaited) as opened:
        yield opened


@pytest.fixture
def api(served: Api) -> Api:
    return served.for_another_test()


def _boom(params: dict[str, Any]) -> None:
    raise ValueError(f"No {params['what']}.")


def test_a_submitted_run_is_stored_handed_over_and_found_where_location_says(api: Api) -> None:
    fields = {
        "kind": "pipeline", "name": "feed", "params": {"url": "https://a.example", "deep": [{"x": None}]},
        "lane": api.lane, "priority": "high", "correlation_id": "c-1", "trigger_source": "schedule",
        "metadata": {"owner": "team"}, "tags": {"team": "data"}, "max_retries": 5, "retry_delay_seconds": 1.5,
    }  # fmt: skip
    answer = api.client.post(f"{PREFIX}/runs", json=fields)
    assert answer.status_code == 201
    made = answer.json()
    assert api.postbox.sent == [made["run_id"]]
    assert api.located(answer) == f"/runs/{made['run_id']}"
    found = api.call("GET", api.located(answer), 200)
    assert {name: found[name] for name in fields} == fields
    assert (found["status"], found["attempt"], found["result"]) == ("queued", 1, None)
    assert (found["external_ref"], found["executor_name"]) == (f"message-{made['run_id']}", "postbox")
    assert found["run_id"] == made["run_id"]
    assert datetime.fromisoformat(found["created_at"]).utcoffset() == timedelta()


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_path_to_submit_to(api: Api, kind: str) -> None:
    answer = api.client.post(f"{PREFIX}/runs/{kind}s", json={"name": "work", "lane": api.lane})
    assert (answer.status_code, answer.json()["kind"]) == (201, kind)
    assert api.located(answer) == f"/runs/{answer.json()['run_id']}"
    assert api.client.get(f"{PREFIX}/runs/{kind}s").status_code == 405


@pytest.mark.parametrize("path", ["/runs", "/runs/steps"])
def test_a_steps_correlation_id_is_its_parent_unless_given(api: Api, path: str) -> None:
    parent = api.submit("/runs/workflows")["run_id"]
    kind: dict[str, Any] = {"kind": "step"} if path == "/runs" else {}
    assert api.submit(path, parent_run_id=parent, **kind)["correlation_id"] == parent
    assert api.submit(path, parent_run_id=parent, correlation_id="own", **kind)["correlation_id"] == "own"
    assert len(api.call("GET", f"/runs/{parent}/children", 200)["runs"]) == 2


def test_an_idempotency_key_gives_the_first_run_with_200(api: Api) -> None:
    key = str(uuid4())
    first = api.submit(idempotency_key=key, params={"n": 1})
    again = api.client.post(
        f"{PREFIX}/runs/tasks", json={"name": "work", "lane": api.lane, "idempotency_key": key, "params": {"n": 2}}
    )
    assert (again.status_code, again.json()["run_id"], again.json()["params"]) == (200, first["run_id"], {"n": 1})
    assert api.located(again) == f"/runs/{first['run_id']}"
    assert len(api.call("GET", "/runs", 200, params={"lane": api.lane})["runs"]) == 1


def test_a_run_that_is_not_due_is_not_handed_over(api: Api) -> None:
    due = datetime.now(UTC) + timedelta(hours=1)
    made = api.submit(due_at=due.isoformat(), expires_at=(due + timedelta(hours=1)).isoformat(), timeout_seconds=3)
    assert made["status"] == "pending"
    assert api.postbox.sent == []


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_the_ends_of_the_calendar_are_times_like_others(api: Api, moment: str) -> None:
    """In UTC the first is before the year 1, the second after 9999, which Python's datetimes cannot be."""
    late = moment.startswith("9")
    run_id = api.submit(due_at=moment)["run_id"]
    assert api.submit(expires_at=moment)["status"] == "pending"
    assert run_id not in api.postbox.sent
    for path, rows in (("/runs", "runs"), ("/executions", None)):
        found = api.call("GET", path, 200, params={"lane": api.lane, "since": moment})
        assert len(found if rows is None else found[rows]) == (0 if late else 2)
        found = api.call("GET", path, 200, params={"lane": api.lane, "until": moment})
        assert len(found if rows is None else found[rows]) == (2 if late else 0)


def test_every_filter_narrows_the_list_down(api: Api) -> None:
    parent = api.submit("/runs/workflows", name="whole")["run_id"]
    child = api.submit("/runs/steps", name="part", parent_run_id=parent, tags={"team": "data", "hot": True})["run_id"]
    other = api.submit(name="other", tags={"team": "web"})["run_id"]
    api.call("POST", f"/runs/{other}/cancel", 200)
    middle = api.call("GET", f"/runs/{child}", 200)["created_at"]

    def listed(**filters: str) -> list[str]:
        page = api.call("GET", "/runs", 200, params={"lane": api.lane, **filters})
        assert page["next_offset"] is None
        return [run["run_id"] for run in page["runs"]]

    assert listed() == [other, child, parent]
    assert listed(status="cancelled") == [other]
    assert listed(status="queued") == [child, parent]
    assert listed(kind="workflow") == [parent]
    assert listed(name="part") == [child]
    assert listed(tag="hot") == [child]
    assert listed(tag="team=web") == [other]
    assert listed(tag="team") == [other, child]
    assert listed(parent=parent) == [child]
    assert listed(parent=parent.upper()) == [child]
    assert listed(since=middle) == [other, child]
    assert listed(until=middle) == [parent]
    assert listed(lane="nowhere") == []
    assert listed(name="part", kind="task") == []


def test_pages_follow_one_another(api: Api) -> None:
    made = [api.submit()["run_id"] for _ in range(5)][::-1]
    found: list[str] = []
    offset: int | None = 0
    while offset is not None:
        page = api.call("GET", "/runs", 200, params={"lane": api.lane, "limit": 2, "offset": offset})
        assert len(page["runs"]) <= 2
        found += [run["run_id"] for run in page["runs"]]
        offset = page["next_offset"]
    assert found == made
    assert api.call("GET", "/runs", 200, params={"lane": api.lane, "limit": 5})["next_offset"] is None


def test_events_tell_what_happened_in_order(api: Api) -> None:
    api.registry.register("task", "work", lambda params: {"sum": sum(params["of"])})
    run_id = api.submit(params={"of": [1, 2]})["run_id"]
    api.work(run_id)
    done = api.call("GET", f"/runs/{run_id}", 200)
    assert (done["status"], done["result"]) == ("completed", {"sum": 3})
    assert done["duration_seconds"] >= 0
    events = api.call("GET", f"/runs/{run_id}/events", 200)
    assert [event["event_type"] for event in events] == ["created", "queued", "started", "completed"]
    assert {event["run_id"] for event in events} == {run_id}
    assert events[1]["data"] == {"executor": "postbox"}


def test_a_waiting_run_is_cancelled_once_and_for_all(api: Api) -> None:
    run_id = api.submit()["run_id"]
    gone = api.call("POST", f"/runs/{run_id}/cancel", 200, json={"reason": "a mistake"})
    assert gone["status"] == "cancelled"
    assert api.call("POST", f"/runs/{run_id}/cancel", 200)["completed_at"] == gone["completed_at"]
    events = api.call("GET", f"/runs/{run_id}/events", 200)
    assert [event["data"] for event in events if event["event_type"] == "cancelled"] == [{"reason": "a mistake"}]


def test_a_run_at_work_is_asked_to_stop(api: Api) -> None:
    run_id = api.submit()["run_id"]
    claim = api.core.ledger.claim(run_id, "worker", lease_seconds=60)
    assert api.call("POST", f"/runs/{run_id}/cancel", 202)["status"] == "running"
    assert api.core.ledger.renew(run_id, claim.fence, lease_seconds=60)
    api.core.ledger.cancel(run_id, "stopped", fence=claim.fence)
    assert api.call("POST", f"/runs/{run_id}/cancel", 200)["status"] == "cancelled"


def test_a_failed_run_is_retried_as_a_new_one(api: Api) -> None:
    api.registry.register("task", "work", _boom)
    key = str(uuid4())
    run_id = api.submit(params={"what": "luck"}, max_retries=0, idempotency_key=key)["run_id"]
    api.work(run_id)
    failed = api.call("GET", f"/runs/{run_id}", 200)
    assert (failed["status"], failed["error"], failed["error_type"]) == ("dead_lettered", "No luck.", "ValueError")
    answer = api.client.post(f"{PREFIX}/runs/{run_id}/retry")
    assert answer.status_code == 201
    new = api.call("GET", api.located(answer), 200)
    assert answer.json() == {"run_id": new["run_id"], "retry_of_run_id": run_id}
    assert (new["retry_of_run_id"], new["attempt"], new["params"]) == (run_id, 2, {"what": "luck"})
    assert (new["status"], new["idempotency_key"]) == ("queued", None)


def test_a_dead_letter_is_brought_back(api: Api) -> None:
    api.registry.register("task", "work", _boom)
    run_id = api.submit(params={"what": "luck"}, max_retries=0)["run_id"]
    api.work(run_id)
    back = api.call("POST", f"/runs/{run_id}/reprocess", 200)
    assert (back["run_id"], back["status"], back["attempt"]) == (run_id, "pending", 2)
    assert api.postbox.sent == [run_id, run_id]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/cancel", "completed"),
        ("POST", "/retry", "completed"),
        ("POST", "/retry", "queued"),
        ("POST", "/reprocess", "cancelled"),
        ("POST", "/reprocess", "queued"),
    ],
)
def test_what_the_status_does_not_allow_is_a_conflict(api: Api, method: str, path: str, status: str) -> None:
    api.registry.register("task", "work", lambda _: None)
    run_id = api.submit()["run_id"]
    if status == "completed":
        api.work(run_id)
    elif status == "cancelled":
        api.core.cancel(run_id)
    refused = api.call(method, f"/runs/{run_id}{path}", 409)
    assert (refused["category"], refused["retryable"], refused["run_id"]) == ("STATE", False, run_id)
    assert f"is {status}" in refused["detail"]
    assert api.call("GET", f"/runs/{run_id}", 200)["status"] == status


def test_an_unknown_run_is_not_found(api: Api) -> None:
    unknown = str(uuid4())
    for method, path in [
        ("GET", ""), ("GET", "/events"), ("GET", "/children"), ("POST", "/cancel"), ("POST", "/retry"),
        ("POST", "/reprocess"),
    ]:  # fmt: skip
        missing = api.call(method, f"/runs/{unknown}{path}", 404)
        assert missing == {
            "category": "NOT_FOUND",
            "retryable": False,
            "detail": f"There is no run {unknown}.",
            "run_id": unknown,
            "problems": [],
        }
    assert api.call("GET", f"/executions/{unknown}", 404)["run_id"] == unknown
    assert api.call("GET", f"/executions/{unknown}/events", 404)["run_id"] == unknown


def test_one_active_run_per_entity(api: Api) -> None:
    about = {"entity_type": "feed", "entity_id": str(uuid4())}
    first = api.submit(metadata=about)["run_id"]
    refused = api.submit(status=409, metadata=about)
    assert (refused["category"], refused["retryable"], refused["run_id"]) == ("CONCURRENCY", True, first)
    api.call("POST", f"/runs/{first}/cancel", 200)
    api.submit(metadata=about)


def test_executions_have_the_names_of_the_old_application(api: Api) -> None:
    api.registry.register("pipeline", "work", lambda _: {"rows": 7})
    feed = str(uuid4())
    parent = api.submit("/runs/pipelines")["run_id"]
    run_id = api.submit(
        "/runs/pipelines", params={"url": "u"}, metadata={"feed_id": feed}, trigger_source="schedule",
        parent_run_id=parent, idempotency_key=f"key-{feed}", max_retries=2,
    )["run_id"]  # fmt: skip
    api.work(run_id)
    found = api.call("GET", f"/executions/{run_id}", 200)
    times = [datetime.fromisoformat(found.pop(f"{name}_at")) for name in ("created", "started", "completed")]
    assert times == sorted(times)
    assert found == {
        "execution_id": run_id, "pipeline_name": "work", "params": {"url": "u"}, "lane": api.lane,
        "trigger_source": "schedule", "status": "completed", "backend_task_id": f"message-{run_id}", "feed_id": feed,
        "retry_count": 0, "max_retries": 2, "parent_execution_id": parent, "retry_of_execution_id": None,
        "idempotency_key": f"key-{feed}", "result": {"rows": 7}, "error": None, "error_type": None,
    }  # fmt: skip
    events = api.call("GET", f"/executions/{run_id}/events", 200)
    assert [event["event_type"] for event in events] == ["created", "queued", "started", "completed"]
    assert {tuple(event) for event in events} == {("event_id", "execution_id", "event_type", "timestamp", "data")}
    assert {event["execution_id"] for event in events} == {run_id}


def test_executions_are_listed_whole_and_filtered(api: Api) -> None:
    about = {"entity_type": "feed", "entity_id": str(uuid4())}
    first = api.submit("/runs/pipelines", name="one", metadata=about)["run_id"]
    api.core.cancel(first)
    again = api.core.retry(first)
    task = api.submit(name="two")["run_id"]

    def listed(**filters: Any) -> list[str]:
        found = api.call("GET", "/executions", 200, params={"lane": api.lane, **filters})
        assert all(found == api.call("GET", f"/executions/{found['execution_id']}", 200) for found in found)
        return [run["execution_id"] for run in found]

    assert listed() == [task, again, first]
    assert listed(kind="pipeline") == [again, first]
    assert listed(pipeline_name="two") == [task]
    assert listed(status="cancelled") == [first]
    assert listed(limit=1, offset=1) == [again]
    retried = api.call("GET", f"/executions/{again}", 200)
    assert (retried["retry_count"], retried["retry_of_execution_id"]) == (1, first)
    assert retried["feed_id"] == about["entity_id"]


def test_a_migrated_execution_shows_what_the_mapping_kept(pool: ConnectionPool[Any]) -> None:
    run_id, whole = str(uuid4()), "E" * 120
    with pool.connection() as connection:
        connection.execute(
            "INSERT INTO runs (run_id, kind, name, status, lane, priority, attempt, error_type, metadata, created_at)"
            " VALUES (%s, 'pipeline', 'old', 'failed', NULL, NULL, 1, %s, jsonb_build_object('legacy',"
            " jsonb_build_object('retry_count', NULL, 'error_type', %s::text)), now())",
            (run_id, whole[:100], whole),
        )
    with serving(PostgresLedger(pool)) as api:
        shown = api.call("GET", f"/executions/{run_id}", 200)
        assert (shown["retry_count"], shown["error_type"], shown["status"]) == (None, whole, str(RunStatus.FAILED))
        assert api.call("GET", f"/runs/{run_id}", 200)["error_type"] == whole[:100]
        listed = api.call("GET", "/runs", 200, params={"name": "old"})["runs"]
        assert [run["run_id"] for run in listed] == [run_id]
