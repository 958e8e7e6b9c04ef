"""The workers of the throughput benchmark: one job, which counts itself in Redis, in three systems.

Where they are comes in BENCH_BROKER and BENCH_DATABASE, since workers are processes of their own.
"""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec
from typing import Any

import redis
from celery import Celery
from psycopg_pool import ConnectionPool

from spine_migrate.execution import HandlerRegistry
from spine_migrate.execution.executors.celery_worker import register
from spine_migrate.execution.ledgers.postgres import PostgresLedger

BROKER, DATABASE = os.environ["BENCH_BROKER"], os.environ["BENCH_DATABASE"]
COUNTER = "done"


@cache
def _client(_process: int) -> Any:
    return redis.Redis.from_url(BROKER)


def count() -> None:
    _client(os.getpid()).incr(COUNTER)


app = Celery("bench", broker=BROKER)


@app.task(name="bare", ignore_result=True, acks_late=True)  # type: ignore[untyped-decorator]  # Celery has no types
def bare(_number: int) -> None:
    count()


def _job(_params: dict[str, Any]) -> None:
    count()


registry = HandlerRegistry()
registry.register("task", "job", _job)
register(
    app,
    ledger=lambda: PostgresLedger(ConnectionPool(DATABASE, min_size=1, kwargs={"autocommit": True}, open=True)),
    registry=registry,
)

if find_spec("procrastinate"):
    import procrastinate  # type: ignore[import-not-found,unused-ignore]

    queue = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DATABASE))

    @queue.task(name="queued")  # type: ignore[untyped-decorator,unused-ignore]
    def queued(number: int) -> None:  # noqa: ARG001 as the others have it
        count()
