"""The dispatcher in loops, in forks, and many at once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from secrets import token_hex

import pytest

from spine_migrate.execution import (
    Dispatcher,
    RunRecord,
    RunStatus,
    SyncDispatcher,
    WorkSpec,
    pipeline_spec,
)
from spine_migrate.execution.ledgers.protocol import Ledger
from tests.carrier import Carrier
from tests.database import Database

REPOSITORY = Path(__file__).parents[2]


def test_every_awaitable_method_inside_a_running_loop(carrier: Carrier, ledger: Ledger) -> None:
    dispatcher = Dispatcher(carrier, ledger)

    async def all_of_them() -> None:
        tag = token_hex(4)
        run_id = await dispatcher.submit(WorkSpec("task", tag, {"a": 1}))
        (stored,) = await dispatcher.get_runs([run_id])
        assert await dispatcher.get_run(run_id) == stored
        assert stored.status is RunStatus.QUEUED
        workflow = await dispatcher.submit_workflow(tag)
        step = await dispatcher.submit_step(tag, parent_run_id=workflow)
        pipeline = await dispatcher.submit_pipeline(tag, {"b": 2}, lane="ingest")
        task = await dispatcher.submit_task(tag, max_retries=0)
        submitted = await dispatcher.submit_run(RunRecord(pipeline_spec(tag)))
        listed = await dispatcher.list_runs(name=tag)
        assert {run.run_id for run in listed} == {run_id, workflow, step, pipeline, task, submitted.run_id}
        assert [run.run_id for run in await dispatcher.list_runs("pipeline", name=tag, lane="ingest")] == [pipeline]
        assert [run.run_id for run in await dispatcher.get_runs([task, step])] == [task, step]
        assert [run.run_id for run in await dispatcher.get_children(workflow)] == [step]
        await dispatcher.mark_started(run_id, "elsewhere-1")
        await dispatcher.record_progress(run_id, 0.5, "half")
        await dispatcher.record_heartbeat(run_id)
        await dispatcher.mark_completed(run_id, {"n": 1})
        assert [event.event_type for event in await dispatcher.get_events(run_id)] == [
            "created", "queued", "started", "progress", "heartbeat", "completed"
        ]  # fmt: skip
        await dispatcher.mark_started(task)
        await dispatcher.mark_failed(task, "no", "ValueError")
        again = await dispatcher.retry(task)
        assert [run.retry_of_run_id for run in await dispatcher.get_runs([again])] == [task]
        assert await dispatcher.cancel(again)
        dispatcher.sync.ledger.fail(step, "no", None, dead=True)
        assert (await dispatcher.reprocess(step)).status is RunStatus.PENDING

    asyncio.run(all_of_them())


def test_many_at_once_on_a_few_connections(carrier: Carrier, ledger: Ledger) -> None:
    """And of those with one idempotency key one is a run."""
    dispatcher = Dispatcher(carrier, ledger)
    key = token_hex(8)

    async def many() -> tuple[list[str], list[str]]:
        different = asyncio.gather(*[dispatcher.submit("many", {"n": n}) for n in range(60)])
        same = asyncio.gather(*[dispatcher.submit("one", {"n": n}, idempotency_key=key) for n in range(20)])
        return await different, await same

    different, same = asyncio.run(many())
    assert len(set(different)) == 60
    assert len(set(same)) == 1
    assert sorted(carrier.taken) == sorted([*different, *set(same)])


_FORK = """
import asyncio, os, sys
from psycopg_pool import ConnectionPool
from spine_migrate.execution import Dispatcher, HandlerRegistry
from spine_migrate.execution.executors.memory import MemoryExecutor
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.pools import ForkedPool

registry = HandlerRegistry()
registry.register("pipeline", "who", lambda params: os.getpid())

def dispatcher(pool):
    ledger = PostgresLedger(pool)
    return Dispatcher(MemoryExecutor(ledger, registry), ledger, registry)

async def work(dispatcher):
    run_id = await dispatcher.submit("who", {})
    await asyncio.to_thread(dispatcher.sync.executor.run_all)
    run = await dispatcher.get_run(run_id)
    assert (run.status, run.result) == ("completed", os.getpid()), run

def configure(connection):
    connection.execute("SET application_name = 'configured'")
    connection.commit()

with ConnectionPool(sys.argv[1], min_size=2, max_size=4, configure=configure) as pool:
    pool.wait()
    inherited, forked = dispatcher(pool), ForkedPool(pool)
    if sys.argv[2] == "used":
        asyncio.run(work(inherited))
    pids = []
    for _ in range(2):
        pids.append(os.fork())
        if pids[-1] == 0:
            for _ in range(10):
                asyncio.run(work(inherited))
            with forked.connection() as connection, connection.transaction():
                print("child", *connection.execute("SHOW application_name").fetchone(), flush=True)
            os._exit(0)
    for _ in range(10):
        asyncio.run(work(inherited))
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
    asyncio.run(work(inherited))
    # Else it says after five seconds that a thread could not be stopped.
    pool.close(60)
    print("parent")
"""


@pytest.mark.parametrize("before", ["used", "unused"])
def test_in_forked_children(place: Database, before: str) -> None:
    """With the dispatcher that they inherited, while their parent goes on: no connection is used by two of them."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", _FORK, place.url, before],
        check=False, capture_output=True, text=True, timeout=240, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "child configured\n" * 2 + "parent\n", "")


def test_many_runs_are_submitted_in_a_loop(dispatcher: SyncDispatcher) -> None:
    awaited = Dispatcher(dispatcher.executor, dispatcher.ledger)
    ids = asyncio.run(awaited.submit_many([pipeline_spec("x"), pipeline_spec("y")]))
    assert [run.spec.name for run in dispatcher.get_runs(ids)] == ["x", "y"]
