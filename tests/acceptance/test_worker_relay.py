"""``spine-migrate worker-relay`` as it is installed: one pass, many, outages, signals, mistakes."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import Celery
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.execution import RunStatus, SyncDispatcher
from spine_migrate.execution.executors.celery import CeleryExecutor
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from tests.celery_worker import until
from tests.command import PROGRAM, environment, run
from tests.database import Database
from tests.redis_server import RedisServer

_SHOP = """
from celery import Celery
from spine_migrate.execution.executors.celery import CeleryExecutor
app = Celery("shop", broker={broker!r})
executor = CeleryExecutor(app, {{"default": "shop"}}, publish_timeout_seconds=5)
nothing = 1
"""


class Shop:
    """A folder with an application's module, its database, and its broker."""

    def __init__(self, folder: Path, url: str, broker: str, dispatcher: SyncDispatcher) -> None:
        self.folder = folder
        self.url = url
        self.dispatcher = dispatcher
        (folder / "shop.py").write_text(_SHOP.format(broker=broker), encoding="utf-8")

    def relay(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run(self.url, "worker-relay", *words, cwd=self.folder)

    @contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        tool = subprocess.Popen(
            [PROGRAM, "worker-relay", "--app", "shop:executor", "--poll", "0.05", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=environment(self.url),
        )
        try:
            yield tool
        finally:
            tool.kill()
            tool.communicate()

    def status(self, run_id: str) -> RunStatus:
        found = self.dispatcher.get_run(run_id)
        assert found is not None
        return found.status

    def published(self, run_id: str) -> None:
        until(lambda: self.status(run_id) is RunStatus.QUEUED, f"{run_id} is not published")


@contextmanager
def opened(folder: Path, database: Database, broker: str) -> Iterator[Shop]:
    database.arrange(schema.upgrade)
    with (
        Celery(set_as_current=False) as unused,
        ConnectionPool(database.url, min_size=1, max_size=2, check=ConnectionPool.check_connection) as pool,
    ):
        submitter = SyncDispatcher(CeleryExecutor(unused), PostgresLedger(pool), publish=False)
        yield Shop(folder, database.url, broker, submitter)


@pytest.fixture
def shop(tmp_path: Path, database: Database, redis_url: str) -> Iterator[Shop]:
    with opened(tmp_path, database, redis_url) as made:
        yield made


def test_one_pass_publishes_and_tells(shop: Shop) -> None:
    runs = [shop.dispatcher.submit_task("work") for _ in range(3)]
    first = shop.relay("--app", "shop:executor", "--once", "--batch", "2")
    assert (first.returncode, first.stdout) == (
        0,
        "published 3, published again 0, cancelled 0, tried again 0, dead lettered 0, failed 0, ended elsewhere 0\n",
    )
    assert {shop.status(run_id) for run_id in runs} == {RunStatus.QUEUED}
    again = shop.relay("--app", "shop:app", "--once", "--json")
    nothing: dict[str, Any] = dict.fromkeys(
        ["published", "published_again", "cancelled", "tried_again", "dead_lettered", "failed", "ended_elsewhere"], 0
    )
    assert json.loads(again.stdout) == {"format": 1, **nothing, "error": None}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(shop: Shop, number: signal.Signals) -> None:
    with shop.running("--json") as tool:
        shop.published(shop.dispatcher.submit_task("work"))
        tool.send_signal(number)
        told, said = tool.communicate(timeout=60)
    assert tool.returncode == 0, said
    assert json.loads(told)["published"] == 1
    assert "Relaying runs to celery" in said
    assert "Traceback" not in said


def test_it_outlives_a_broker_that_is_killed_and_started(
    tmp_path: Path, database: Database, redis_server: RedisServer
) -> None:
    with opened(tmp_path, database, redis_server.url) as shop, shop.running() as tool:
        shop.published(shop.dispatcher.submit_task("work"))
        redis_server.kill()
        waiting = shop.dispatcher.submit_task("work")
        assert tool.stderr is not None
        assert "Relaying" in tool.stderr.readline()
        assert "broker cannot be reached" in tool.stderr.readline()
        assert shop.status(waiting) is RunStatus.PENDING
        redis_server.start()
        with psycopg.connect(database.url) as connection:
            connection.execute("UPDATE run_handoff SET next_at = now() WHERE run_id = %s", (waiting,))
        shop.published(waiting)


def test_it_outlives_ended_sessions(shop: Shop, database: Database) -> None:
    with shop.running() as tool:
        shop.published(shop.dispatcher.submit_task("work"))
        with psycopg.connect(database.admin_url) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        shop.published(shop.dispatcher.submit_task("work"))
        assert tool.poll() is None


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("shop", "write MODULE:NAME"),
        ("shoe:app", "The module shoe cannot be imported"),
        ("shop:ap", "has no 'ap'"),
        ("shop:nothing", "is of the type int, neither a Celery application nor an executor"),
    ],
)
def test_an_application_that_is_none(shop: Shop, place: str, sentence: str) -> None:
    ended = shop.relay("--app", place, "--once")
    assert ended.returncode == 2
    assert sentence in ended.stderr


def test_a_broker_that_is_down_is_exit_5_with_once(tmp_path: Path, database: Database) -> None:
    with opened(tmp_path, database, "redis://127.0.0.1:1/0") as shop:
        shop.dispatcher.submit_task("work")
        ended = shop.relay("--app", "shop:executor", "--once")
        assert ended.returncode == 5
        assert "Runs that could not be published: 1. The broker cannot be reached" in ended.stderr
        assert "failed 1" in ended.stdout


def test_a_database_without_the_tables_is_refused(tmp_path: Path, database: Database) -> None:
    (tmp_path / "shop.py").write_text(_SHOP.format(broker="memory://"), encoding="utf-8")
    ended = run(database.url, "worker-relay", "--app", "shop:app", "--once", cwd=tmp_path)
    assert ended.returncode == 3
    assert "spine-migrate db upgrade" in ended.stderr
