"""Runs per second from the first submit to the last end: ours beside bare Celery with the same worker, and beside
procrastinate on the same PostgreSQL. Two executing processes or threads each, one submitter, one job after the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import redis
from psycopg_pool import ConnectionPool

from benchmarks.rounds import Side, alternate, compare
from benchmarks.runtime import emptied, ledger_database
from benchmarks.setup import Setup
from spine_migrate.execution import SyncDispatcher
from spine_migrate.execution.executors.celery import CeleryExecutor
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from tests.redis_server import RedisServer

_RUNS = 2_000
_LONGEST_S = 300.0
_QUEUES = "celery,default"


def throughput(setup: Setup) -> None:
    with setup.server() as server, RedisServer(appendonly="no") as broker:
        os.environ["BENCH_BROKER"], os.environ["BENCH_DATABASE"] = broker.url, ledger_database(server)
        jobs = import_module("benchmarks.throughput_app")
        client = redis.Redis.from_url(broker.url)
        with ConnectionPool(jobs.DATABASE, min_size=1, kwargs={"autocommit": True}, open=True) as pool:
            executor, ledger = CeleryExecutor(jobs.app), PostgresLedger(pool)
            direct, relayed = SyncDispatcher(executor, ledger), SyncDispatcher(executor, ledger, publish=False)

            def prepare() -> None:
                emptied(jobs.DATABASE)
                client.delete(jobs.COUNTER)

            def until_done(submit: Callable[[int], object]) -> None:
                for number in range(_RUNS):
                    submit(number)
                end = time.monotonic() + _LONGEST_S
                while int(client.get(jobs.COUNTER) or 0) < _RUNS:
                    assert time.monotonic() < end, client.get(jobs.COUNTER)
                    time.sleep(0.005)

            sides = {
                "bare Celery": Side(prepare, lambda: until_done(lambda n: jobs.bare.apply_async((n,)))),
                "ours, direct": Side(prepare, lambda: until_done(lambda n: direct.submit_task("job", {"number": n}))),
                "ours, relay": Side(prepare, lambda: until_done(lambda n: relayed.submit_task("job", {"number": n}))),
            }
            relay = ("spine_migrate", "worker-relay", "--app", f"{jobs.__name__}:app", "--target", jobs.DATABASE)
            worker = ("celery", "-A", jobs.__name__, "-q", "worker", "-c", "2", "-Q", _QUEUES, "-l", "WARNING")
            with _worker(*relay, "--poll", "0.1"), _worker(*worker):
                if find_spec("procrastinate") is None:
                    print("  procrastinate is not installed (pip install procrastinate); it is left out.")
                    compare(alternate(sides, setup.rounds), "bare Celery", rows=_RUNS)
                    return
                _beside_procrastinate(setup, sides, jobs, prepare, until_done)


def _beside_procrastinate(
    setup: Setup,
    sides: dict[str, Side],
    jobs: Any,
    prepare: Callable[[], None],
    until_done: Callable[[Callable[[int], object]], None],
) -> None:
    procrastinate = ("procrastinate", "--log-level", "warning", "--app", f"{jobs.__name__}.queue")
    subprocess.run([sys.executable, "-m", *procrastinate, "schema", "--apply"], check=True)
    with jobs.queue.open(), _worker(*procrastinate, "worker", "--concurrency", "2"):
        side = Side(prepare, lambda: until_done(lambda n: jobs.queued.defer(number=n)))
        taken = alternate({**sides, "procrastinate": side}, setup.rounds)
        compare(taken, "bare Celery", rows=_RUNS)
        compare({name: taken[name] for name in taken if name != "bare Celery"}, "procrastinate", rows=_RUNS)


@contextmanager
def _worker(*words: str) -> Iterator[None]:
    """A worker process, stopped at the end."""
    process = subprocess.Popen([sys.executable, "-m", *words], cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)
