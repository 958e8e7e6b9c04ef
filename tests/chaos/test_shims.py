"""Old tasks in dispatch mode, while every part of the way from a call to its mark is taken away at seeded moments.

The law: a call that was accepted comes to its end, what comes next too. A body whose run is marked is not executed any
more, and each attempt of a run is executed once at most; it has more than one, beside the retries that the body asks
for, only where its worker was lost. What is executed untracked, because the database is away and the application wants
that of its shims, is no attempt: a message that is delivered again then looks like one that nobody has executed.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from tests.celery_worker import prepared
from tests.chaos.conftest import FULL, tell
from tests.chaos.shims_parts import LEASE, Parts, parts_of
from tests.chaos.shims_tables import TABLES
from tests.database import Database, Role, fresh_database
from tests.redis_server import RedisServer

FAULTS = (
    {"child": 60, "producer": 10, "relay": 15, "broker": 10, "worker": 8, "database": 8, "sessions": 15}
    if FULL
    else {"child": 3, "producer": 1, "relay": 1, "broker": 1, "database": 1, "sessions": 2}
)


@pytest.fixture
def notes(server_url: str, owner: Role, database: Database) -> Iterator[Database]:
    with fresh_database(server_url, f"{database.name}_2", owner) as created:
        with psycopg.connect(created.url) as connection:
            connection.execute(TABLES)
        yield created


def strike(parts: Parts, chance: random.Random) -> None:
    ways: dict[str, Callable[[random.Random], None]] = {
        "child": parts.kill_child,
        "producer": parts.kill_producer,
        "relay": parts.kill_relay,
        "broker": parts.restart_broker,
        "worker": parts.kill_worker,
        "database": parts.refuse_database,
        "sessions": parts.terminate_sessions,
    }
    order = [way for way, count in FAULTS.items() for _ in range(count)]
    chance.shuffle(order)
    for way in order:
        time.sleep(chance.uniform(0.02, 0.3))
        ways[way](chance)
        parts.supervise()


@pytest.fixture(params=["fail", "legacy"] if FULL else ["fail"])
def parts(
    request: pytest.FixtureRequest, database: Database, notes: Database, redis_server: RedisServer, redis_url: str
) -> Iterator[Parts]:
    """With one ``fallback``. Results are in another Redis than messages: what Celery does without them is not ours."""
    variables = {"SPINE_TEST_NOTES_URL": notes.url, "SPINE_TEST_FALLBACK": request.param}
    place = prepared(
        database,
        redis_url,
        lease=LEASE,
        broker=redis_server.url,
        application="tests.chaos.shims_app",
        variables=variables,
    )
    with parts_of(place, database, notes, redis_server) as made:
        yield made


@pytest.mark.timeout(1800)
def test_no_call_is_lost_and_no_attempt_is_executed_twice(parts: Parts, chance: random.Random) -> None:
    parts.produce(chance)
    parts.at_work()
    strike(parts, chance)
    parts.recover()
    tell(f"{dict(parts.faults)}, {parts.faults.total()} faults; {_prove(parts)}")
    assert parts.faults.total() >= sum(FAULTS.values()) * 2 // 3


def _prove(parts: Parts) -> str:
    runs = {
        task_id: (task, status, attempt, result, lost, completed_at)
        for task_id, task, status, attempt, result, lost, completed_at in parts.place.rows("""
            SELECT coalesce(metadata ->> 'celery_task_id', run_id::text), metadata ->> 'celery_task', status, attempt,
                   result,
                   (SELECT count(*) FROM run_events e WHERE e.run_id = r.run_id
                     AND e.event_type = 'retry_scheduled' AND e.data ->> 'error_type' = 'LeaseExpired'), completed_at
              FROM runs r
        """)
    }
    assert len(runs) == parts.place.rows("SELECT count(*) FROM runs")[0][0], "One task has two runs"
    falls_back = parts.place.variables["SPINE_TEST_FALLBACK"] == "legacy"
    bodies, tracked = _bodies(parts), _bodies(parts, of_runs=True)
    assert falls_back or bodies == tracked

    for task_id, (task, status, attempt, _, lost, completed_at) in runs.items():
        told, executed = f"{task} {task_id}: {runs[task_id]}, {bodies[task_id]}", tracked[task_id]
        assert status == "completed" or (task == "chaos.once" and status == "dead_lettered"), told
        assert max(Counter(number for number, *_ in executed).values(), default=0) <= 1, f"An attempt twice: {told}"
        assert all(began < completed_at for _, _, began, _ in executed), f"Executed after its mark: {told}"
        if status == "completed" and not lost:
            ended = Counter(retries for _, retries, _, end in executed if end is not None)
            assert ended == Counter(range(attempt)), f"Not once: {told}"

    untracked = 0
    for kind, task_id in parts.noted("SELECT kind, task_id FROM accepted"):
        told = f"{kind} {task_id}: {runs.get(task_id)}, {bodies[task_id]}"
        if task_id not in runs:
            untracked += 1
            assert falls_back, f"Without a run: {told}"
            assert [end for *_, end in bodies[task_id] if end is not None], f"Lost: {told}"
        elif kind in {"chain", "chord"}:
            assert runs[task_id][3] == {"chain": 3, "chord": 6}[kind], f"Not what comes last: {told}"
    accepted = len(parts.noted("SELECT 1 FROM accepted"))
    again = sum(lost for *_, lost, _ in runs.values())
    return f"{accepted} calls accepted, {len(runs)} runs, {again} attempts lost, {untracked} calls without a run"


def _bodies(parts: Parts, *, of_runs: bool = False) -> dict[str, list[tuple[Any, ...]]]:
    """Of each task ``(attempt, retries, began, ended)``; ``of_runs`` leaves out what was untracked."""
    found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for task_id, *noted in parts.noted("SELECT task_id, attempt, retries, began, ended FROM body ORDER BY id"):
        if noted[0] is not None or not of_runs:
            found[task_id].append(tuple(noted))
    return found
