"""Submitting a run beside a bare ``apply_async``: for the relay to publish, published directly, and many of them."""

from __future__ import annotations

import time
from collections.abc import Callable

from celery import Celery
from psycopg_pool import ConnectionPool

from benchmarks.rounds import Spread, medians
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

        with ConnectionPool(url, min_size=1, max_size=2, kwargs={"autocommit": True}, open=True) as pool:
            executor, ledger = CeleryExecutor(app), PostgresLedger(pool)
            relayed = SyncDispatcher(executor, ledger, publish=False)
            laxly = SyncDispatcher(executor, PostgresLedger(pool, wait_for_disk=False), publish=False)
            direct, marked_later = SyncDispatcher(executor, ledger), SyncDispatcher(executor, ledger, mark_later=True)
            calls: dict[str, Callable[[int], object]] = {
                "apply_async": lambda n: bare.apply_async((n,)),
                "submit, relay": lambda n: relayed.submit_task("bare", {"number": n}),
                # As Redis has it, a crash of the server may lose the last moment. The default waits for the disk.
                "the same, not waiting for the disk": lambda n: laxly.submit_task("bare", {"number": n}),
                "submit, direct": lambda n: direct.submit_task("bare", {"number": n}),
                "the same, marked later": lambda n: marked_later.submit_task("bare", {"number": n}),
            }
            print(
                f"{_CALLS:,} calls of each, in turns; Redis without a log on disk, PostgreSQL with synchronous commits"
            )
            ratios: dict[str, list[float]] = {name: [] for name in calls}
            for _ in range(setup.rounds):
                emptied(url)
                middle = medians(calls, _CALLS)
                for name, seconds in middle.items():
                    ratios[name].append(seconds / middle["apply_async"])
                print("  p50:", ", ".join(f"{name} {seconds * 1e6:.0f} us" for name, seconds in middle.items()))
            for name, found in ratios.items():
                print(f"  {name:34} takes {Spread.of(found)} times as long as apply_async")
            _many(url, relayed)


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
