"""``spine-migrate compare-backends`` with Celery: real workers, none at all, and what is left when it gives up."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest

from spine_migrate.db import schema
from tests import redis_server as own_redis
from tests.celery_worker import REPOSITORY, CeleryWorker, Place, prepared, until
from tests.command import PROGRAM, environment, run
from tests.comparing_backends import BOTH, Desk
from tests.database import Database, Role, fresh_database
from tests.grants import give

_CELERY = (
    "double",
    "--params",
    '{"n": 3}',
    "--app",
    "tests.compared_tasks:app",
    "--backend",
    "memory",
    "--backend",
    "celery",
)


def _runs(database: Database) -> list[tuple[Any, ...]]:
    with database.connect() as connection:
        return connection.execute("SELECT name, status, started_at FROM runs").fetchall()


def test_without_a_worker_the_run_is_cancelled(tmp_path: Path, database: Database, redis_url: str) -> None:
    """By a role that has what ``grants compare-backends`` prints."""
    database.arrange(schema.upgrade)
    with database.connect(autocommit=True) as owner:
        owner.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    role = database.add_role("comparer")
    give(database, role, "compare-backends")
    ended = Desk(tmp_path, redis_url).compares(*_CELERY, "--timeout", "3", url=database.url_as(role), code=4)
    assert re.search(
        r"No worker has taken the run [0-9a-f-]{36} of celery within 3 seconds; it was cancelled\. Start a worker"
        r" that listens to the queue 'default', or give a longer --timeout\.",
        ended.stdout,
    )
    assert _runs(database) == [("double", "cancelled", None)]


def test_without_a_broker_it_is_exit_5_and_the_run_is_cancelled(tmp_path: Path, database: Database) -> None:
    database.arrange(schema.upgrade)
    ended = Desk(tmp_path, "redis://127.0.0.1:1/0").compares(*_CELERY, url=database.url, code=5)
    assert "The broker cannot be reached" in ended.stderr
    assert _runs(database) == [("double", "cancelled", None)]


def test_without_the_tables_it_is_refused(tmp_path: Path, database: Database) -> None:
    ended = Desk(tmp_path).compares(*_CELERY, url=database.url, code=3)
    assert "spine-migrate db upgrade" in ended.stderr


@contextmanager
def started(desk: Desk, database: Database) -> Iterator[subprocess.Popen[str]]:
    """Waiting for a worker that is not there."""
    tool = subprocess.Popen(
        [PROGRAM, "compare-backends", *_CELERY],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=desk.folder,
        env=environment(database.url, **desk.variables),
    )
    try:
        until(lambda: any(status == "queued" for _, status, _ in _runs(database)), "Nothing is queued")
        yield tool
    finally:
        tool.kill()
        tool.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_calls_the_run_off(number: signal.Signals, tmp_path: Path, database: Database, redis_url: str) -> None:
    database.arrange(schema.upgrade)
    with started(Desk(tmp_path, redis_url), database) as tool:
        tool.send_signal(number)
        told, said = tool.communicate(timeout=60)
    assert (tool.returncode, told) == (4, ""), said
    assert "Traceback" not in said
    assert _runs(database) == [("double", "cancelled", None)]


def test_what_a_killed_tool_leaves_behind_expires(tmp_path: Path, database: Database, redis_url: str) -> None:
    """Nobody is there to cancel it; a worker that comes a minute and the timeout later finds it expired."""
    database.arrange(schema.upgrade)
    with started(Desk(tmp_path, redis_url), database) as tool:
        tool.kill()
    with database.connect() as connection:
        soon = "SELECT r.status, h.expires_at < now() + interval '2 min' FROM run_handoff h JOIN runs r USING (run_id)"
        assert connection.execute(soon).fetchall() == [("queued", True)]


class Workplace:
    """Real workers of tests/celery_app.py, whose handlers note each execution."""

    def __init__(self, place: Place, worker: CeleryWorker) -> None:
        self.place = place
        self.worker = worker

    def compares(
        self,
        name: str,
        params: dict[str, Any],
        *words: str,
        registry: str = "tests.celery_app:registry",
        code: int = 0,
    ) -> Any:
        app = ("--app", "tests.celery_app:executor", "--registry", registry)
        ended = run(
            None, "compare-backends", name, "--params", json.dumps(params), *app, "--json", "--yes", *words,
            env=self.place.environment(), cwd=REPOSITORY,
        )  # fmt: skip
        assert ended.returncode == code, ended.stdout + ended.stderr + self.worker.log()
        return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def shared(server_url: str, owner: Role, redis_server_url: str) -> Iterator[Workplace]:
    with (
        fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database,
        own_redis.fresh_database(redis_server_url) as redis_url,
    ):
        place = prepared(database, redis_url)
        with place.worker() as worker:
            yield Workplace(place, worker)
            place.discard()


@pytest.fixture
def workplace(shared: Workplace) -> Workplace:
    """What was executed before is forgotten."""
    for table in ("executed", "run_events", "runs"):
        shared.place.rows(f"DELETE FROM {table}")  # noqa: S608 - three names
    return shared


_WITH_CELERY = (*BOTH, "--backend", "celery")


def test_attempts_are_the_same_without_a_relay(workplace: Workplace) -> None:
    """The handler fails once, on each of the three, and is tried again at once."""
    told = workplace.compares("fails", {"times": 1}, *_WITH_CELERY, "--max-retries", "1")
    assert told["verdict"] == "equal"
    assert [one["runs"][0]["status"] for one in told["backends"]] == ["completed"] * 3
    attempts = workplace.place.rows("SELECT count(DISTINCT run_id), array_agg(attempt ORDER BY attempt) FROM executed")
    assert attempts == [(3, [1, 1, 1, 2, 2, 2])]


def test_what_the_workers_do_otherwise_is_a_difference(workplace: Workplace, tmp_path: Path) -> None:
    """As where their image is older: the same name, another handler."""
    told = workplace.compares(
        "quick", {"folder": str(tmp_path), "value": 1}, *_WITH_CELERY, registry="tests.handlers:registry", code=1
    )
    memory, local, celery = told["backends"]
    assert [one["verdict"] for one in (memory, local, celery)] == ["equal", "equal", "different"]
    assert [(found["path"], found["kind"]) for found in celery["differences"]] == [
        ("$.attempt", "missing"),
        ("$.given", "missing"),
        ("$.got", "extra"),
    ]


def test_a_run_that_takes_too_long_on_a_worker_is_asked_to_stop(workplace: Workplace) -> None:
    words = ("--backend", "celery", "--backend", "memory", "--timeout", "2")
    told = workplace.compares("slow", {"seconds": 600}, *words, code=4)
    assert told["reasons"][0]["code"] == "timeout"
    until(
        lambda: workplace.place.rows("SELECT status FROM runs") == [("cancelled",)],
        "The worker does not stop",
        workplace.worker,
    )
