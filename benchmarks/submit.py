"""Submitting a run beside a bare ``apply_async``: for the relay to publish, published directly, and many of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

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

        with _pool(url) as pool, _pool(url, options="-c synchronous_commit=off") as lax:
            executor = CeleryExecutor(app)
            relayed, laxly = (SyncDispatcher(executor, PostgresLedger(one), publish=False) for one in (pool, lax))
            direct = SyncDispatcher(executor, PostgresLedger(pool))
            calls: dict[str, Callable[[int], object]] = {
                "apply_async": lambda n: bare.apply_async((n,)),
                "submit, relay": lambda n: relayed.submit_task("bare", {"number": n}),
                # As Redis has it, a crash of the server may lose the last moment. The default waits for the disk.
                "the same, not waiting for the disk": lambda n: laxly.submit_task("bare", {"number": n}),
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
                print(f"  {name:34} takes {Spread.of(found)} times as long as apply_async")
            _many(url, relayed)


def _medians(calls: dict[str, Callable[[int], object]]) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(_CALLS):
        for name, call in calls.items():
            began = time.perf_counter()
            call(number)
            taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _pool(url: str, **options: str) -> ConnectionPool[Any]:
    return ConnectionPool(url, min_size=1, max_size=2, kwargs={"autocommit": True, **options}, open=True)


def _many(url: str, relayed: SyncDispatcher) -> None:
    specs = [task_spec("bare", {"number": number}) for number in range(_MANY)]
    ways: dict[str, Callable[[], list[str]]] = {
        "one after the other": lambda: [relayed.submit(spec) for spec in specs],
        "submit_many": lambda: relayed.submit_many(specs),
    }
    for name, submit_all in ways.items():
        emptied(url)
        began = time.perf_counter()
        submit_all()
        print(f"  {_MANY:,} runs, {name}: {_MANY / (time.perf_counter() - began):,.0f} rows/s")
