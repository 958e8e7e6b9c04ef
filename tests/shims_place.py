"""One worker with the shims of tests/shims_app.py, the relay, and a producer, for all tests of a module: starting them
takes longer than most tests.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from secrets import token_hex
from socket import gethostname
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from celery import Celery
from celery.result import AsyncResult, allow_join_result
from kombu import pools
from psycopg_pool import ConnectionPool

from spine_migrate.execution import HandlerRegistry, RunRecord, SyncDispatcher
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.relay import Relay
from spine_shims.configuration import reset
from tests import redis_server as own_redis
from tests.celery_worker import CeleryWorker, Place, closed, prepared, until
from tests.database import Role, fresh_database
from tests.patience import have_patience
from tests.shims_tasks import MODES, TABLE, define, handlers
from tests.waiting import LONGEST

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

    def sent(self, result: AsyncResult, *, count: int = 1) -> None:
        """Wait until it is on record of so many runs that their message was sent: a body may have ended before."""
        expected = [result.id] * count if self.dispatches else []
        until(
            lambda: [run.external_ref for run in self.runs(result.id)] == expected,
            f"Not {count} of {result.id}: {self.runs(result.id)}",
            self.worker,
        )

    def lease_is_over(self, result: AsyncResult) -> None:
        """Of a task whose worker is lost, as if its time had passed: nobody renews it."""
        ((fence,),) = self.place.rows("SELECT fence FROM run_handoff WHERE run_id = %s AND leased", result.id)
        over = "UPDATE run_handoff SET next_at = now() WHERE fence = %s RETURNING 1"
        until(lambda: not self.place.rows(over, fence), f"Nobody reaps {result.id}", self.worker)

    def told(self, command: Callable[..., Any], *arguments: Any) -> None:
        """Wait until the worker has obeyed a command of Celery's remote control; one that starts does not hear it."""
        asked = {"destination": [f"{self.place.prefix}{self.place.node}@{gethostname()}"], "timeout": 1, "limit": 1}
        until(lambda: command(*arguments, reply=True, **asked), "The worker does not answer", self.worker)

    def deliveries(self, result: AsyncResult, count: int) -> None:
        """Wait until so many messages of a run that was executed have come to a worker, which claims nothing."""
        until(
            lambda: self.events(result).count("transition_refused") >= count,
            f"Not {count} deliveries of {result.id}: {self.events(result)}",
            self.worker,
        )

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
    """Its leases outlast a worker that is kept waiting by a busy machine; see ``Site.lease_is_over``."""
    with (
        fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database,
        own_redis.fresh_database(redis_server_url) as redis_url,
    ):
        place = prepared(database, redis_url, application=APPLICATION, **{"lease": LONGEST, **options})
        with psycopg.connect(database.url) as connection:
            connection.execute(TABLE)
        yield place
        place.discard()


@contextmanager
def relay_of(place: Place, *, claim_within: float = 600) -> Iterator[Relay]:
    """One that works until the end, more often than it would in earnest. What is not claimed at once is not published
    again: a second message that comes when the test is over, and its run is gone, would be adopted in the next one.
    """
    stop = threading.Event()
    with (
        pytest.MonkeyPatch.context() as patch,
        place.executor() as executor,
        ConnectionPool(place.url, min_size=1, max_size=4) as pool,
    ):
        have_patience(patch)
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
        """What was executed before. A worker may still write down the end of it, and hold what is locked here."""
        while True:
            with suppress(psycopg.errors.DeadlockDetected):
                self.place.rows(
                    "LOCK TABLE runs, run_events IN SHARE ROW EXCLUSIVE MODE;"
                    " DELETE FROM shim_executed; DELETE FROM run_events; DELETE FROM runs"
                )
                return


@contextmanager
def producing(place: Place, worker: CeleryWorker, *, publish: bool = False) -> Iterator[Producer]:
    """In this process; what it executes itself it notes as a worker does."""
    registry = HandlerRegistry()
    handlers(registry)
    with (
        closed(place.app()) as app,
        place.executor() as executor,
        ConnectionPool(place.url, min_size=1, max_size=4, check=ConnectionPool.check_connection) as pool,
    ):
        dispatcher = SyncDispatcher(executor, PostgresLedger(pool), registry, publish=publish)
        try:
            yield Producer(place, app, {mode: define(app, mode) for mode in MODES}, dispatcher, worker)
        finally:
            reset()
            pools.reset()  # type: ignore[no-untyped-call]  # kombu has no types
