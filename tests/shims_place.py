"""One worker with the shims of tests/shims_app.py, the relay, and a producer, for all tests of a module: starting them
takes longer than most tests.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from secrets import token_hex
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from celery import Celery
from celery.result import AsyncResult, allow_join_result
from psycopg_pool import ConnectionPool
from spine_shims import configure
from spine_shims.configuration import reset

from spine_migrate.execution import HandlerRegistry, RunRecord, SyncDispatcher
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.relay import Relay
from tests import redis_server as own_redis
from tests.celery_worker import LONGEST, CeleryWorker, Place, prepared, until
from tests.database import Role, fresh_database
from tests.shims_tasks import TABLE, define, handlers

APPLICATION = "tests.shims_app"


@dataclass
class Site:
    """A producer's side of the shims in one mode. ``tasks`` are those of tests/shims_tasks.py."""

    mode: str
    place: Place
    app: Celery
    tasks: SimpleNamespace
    dispatcher: SyncDispatcher
    worker: CeleryWorker
    seen: set[str] = field(default_factory=set)

    @property
    def dispatches(self) -> bool:
        return self.mode == "dispatch"

    def get(self, result: Any) -> Any:
        """The result as the caller waits for it."""
        with allow_join_result():
            return result.get(timeout=LONGEST)

    def run(self, result: AsyncResult | str, status: str = "completed") -> RunRecord | None:
        """The run of a task once it has this status; None in legacy mode, where there must be none."""
        task_id = str(getattr(result, "id", result))
        if not self.dispatches:
            assert self.runs(task_id) == []
            return None
        until(
            lambda: [run.status for run in self.runs(task_id)] == [status],
            f"No run of {task_id} is {status}: {self.runs(task_id)}",
            self.worker,
        )  # noqa: E501
        (run,) = self.runs(task_id)
        assert run.spec.metadata["celery_task"].startswith("dispatch.")
        return run

    def runs(self, task_id: str) -> list[RunRecord]:
        """Every run of a task's id, the oldest first."""
        found = self.place.rows(
            "SELECT run_id::text FROM runs WHERE coalesce(metadata ->> 'celery_task_id', run_id::text) = %s"
            " ORDER BY created_at",
            task_id,
        )
        return self.dispatcher.get_runs([run_id for (run_id,) in found])

    def runs_of(self, name: str) -> list[RunRecord]:
        """Every run of a task of this test, by the task's short name."""
        found = self.place.rows(
            "SELECT run_id::text FROM runs WHERE metadata ->> 'celery_task' = %s ORDER BY created_at",
            f"{self.mode}.{name}",
        )
        return self.dispatcher.get_runs([run_id for (run_id,) in found])

    def events(self, result: AsyncResult | str) -> list[str]:
        """Of the one run of a task; none in legacy mode."""
        task_id = str(getattr(result, "id", result))
        return [str(event.event_type) for run in self.runs(task_id) for event in self.dispatcher.get_events(run.run_id)]

    def noted(self, name: str, task_id: str | None = None) -> list[tuple[Any, ...]]:
        """(body, said) of every execution of a body, a handler or a hook."""
        query = "SELECT body, said FROM shim_executed WHERE task IN (%s, %s)"
        values: list[Any] = [name, f"{self.mode}.{name}"]
        if task_id is not None:
            query, values = f"{query} AND task_id = %s", [*values, task_id]
        return self.place.rows(query, *values)


@contextmanager
def shims_place(server_url: str, owner: Role, redis_server_url: str, **options: Any) -> Iterator[Place]:
    with (
        fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database,
        own_redis.fresh_database(redis_server_url) as redis_url,
    ):
        place = prepared(database.url, redis_url, application=APPLICATION, **options)
        with psycopg.connect(database.url) as connection:
            connection.execute(TABLE)
        yield place
        place.discard()


@contextmanager
def relay_of(place: Place) -> Iterator[Relay]:
    """One that works until the end, more often than it would in earnest."""
    stop = threading.Event()
    with place.executor() as executor, ConnectionPool(place.url, min_size=1, max_size=4) as pool:
        relay = Relay(PostgresLedger(pool), executor, backoff_seconds=0.1, claim_within_seconds=30)
        thread = threading.Thread(target=relay.run, args=(stop,), kwargs={"poll_seconds": 0.05})
        thread.start()
        try:
            yield relay
        finally:
            stop.set()
            thread.join()


@contextmanager
def producer(
    place: Place, mode: str, worker: CeleryWorker, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> Iterator[Site]:  # noqa: E501
    """In this process; what it executes itself it notes as a worker does."""
    monkeypatch.setenv("SPINE_TEST_NOTES_URL", place.url)
    registry = HandlerRegistry()
    handlers(registry)
    with place.app() as app, place.executor() as executor, ConnectionPool(place.url, min_size=1, max_size=4) as pool:
        publish = options.pop("publish", False)
        dispatcher = SyncDispatcher(executor, PostgresLedger(pool), registry, publish=publish)
        configure(dispatcher, **options)
        app.set_current()
        place.rows("DELETE FROM shim_executed RETURNING 1")
        place.rows("DELETE FROM run_events RETURNING 1")
        place.rows("DELETE FROM runs RETURNING 1")
        try:
            yield Site(mode, place, app, define(app, mode), dispatcher, worker)
        finally:
            reset()
