"""A fleet in the middle of a deploy: producers and workers of the version without shims beside those of the other."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from socket import gethostname
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from celery import chord, group
from celery.result import AsyncResult, allow_join_result
from psycopg_pool import ConnectionPool

from spine_migrate import __version__
from spine_migrate.execution import SyncDispatcher
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_shims import Modes, configure
from spine_shims.configuration import reset
from spine_shims.tables import Tables
from tests.celery_worker import CeleryWorker, Place, closed, until
from tests.database import Role, patient
from tests.fleet_tasks import define
from tests.shims_place import relay_of, shims_place
from tests.shims_tasks import QUIET
from tests.waiting import LONGEST

pytestmark = pytest.mark.filterwarnings(QUIET)


@dataclass
class Fleet:
    place: Place

    @contextmanager
    def worker(self, version: str) -> Iterator[CeleryWorker]:
        place = replace(
            self.place, application="tests.fleet_app", variables={"SPINE_TEST_VERSION": version}, node=version
        )
        with place.worker() as worker:
            yield worker

    def stop(self, worker: CeleryWorker, version: str) -> None:
        """Once its main process has gone round: what it has not heard of that a child has executed goes back."""
        asked = {"destination": [f"{self.place.prefix}{version}@{gethostname()}"], "timeout": 1, "limit": 1}
        with closed(self.place.app()) as app:
            until(lambda: app.control.ping(**asked), "It does not answer", worker)
        worker.stop()

    @contextmanager
    def old_producer(self) -> Iterator[SimpleNamespace]:
        with closed(self.place.app()) as app:
            yield define(app, "old")

    @contextmanager
    def new_producer(self) -> Iterator[SimpleNamespace]:
        """As configured by URL, but for what must be closed when the test is over."""
        tables = Tables.at(patient(self.place.url))
        with (
            closed(self.place.app()) as app,
            self.place.executor() as executor,
            ConnectionPool(self.place.url, min_size=1, max_size=2) as pool,
        ):
            dispatcher = SyncDispatcher(executor, PostgresLedger(pool), publish=False)
            modes = Modes(tables, ttl_seconds=0.05)
            configure(dispatcher, modes=modes, workers_first=True)
            try:
                yield SimpleNamespace(**vars(define(app, "new")), refresh=modes.refresh)
            finally:
                reset()
                tables.close()

    def workers(self) -> set[str]:
        """Versions of the workers that somebody has seen."""
        return {version for (version,) in self.place.rows("SELECT DISTINCT version FROM shim_worker")}

    def later(self, seconds: int, version: str) -> None:
        """As if so much time had passed since workers of a version, '' for those without shims, were seen."""
        query = "UPDATE shim_worker SET seen_at = seen_at - make_interval(secs => %s) WHERE version = %s RETURNING 1"
        assert self.place.rows(query, seconds, version)

    def executed(self) -> Counter[tuple[str, str]]:
        """How often, by task and by whom."""
        rows = self.place.rows("SELECT task, body FROM shim_executed")
        return Counter((task, body) for task, body in rows)

    def twice(self) -> list[tuple[Any, ...]]:
        return self.place.rows("SELECT task, task_id FROM shim_executed GROUP BY 1, 2 HAVING count(*) > 1")

    def runs(self) -> Counter[tuple[str, str]]:
        """How many, by handler and status."""
        return Counter((name, status) for name, status in self.place.rows("SELECT name, status FROM runs"))

    def runs_of(self, results: list[AsyncResult]) -> Counter[tuple[str, str]]:
        """How many, by status and source."""
        query = "SELECT status, trigger_source FROM runs WHERE run_id = ANY (%s::uuid[])"
        rows = self.place.rows(query, [result.id for result in results])
        return Counter((status, source) for status, source in rows)


@pytest.fixture
def fleet(server_url: str, owner: Role, redis_server_url: str) -> Iterator[Fleet]:
    with shims_place(server_url, owner, redis_server_url) as place, relay_of(place):
        yield Fleet(place)


def got(result: AsyncResult) -> Any:
    with allow_join_result():
        return result.get(timeout=LONGEST)


def test_a_new_producer_waits_for_new_workers(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    """Until one was seen that has the shim, calls are the old messages, which an old worker executes."""
    with fleet.new_producer() as tasks:
        with fleet.worker("old") as worker:
            results = [tasks.add.delay(n, 1) for n in range(20)]
            assert [got(result) for result in results] == [*range(1, 21)]
            assert got(chord([tasks.slow.s(n) for n in range(4)])(tasks.total.s())) == 6
            fleet.stop(worker, "old")
        assert fleet.executed() == {("add", "old"): 20, ("slow", "old"): 4, ("total", "old"): 1}
        assert fleet.runs() == {}
        told = [
            record.getMessage() for record in caplog.records if "no worker that has its shim" in record.getMessage()
        ]
        # The chord's body is sent by the worker.
        assert [one.split()[2] for one in told] == ["fleet.add", "fleet.slow"]

        with fleet.worker("new") as worker:
            announced = "SELECT count(DISTINCT task) FROM shim_worker"
            until(lambda: fleet.place.rows(announced) == [(4,)], "The worker announces nothing", worker)
            # What it knows of workers is 0.05 s old at most, when it asks; the answer comes with the question after it.
            until(lambda: _dispatches(fleet, tasks), "The producer does not see it", worker)
            before = fleet.executed()
            results = [tasks.add.delay(n, 1) for n in range(20)]
            assert [got(result) for result in results] == [*range(1, 21)]
            assert got(chord([tasks.slow.s(n) for n in range(4)])(tasks.total.s())) == 6
            until(lambda: fleet.runs_of(results) == {("completed", "celery"): 20}, "Not these runs", worker)
        assert fleet.executed() - before == {("add", "handler"): 20, ("slow", "new"): 4, ("total", "new"): 1}
    assert fleet.twice() == []


def _dispatches(fleet: Fleet, tasks: SimpleNamespace) -> bool:
    """Whether a call of each task is a run before anybody has executed it."""
    stored = []
    for task, args in ((tasks.add, (0, 0)), (tasks.slow, (0,)), (tasks.total, ([],))):
        result = task.delay(*args)
        sources = fleet.place.rows("SELECT trigger_source FROM runs WHERE run_id = %s", result.id)
        stored.append(sources == [("celery",)])
        got(result)
    return all(stored)


def test_new_workers_beside_old_ones(fleet: Fleet) -> None:
    """A rolling deploy: as long as one of the old ones is there nothing is dispatched, whoever executes it. Then
    everything is; and no longer, once an old one is there again.
    """
    executed: Counter[str] = Counter()
    with fleet.new_producer() as tasks, fleet.worker("old") as old, fleet.worker("new") as new:
        until(lambda: fleet.workers() == {"", __version__}, "They are not seen", new)
        tasks.refresh()
        _each_once(fleet, tasks, executed, dispatched=False)
        assert fleet.runs() == {}
        fleet.stop(old, "old")
        # A look that it has answered may be written down after its end.
        unseen = "SELECT max(seen_at) < now() - interval '10 seconds' FROM shim_worker WHERE version = ''"
        until(lambda: fleet.place.rows(unseen) == [(True,)], "It is still seen", new)
        # It may only have been too busy to answer.
        fleet.later(60, "")
        tasks.refresh()
        _each_once(fleet, tasks, executed, dispatched=False)
        assert fleet.runs() == {}

        fleet.later(121, "")
        tasks.refresh()
        _each_once(fleet, tasks, executed, dispatched=True)

        fleet.place.rows("DELETE FROM shim_worker WHERE version = '' RETURNING 1")
        with fleet.worker("old"):
            until(lambda: "" in fleet.workers(), "The old one is not seen", new)
            tasks.refresh()
            _each_once(fleet, tasks, executed, dispatched=False)
    assert fleet.twice() == []


def test_the_last_new_worker_goes_away(fleet: Fleet) -> None:
    """For three minutes it is taken to be there: its deploy may be at hand, and its runs wait. Then calls are sent as
    before, for whoever is there to execute them.
    """
    executed: Counter[str] = Counter()
    with fleet.new_producer() as tasks:
        with fleet.worker("new") as worker:
            until(lambda: fleet.workers() == {__version__}, "It is not announced", worker)
            tasks.refresh()
            _each_once(fleet, tasks, executed, dispatched=True)
            fleet.stop(worker, "new")
        waiting = tasks.add.delay(1, 1)
        fleet.later(181, __version__)
        tasks.refresh()
        legacy = tasks.add.delay(2, 2)
        until(lambda: fleet.runs_of([waiting]) == {("queued", "celery"): 1}, "The first is not published")
        assert fleet.runs_of([legacy]) == {}
        with fleet.worker("new") as worker:
            assert (got(waiting), got(legacy)) == (2, 4)
            until(lambda: fleet.runs_of([legacy]) == {("completed", "message"): 1}, "It is not adopted", worker)
    assert fleet.twice() == []


def test_an_old_worker_that_comes_back(fleet: Fleet) -> None:
    """It executes what was dispatched before, and claims nothing: its results are the runs', whose bodies are not
    executed again by the new worker that comes after it.
    """
    with fleet.new_producer() as tasks:
        with fleet.worker("new") as worker:
            until(lambda: fleet.workers() == {__version__}, "It is not announced", worker)
            fleet.stop(worker, "new")
        tasks.refresh()
        results = [tasks.add.delay(n, 1) for n in range(20)]
        wrong = tasks.slow.delay("no number")
        in_flight = chord([tasks.slow.s(n) for n in range(4)])(tasks.total.s())
        with fleet.worker("old") as worker:
            assert [got(result) for result in results] == [*range(1, 21)]
            with pytest.raises(TypeError):
                got(wrong)
            assert got(in_flight) == 6
            fleet.stop(worker, "old")
        # The relay knows that it has published them, and all is ten minutes later.
        queued = {("add", "queued"): 20, ("slow", "queued"): 5}
        until(lambda: fleet.runs() == queued, lambda: f"Not these runs: {fleet.runs()}, but {queued}")
        fleet.place.rows("UPDATE run_handoff SET next_at = now() WHERE next_at IS NOT NULL RETURNING 1")
        with fleet.worker("new") as worker:
            completed = {("add", "completed"): 20, ("slow", "completed"): 4, ("slow", "failed"): 1}
            until(lambda: fleet.runs() == completed, lambda: f"Not these runs: {fleet.runs()}, but {completed}", worker)
    stored = fleet.place.rows("SELECT result FROM runs WHERE run_id = ANY (%s)", [UUID(one.id) for one in results])
    assert sorted(result for (result,) in stored) == [*range(1, 21)]
    # The chord's body was sent by the old worker, as an old message.
    assert fleet.executed() == {("add", "old"): 20, ("slow", "old"): 5, ("total", "old"): 1}
    assert fleet.twice() == []


def _each_once(fleet: Fleet, tasks: SimpleNamespace, before: Counter[str], *, dispatched: bool) -> None:
    """Calls of each kind, each of whose bodies is executed once, beside those ``before``, to which they are added."""
    results = [tasks.add.delay(n, 1) for n in range(20)]
    retried = [tasks.again.delay(1) for _ in range(6)]
    in_flight = chord([tasks.slow.s(n) for n in range(4)])(tasks.total.s())
    assert [got(result) for result in results] == [*range(1, 21)]
    assert [got(result) for result in retried] == [1] * 6
    assert got(in_flight) == 6
    made = fleet.runs_of([*results, *retried])
    if dispatched:
        until(lambda: fleet.runs_of([*results, *retried]) == {("completed", "celery"): 26}, f"Not these runs: {made}")
    else:
        assert made == {}
    before.update({"add": 20, "again 0": 6, "again 1": 6, "slow": 4, "total": 1})
    assert Counter(task for (task, _), count in fleet.executed().items() for _ in range(count)) == before


def test_an_old_producer_and_a_new_worker(fleet: Fleet) -> None:
    """Its messages are adopted, with their links and chords."""
    with fleet.old_producer() as tasks, fleet.worker("new") as worker:
        linked = [tasks.add.apply_async((n, 1), link=tasks.add.s(100)) for n in range(10)]
        assert [got(result) for result in linked] == [*range(1, 11)]
        assert got(chord([tasks.slow.s(n) for n in range(4)])(tasks.total.s())) == 6
        completed = {("add", "completed"): 20, ("slow", "completed"): 4, ("total", "completed"): 1}
        until(lambda: fleet.runs() == completed, "Not these runs", worker)
        assert fleet.runs_of(linked) == {("completed", "message"): 10}
    assert fleet.executed() == {("add", "handler"): 20, ("slow", "new"): 4, ("total", "new"): 1}
    assert fleet.twice() == []


def test_a_producer_that_has_celery_alone(fleet: Fleet) -> None:
    """It knows neither the tasks nor the shims, and is on nobody's list of deploys."""
    script = f"""
import sys
from celery import Celery
app = Celery("plain", broker={fleet.place.broker!r}, backend={fleet.place.results!r})
app.conf.task_default_queue = {fleet.place.prefix + "celery"!r}
print(app.send_task("fleet.add", (2,), {{"y": 3}}).get(timeout={LONGEST}))
assert not [name for name in sys.modules if name.startswith("spine_")]
"""
    with fleet.worker("new") as worker:
        told = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        assert told.stdout == "5\n"
        until(lambda: fleet.runs() == {("add", "completed"): 1}, "It is no run", worker)
    assert fleet.executed() == {("add", "handler"): 1}


