"""A worker of one ledger whose runs are all about one entity, which the runs of another ledger are about too.

``python -m tests.chaos.guarded LEDGER_URL ENTITY_URL GUARD_URL RUNS SEED`` works until so many runs are completed.
"""

from __future__ import annotations

import os
import random
import sys
import time
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
from psycopg_pool import ConnectionPool

from spine_migrate.execution import ConcurrencyError, HandlerRegistry, RunRecord, RunStatus, TaskContext, task_spec
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.ledgers.protocol import RunFilter
from spine_migrate.execution.worker import Worker
from tests.guards import guard_of

#: Seconds that the lease and the lock of a killed worker outlive it.
LEASE = 0.6
ABOUT = {"entity_type": "feed", "entity_id": "7"}
#: One row for each execution that got as far as its handler; ``ended_at`` NULL where that did not end.
TABLE: LiteralString = """
    CREATE TABLE worked (
        fence BIGINT PRIMARY KEY, run_id TEXT NOT NULL, pid INT NOT NULL,
        started_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(), ended_at TIMESTAMPTZ
    )
"""


def work(ledger_url: str, entity_url: str, guard_url: str, runs: int, seed: int) -> None:
    chance, registry = random.Random(seed), HandlerRegistry()
    with (
        ConnectionPool(ledger_url, min_size=1, max_size=4) as pool,
        psycopg.connect(entity_url, autocommit=True) as entity,
        guard_of(guard_url) as guard,
    ):

        def handler(_: dict[str, Any], context: TaskContext) -> int | None:
            given = (context.entity_fence, context.run_id, os.getpid())
            entity.execute("INSERT INTO worked VALUES (%s, %s, %s)", given)
            time.sleep(chance.uniform(0, 0.06))
            entity.execute("UPDATE worked SET ended_at = clock_timestamp() WHERE fence = %s", given[:1])
            return context.entity_fence

        registry.register("task", "work", handler)
        ledger = PostgresLedger(pool)
        worker = Worker(ledger, registry, LEASE, guard=guard)
        while len(ledger.list_runs(RunFilter(status=RunStatus.COMPLETED), limit=runs)) < runs:
            ledger.reap(10, backoff_seconds=0)
            # One at a time, which the ledger's own guard sees to.
            with suppress(ConcurrencyError):
                ledger.create(RunRecord(task_spec("work", {}, metadata=ABOUT, max_retries=1000, retry_delay_seconds=0)))
            for run in ledger.publishable(10, again_in_seconds=0.05):
                worker.execute(run.run_id)
            time.sleep(0.005)


if __name__ == "__main__":
    _, of_ledger, of_entity, of_guard, count, drawn = sys.argv
    work(of_ledger, of_entity, of_guard, int(count), int(drawn))
