"""Submitting a run beside a bare ``apply_async``: for the relay to publish, published directly, and many of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from celery import Celery
from psycopg_pool import ConnectionPool

from benchmarks.rounds import Spread
from benchmarks.runtime import emptied, ledger_database
from benchmarks.setup import Setup
from spine_migrate.execution import SyncDispatcher, task_spec
from spine_migrate.execution.executors.celery import CeleryExecutor
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from tests.redis_server import RedisServer

_CALLS = 2_000
_MANY = 10_000


def submit(setup: Setup) -> None:
    """Each call of one side is followed by one of each other, so that whatever disturbs the machine disturbs all."""
    with setup.server() as server, RedisServer(appendonly="no") as broker:
        url = ledger_database(server)
        app = Celery("bare", broker=broker.url)

        @app.task(name="bare", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
        def bare(number: int) -> None: ...

        with ConnectionPool(url, min_size=1, max_size=2, open=True) as pool:
            ledger, executor = PostgresLedger(pool), CeleryExecutor(app)
            relayed, direct = SyncDispatcher(executor, ledger, publish=False), SyncDispatcher(executor, ledger)
            calls: dict[str, Callable[[int], object]] = {
                "apply_async": lambda n: bare.apply_async((n,)),
                "submit, relay": lambda n: relayed.submit_task("bare", {"number": n}),
                "submit, direct": lambda n: direct.submit_task("bare", {"number": n}),
            }
            print(
                f"{_CALLS:,} calls of each, in turns; Redis without a log on disk, PostgreSQL with synchronous commits"
            )
            ratios: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(setup.rounds):
                emptied(url)
                middle = _medians(calls)
                for name, seconds in middle.items():
                    ratios[name].append(seconds / middle["apply_async"])
                print("  p50:", ", ".join(f"{name} {seconds * 1e6:.0f} us" for name, seconds in middle.items()))
            for name, found in ratios.items():
                print(f"  {name:14} takes {Spread.of(found)} times as long as apply_async")
            _many(url, relayed)


def _medians(calls: dict[str, Callable[[int], object]]) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(_CALLS):
        for name, call in calls.items():
            began = time.perf_counter()
            call(number)
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _many(url: str, relayed: SyncDispatcher) -> None:
    emptied(url)
    began = time.perf_counter()
    for number in range(_MANY):
        relayed.submit(task_spec("bare", {"number": number}))
    took = time.perf_counter() - began
    print(f"  {_MANY:,} runs, one after the other: {_MANY / took:,.0f} rows/s")