def test_what_is_queued_and_in_flight_is_adopted_at_the_deploy(fleet: Fleet) -> None:
    """200 messages in the queue, and a chord of which the old worker has executed a part. What each of its two children
    had begun when it was stopped and it had not acknowledged yet, Celery gives back and finishes all the same: that is
    executed by both, without shims as with them.
    """
    with fleet.old_producer() as tasks:
        in_flight = chord(group([tasks.slow.s(n) for n in range(120)]), tasks.total.s())()
        queued = [tasks.add.delay(n, 1) for n in range(200)]
        with fleet.worker("old") as worker:
            until(lambda: fleet.executed()["slow", "old"] >= 5, "The old worker does nothing", worker)
            fleet.stop(worker, "old")
        before = fleet.executed()
        assert 5 <= before["slow", "old"] < 120
        assert before["add", "old"] == 0

        with fleet.worker("new") as worker:
            assert [got(result) for result in queued] == [*range(1, 201)]
            assert got(in_flight) == sum(range(120))
            given_back = [task for task, _ in fleet.twice()]
            assert given_back in ([], ["slow"], ["slow"] * 2)
            left = 120 - before["slow", "old"] + len(given_back)
            completed = {("add", "completed"): 200, ("slow", "completed"): left, ("total", "completed"): 1}
            until(lambda: fleet.runs() == completed, lambda: f"Not these runs: {fleet.runs()}, but {completed}", worker)
    assert fleet.executed() - before == {("add", "handler"): 200, ("slow", "new"): left, ("total", "new"): 1}
    assert len(fleet.twice()) == len(given_back)
