"""A worker that is killed when a body has ended, Celery has done what comes next, and the run is not marked yet.

The application is that of tests/chaos/shims_app.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import psutil
import psycopg
import pytest

from tests.celery_worker import REPOSITORY, CeleryWorker, Place, prepared, until
from tests.chaos.shims_tables import TABLES
from tests.database import Database
from tests.shims_place import relay_of

LINKED = """
import json, os, sys, warnings
warnings.simplefilter("ignore")
from tests.chaos import shims_app as app
from spine_shims import configuration
configuration._PATIENCE = 30.0
link = app.work.si(0.0)
link.freeze()
called = getattr(app, sys.argv[1]).apply_async((0.0, "before the mark"), link=link)
print(json.dumps([called.id, link.id]))
sys.stdout.flush()
os._exit(0)
"""


@dataclass(frozen=True)
class Shop:
    place: Place
    worker: CeleryWorker

    def called(self, task: str) -> tuple[str, str]:
        """Ids of the task and of its link."""
        words = [sys.executable, "-c", LINKED, task]
        made = subprocess.run(
            words, check=True, cwd=REPOSITORY, env=self.place.environment(), capture_output=True, text=True, timeout=240
        )
        task_id, link_id = json.loads(made.stdout)
        return task_id, link_id

    def executions(self) -> Counter[str]:
        return Counter(task_id for (task_id,) in self.place.rows("SELECT task_id FROM body WHERE ended IS NOT NULL"))

    def status(self, run_id: str) -> tuple[Any, ...]:
        (found,) = self.place.rows("SELECT status, attempt FROM runs WHERE run_id::text = %s", run_id) or [()]
        return found

    def events(self, run_id: str) -> list[str]:
        query = "SELECT event_type FROM run_events WHERE run_id::text = %s ORDER BY timestamp"
        # A fast worker is ahead of ``queued``.
        return [kind for (kind,) in self.place.rows(query, run_id) if kind not in ("transition_refused", "queued")]

    def is_lost(self, task_id: str) -> None:
        """Once the process of its first execution is gone, the lease is over, which nobody renews."""
        until(lambda: self.executions()[task_id], "It is not executed", self.worker)
        ((pid,),) = self.place.rows("SELECT pid FROM body WHERE task_id = %s ORDER BY id LIMIT 1", task_id)
        until(lambda: not psutil.pid_exists(pid), "It is not killed", self.worker)
        over = "UPDATE run_handoff SET next_at = now() WHERE run_id::text = %s AND leased RETURNING 1"
        assert self.place.rows(over, task_id)

    def refused(self, run_id: str) -> list[tuple[Any, ...]]:
        """What was wanted of a run that was no claim, and why it was not to be."""
        query = """
            SELECT data ->> 'wanted', data ->> 'why' FROM run_events
             WHERE run_id::text = %s AND event_type = 'transition_refused' AND data ->> 'wanted' <> 'running'
        """
        return self.place.rows(query, run_id)


@pytest.fixture
def shop(database: Database, redis_url: str, request: pytest.FixtureRequest) -> Iterator[Shop]:
    """Whose leases last as long as the test says."""
    made = prepared(database, redis_url, lease=request.param, application="tests.chaos.shims_app")
    place = replace(made, variables={"SPINE_TEST_NOTES_URL": made.url, "SPINE_TEST_FALLBACK": "fail"})
    with psycopg.connect(database.url) as connection:
        connection.execute(TABLES)
    with place.worker() as worker, relay_of(place):
        yield Shop(place, worker)
    place.discard()


@pytest.mark.parametrize("shop", [60.0], indirect=True)
def test_one_that_may_be_executed_again(shop: Shop) -> None:
    """It acknowledges late: its body is executed once more, when the lease is over, and what comes next is not."""
    task_id, link_id = shop.called("work")
    shop.is_lost(task_id)
    until(lambda: shop.status(task_id) == ("completed", 2), lambda: f"Not so: {shop.status(task_id)}", shop.worker)
    until(lambda: shop.status(link_id) == ("completed", 1), lambda: f"Not so: {shop.status(link_id)}", shop.worker)
    assert shop.executions() == {task_id: 2, link_id: 1}
    assert shop.events(task_id) == ["created", "started", "retry_scheduled", "started", "completed"]
    assert shop.place.rows("SELECT count(*) FROM runs") == [(2,)]


@pytest.mark.parametrize("shop", [60.0], indirect=True)
def test_one_that_may_not(shop: Shop) -> None:
    """It acknowledges early: Celery's main process finds the result that it had stored, and marks the run with it."""
    task_id, link_id = shop.called("once")
    until(lambda: shop.status(task_id) == ("completed", 1), lambda: f"Not so: {shop.status(task_id)}", shop.worker)
    until(lambda: shop.status(link_id) == ("completed", 1), lambda: f"Not so: {shop.status(link_id)}", shop.worker)
    assert shop.executions() == {task_id: 1, link_id: 1}
    assert shop.events(task_id) == ["created", "started", "completed"]


@pytest.mark.parametrize("shop", [60.0], indirect=True)
def test_one_that_has_asked_for_its_next_attempt(shop: Shop) -> None:
    """Its process is lost in one attempt, and the run is in the next one, which is not to end for that."""
    task_id, link_id = shop.called("retried")
    until(lambda: shop.refused(task_id), lambda: f"Nobody has heard of it: {shop.status(task_id)}", shop.worker)
    until(lambda: shop.status(link_id) == ("completed", 1), lambda: f"Not so: {shop.status(link_id)}", shop.worker)
    # What comes next is sent before it is marked itself.
    until(lambda: shop.status(task_id) == ("completed", 2), lambda: f"Not so: {shop.status(task_id)}", shop.worker)
    assert shop.executions() == {task_id: 2, link_id: 1}
    # Who hears of it late may find the result of the second attempt.
    assert shop.refused(task_id) in (
        [(wanted, "it is in another attempt")] for wanted in ("dead_lettered", "completed")
    )
