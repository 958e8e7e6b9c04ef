"""One worker with the shims of tests/shims_app.py, the relay, and a producer, for all tests of a module: starting them
takes longer than most tests.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from secrets import token_hex
from types import SimpleNamespace
from typing import Any

import psycopg
from celery import Celery
from celery.result import AsyncResult, allow_join_result
from kombu import pools
from psycopg_pool import ConnectionPool

from spine_migrate.execution import HandlerRegistry, RunRecord, SyncDispatcher
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.relay import Relay
from tests import redis_server as own_redis
from tests.celery_worker import LONGEST, CeleryWorker, Place, closed, prepared, until
from tests.database import Role, fresh_database
from tests.shims_tasks import MODES, TABLE, define, handlers

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

    @property
    def dispatches(self) -> bool:
        return self.mode == "dispatch"

    @contextmanager
    def settings(self, **settings: Any) -> Iterator[None]:
        """Celery's, of the producer."""
        before = {name: self.app.conf[name] for name in settings}
        self._set(settings)
        try:
            yield
        finally:
            self._set(before)

    def _set(self, settings: dict[str, Any]) -> None:
        self.app.conf.update(settings)
        self.app.amqp.flush_routes()
        # Celery 5.4 keeps the one that it has made.
        self.app.amqp.router = self.app.amqp.Router()

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
        )
        (run,) = self.runs(task_id)
        assert run.spec.metadata["celery_task"].startswith("dispatch.")
        return run

    def runs(self, task_id: str) -> list[RunRecord]:
        """Every run of a task's id, the oldest first."""
        found = self.place.rows(
            "SELECT run_id::text FROM runs WHERE %s IN (metadata ->> 'celery_task_id', run_id::text)"
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
        """Of the one run of a task, but for ``queued``, which a fast worker is ahead of; none in legacy mode."""
        task_id = str(getattr(result, "id", result))
        told = [str(event.event_type) for run in self.runs(task_id) for event in self.dispatcher.get_events(run.run_id)]
        return [event for event in told if event != "queued"]

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
def relay_of(place: Place, *, claim_within: float = 3) -> Iterator[Relay]:
    """One that works until the end, more often than it would in earnest."""
    stop = threading.Event()
    with place.executor() as executor, ConnectionPool(place.url, min_size=1, max_size=4) as pool:
        relay = Relay(PostgresLedger(pool), executor, backoff_seconds=0.1, claim_within_seconds=claim_within)
        thread = threading.Thread(target=relay.run, args=(stop,), kwargs={"poll_seconds": 0.05})
        thread.start()
        try:
            yield relay
        finally:
            stop.set()
            thread.join()


@dataclass
class Producer:
    """An app with the tasks of both modes, and a dispatcher, for all tests of a module."""

    place: Place
    app: Celery
    tasks: dict[str, SimpleNamespace]
    dispatcher: SyncDispatcher
    worker: CeleryWorker

    def site(self, mode: str) -> Site:
        return Site(mode, self.place, self.app, self.tasks[mode], self.dispatcher, self.worker)

    def forget(self) -> None:
        """What was executed before."""
        for table in ("shim_executed", "run_events", "runs"):
            self.place.rows(f"DELETE FROM {table} RETURNING 1")  # noqa: S608 - three names


@contextmanager
def producing(place: Place, worker: CeleryWorker, *, publish: bool = False) -> Iterator[Producer]:
    """In this process; what it executes itself it notes as a worker does."""
    registry = HandlerRegistry()
    handlers(registry)
    with (
        closed(place.app()) as app,
        place.executor() as executor,
        ConnectionPool(place.url, min_size=1, max_size=4) as pool,
    ):
        dispatcher = SyncDispatcher(executor, PostgresLedger(pool), registry, publish=publish)
        try:
            yield Producer(place, app, {mode: define(app, mode) for mode in MODES}, dispatcher, worker)
        finally:
            pools.reset()  # type: ignore[no-untyped-call]  # kombu has no types
