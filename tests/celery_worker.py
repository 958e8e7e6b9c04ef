"""Real Celery workers for tests, each a process group of its own, on a PostgreSQL database and a broker.

SPINE_TEST_BROKER_URL names a broker in place of Redis, such as amqp://guest@127.0.0.1:5672//.
"""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import IO, Any

import psutil
import psycopg
from celery import Celery
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.execution import RunRecord, SyncDispatcher
from spine_migrate.execution.executors.celery import LANES, CeleryExecutor
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.relay import Relay
from spine_migrate.execution.runs import FINAL
from tests import waiting
from tests.asking import ask
from tests.database import Database
from tests.waiting import LONGEST

TABLES = """
    CREATE TABLE executed (run_id UUID, attempt INT, pid INT, at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp());
    CREATE TABLE continued (task TEXT, given JSONB, status TEXT);
"""
REPOSITORY = Path(__file__).parents[1]
#: Seconds after which something that does not happen has failed.


@contextmanager
def closed(app: Celery) -> Iterator[Celery]:
    """With what Celery leaves to the garbage collector, but for the pools of connections that apps share."""
    with app:
        try:
            yield app
        finally:
            # A result that is collected later would connect again, to unsubscribe.
            gc.collect()
            app.backend.result_consumer.stop()
            if app.backend.persistent:
                app.backend.client.connection_pool.disconnect()


@dataclass(frozen=True)
class Place:
    """A database with the runtime's tables and those of tests/celery_app.py, a broker and a result backend.

    Each has queues of its own, so that tests can share a broker. With ``contract`` the workers have the handlers of
    tests/handlers.py. ``application`` is the module that they load,
    ``variables`` are further ones of their environment, ``pool`` is their kind, ``node`` tells some from others.
    """

    url: str
    broker: str
    results: str
    lease: float = 10.0
    contract: bool = False
    application: str = "tests.celery_app"
    pool: str = "prefork"
    node: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    prefix: str = field(default_factory=lambda: f"t{token_hex(4)}-")

    def app(self) -> Celery:
        """As a producer has it."""
        made = Celery("producer", broker=self.broker, backend=self.results, set_as_current=False)
        made.conf.task_default_queue = f"{self.prefix}celery"
        return made

    def discard(self) -> None:
        """Its queues, which a broker that tests share would keep for ever."""
        with self.app() as app, app.connection_for_write() as connection, connection.channel() as channel:
            for queue in (*self.lanes().values(), f"{self.prefix}celery"):
                channel.queue_delete(queue)

    def lanes(self) -> dict[str, str]:
        return {lane: f"{self.prefix}{lane}" for lane in ("default", *LANES)}

    @contextmanager
    def executor(self, *, terminate: bool = False) -> Iterator[CeleryExecutor]:
        with self.app() as app:
            executor = CeleryExecutor(app, self.lanes(), terminate=terminate, publish_timeout_seconds=30)
            yield executor
            executor.close()

    @contextmanager
    def dispatcher(self, *, publish: bool = True) -> Iterator[SyncDispatcher]:
        with self.executor() as executor, ConnectionPool(self.url, min_size=1, max_size=4) as pool:
            yield SyncDispatcher(executor, PostgresLedger(pool), publish=publish)

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "SPINE_DATABASE_URL": self.url,
            "SPINE_TEST_BROKER_URL": self.broker,
            "SPINE_TEST_RESULT_URL": self.results,
            "SPINE_TEST_LEASE": str(self.lease),
            "SPINE_TEST_PREFIX": self.prefix,
            "PYTHONPATH": os.pathsep.join(
                (str(REPOSITORY), str(REPOSITORY / "shims"), os.environ.get("PYTHONPATH", ""))
            ),
            **({"SPINE_TEST_CONTRACT": "1"} if self.contract else {}),
            **self.variables,
        }

    @contextmanager
    def worker(self, processes: int = 2) -> Iterator[CeleryWorker]:
        worker = CeleryWorker(self, processes)
        worker.start()
        try:
            yield worker
        finally:
            worker.close()

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        return ask(self.url, query, values)

    def executions(self, run_id: str) -> int:
        ((count,),) = self.rows("SELECT count(*) FROM executed WHERE run_id = %s", run_id)
        return int(count)


class CeleryWorker:
    """``celery worker`` with its children; its log is told where a test fails."""

    def __init__(self, place: Place, processes: int) -> None:
        self._place = place
        self._processes = processes
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - goes with the worker

    def start(self) -> None:
        queues = ",".join([*self._place.lanes().values(), f"{self._place.prefix}celery"])
        # RabbitMQ gives a node's mailbox to one connection, so the nodes of tests at the same time need names.
        words = [
            "worker",
            "--hostname",
            f"{self._place.prefix}{self._place.node}@%h",
            "--pool",
            self._place.pool,
            "--concurrency",
            str(self._processes),
            "--queues",
            queues,
        ]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "celery", "--app", self._place.application, *words, *quiet],
            cwd=REPOSITORY,
            env=self._place.environment(),
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def stop(self) -> None:
        """As a deploy does it: what is being executed is finished, what was fetched goes back."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(LONGEST)
        self._process = None

    def kill(self) -> None:
        """As kill -9 of the worker and all of its children, if they run."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.kill()
        self._log.close()

    def children(self) -> list[int]:
        """Process ids of the pool."""
        if self._process is None:
            return []
        with suppress(psutil.NoSuchProcess):
            return [child.pid for child in psutil.Process(self._process.pid).children()]
        return []

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode()


def _tables(url: str) -> None:
    schema.upgrade(url)
    with psycopg.connect(url) as connection:
        connection.execute(TABLES)


def until(
    happened: Callable[[], Any],
    what: str | Callable[[], str],
    worker: CeleryWorker | None = None,
    *,
    seconds: float = LONGEST,
    every: float = 0.02,
) -> None:
    """As that of waiting.py; it fails with the worker's log."""

    def told() -> str:
        return f"{what if isinstance(what, str) else what()}\n{'' if worker is None else worker.log()}"

    waiting.until(happened, told, seconds=seconds, every=every)


def final(dispatcher: SyncDispatcher, run_id: str, worker: CeleryWorker, relay: Relay | None = None) -> RunRecord:
    """The run once it has ended; a relay, where one is given, works meanwhile."""

    def ended() -> bool:
        if relay is not None:
            relay.run_once()
        found = dispatcher.get_run(run_id)
        return found is not None and found.status in FINAL

    until(ended, lambda: f"The run {run_id} does not end: {dispatcher.get_run(run_id)}", worker)
    run = dispatcher.get_run(run_id)
    assert run is not None
    return run


def prepared(
    database: Database,
    redis_url: str,
    *,
    lease: float = 10.0,
    broker: str | None = None,
    contract: bool = False,
    application: str = "tests.celery_app",
    variables: Mapping[str, str] | None = None,
) -> Place:
    """``broker`` for tests that kill it; else it is the environment's, or Redis."""
    database.arrange(_tables)
    return Place(
        database.url,
        broker or os.environ.get("SPINE_TEST_BROKER_URL", redis_url),
        redis_url,
        lease,
        contract,
        application,
        variables=variables or {},
    )
