"""The relay's three rules, on both ledgers: who is published, published again, reaped; and what it outlives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.execution import BackendError, RunRecord, RunStatus, SyncDispatcher, task_spec
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.relay import Pass, Relay
from tests.database import Database
from tests.ledgers import Timed
from tests.relays import Bench, Postbox, benches
from tests.runs import Accepting


@pytest.fixture(params=["memory", "postgres"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    yield from benches(request)


def test_what_was_never_published_is_published_once(bench: Bench) -> None:
    run_id = bench.dispatcher.submit_task("work")
    relay = bench.relay()
    assert relay.run_once() == Pass(published=1)
    assert relay.run_once().idle
    assert bench.postbox.sent == [run_id]
    assert bench.status(run_id) is RunStatus.QUEUED
    run = bench.ledger.get(run_id)
    assert run is not None
    assert (run.external_ref, run.executor_name) == (run_id, "postbox")


def test_a_run_that_its_submitter_is_about_to_publish_is_left_to_it(bench: Bench) -> None:
    submitter = SyncDispatcher(bench.postbox, bench.ledger)
    bench.postbox.down = 1
    run_id = submitter.submit_task("work")
    assert bench.relay().run_once().idle
    bench.forward(31)
    assert bench.relay().run_once() == Pass(published=1)
    assert bench.postbox.sent == [run_id]


def test_a_run_of_the_future_is_published_when_it_is_due(bench: Bench) -> None:
    run_id = bench.dispatcher.submit_task("work", due_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=10000))
    assert bench.relay().run_once().idle
    bench.forward(10001 * 86400)
    assert bench.relay().run_once() == Pass(published=1)
    assert bench.postbox.sent == [run_id]


def test_what_was_never_claimed_is_published_again_with_growing_pauses(bench: Bench) -> None:
    run_id = bench.dispatcher.submit_task("work")
    relay = bench.relay(claim_within_seconds=100)
    relay.run_once()
    pauses = []
    for _ in range(3):
        waited = 0
        while relay.run_once().published_again == 0:
            bench.forward(50)
            waited += 50
        pauses.append(waited)
    assert pauses == [100, 200, 400]
    assert set(bench.postbox.sent) == {run_id}
    assert bench.status(run_id) is RunStatus.QUEUED


def test_a_claimed_run_is_not_published_again(bench: Bench) -> None:
    run_id = bench.dispatcher.submit_task("work")
    bench.relay().run_once()
    bench.ledger.claim(run_id, "somebody", lease_seconds=10_000)
    bench.forward(5_000)
    assert bench.relay().run_once().idle


def test_a_lost_worker_costs_an_attempt_and_then_the_run(bench: Bench) -> None:
    run_id = bench.dispatcher.submit_task("work", max_retries=1)
    relay = bench.relay(backoff_seconds=10)
    for expected in (Pass(tried_again=1), Pass(dead_lettered=1)):
        # Long, since the server's own time goes by as well while the test is busy.
        bench.ledger.claim(run_id, "somebody", lease_seconds=6_000)
        bench.forward(5_000)
        assert relay.run_once().idle
        bench.forward(1_001)
        assert relay.run_once() == expected
        bench.forward(11)
    assert bench.status(run_id) is RunStatus.DEAD_LETTERED


def test_a_lost_worker_of_a_cancelled_run_ends_it(bench: Bench) -> None:
    """Cancellation comes first, although the run has retries left."""
    run_id = bench.dispatcher.submit_task("work")
    bench.ledger.claim(run_id, "somebody", lease_seconds=60)
    assert bench.dispatcher.cancel(run_id)
    bench.forward(61)
    assert bench.relay().run_once() == Pass(cancelled=1)
    assert bench.status(run_id) is RunStatus.CANCELLED


def test_a_broker_that_is_down_puts_runs_off_and_loses_none(bench: Bench) -> None:
    runs = {bench.dispatcher.submit_task("work") for _ in range(10)}
    bench.postbox.down = 1_000
    relay = bench.relay(publish_again_seconds=30)
    down = relay.run_once()
    assert (down.published, down.failed, down.error) == (0, 3, "The broker is down.")
    assert bench.postbox.asked == 3
    bench.postbox.down = 0
    assert relay.run_once().idle
    bench.forward(31)
    assert relay.run_once() == Pass(published=10)
    assert set(bench.postbox.sent) == runs


def test_a_run_that_cannot_be_published_does_not_hold_up_the_others(bench: Bench) -> None:
    bad, *good = [bench.dispatcher.submit_task("work") for _ in range(5)]
    bench.postbox.refused = {bad}
    assert bench.relay().run_once() == Pass(published=4, failed=1, error="The broker is down.")
    assert sorted(bench.postbox.sent) == sorted(good)


def test_a_run_of_which_no_message_can_be_made_is_that_runs_alone(bench: Bench) -> None:
    """Whatever the executor raises of it, the others are published, and marked; nothing of its values is told."""
    first, broken, last = (bench.dispatcher.submit_task("work") for _ in range(3))
    bench.postbox.broken.add(broken)
    done = bench.relay().run_once()
    assert (done.published, done.failed) == (2, 1)
    assert done.error == f"The run {broken} cannot be published: the executor raised LookupError."
    assert set(bench.postbox.sent) == {first, last}
    assert [bench.status(run_id) for run_id in (first, broken, last)] == [
        RunStatus.QUEUED, RunStatus.PENDING, RunStatus.QUEUED,
    ]  # fmt: skip
    bench.postbox.broken.clear()
    bench.forward(31)
    assert bench.relay().run_once() == Pass(published=1)


def test_a_submitter_leaves_to_the_relay_what_it_cannot_make_a_message_of(bench: Bench) -> None:
    """It is stored: an error would make its caller call again."""
    submitter = SyncDispatcher(bench.postbox, bench.ledger)
    run = RunRecord(task_spec("work"))
    bench.postbox.broken.add(run.run_id)
    assert submitter.submit_run(run).run_id == run.run_id
    assert [str(event.event_type) for event in bench.ledger.events(run.run_id)] == ["created", "alert_triggered"]


def test_a_full_batch_says_that_there_may_be_more(bench: Bench) -> None:
    for _ in range(5):
        bench.dispatcher.submit_task("work")
    relay = bench.relay(batch=3)
    assert relay.run_once() == Pass(published=3, more=True)
    assert relay.run_once() == Pass(published=2)


def test_draining_goes_on_until_a_batch_is_not_full(bench: Bench) -> None:
    for _ in range(5):
        bench.dispatcher.submit_task("work")
    assert bench.relay(batch=2).drain() == Pass(published=5)


def test_draining_ends_where_the_broker_is_down(bench: Bench) -> None:
    for _ in range(5):
        bench.dispatcher.submit_task("work")
    bench.postbox.down = 1_000
    assert bench.relay(batch=2).drain() == Pass(failed=2, error="The broker is down.")


def test_relays_at_once_publish_each_run_once(bench: Bench) -> None:
    runs = [bench.dispatcher.submit_task("work") for _ in range(120)]
    start = threading.Barrier(4)

    def relay() -> None:
        mine = bench.relay(batch=7)
        start.wait()
        while not mine.run_once().idle:
            continue

    threads = [threading.Thread(target=relay) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A relay whose batch was passed over by SKIP LOCKED may have gone home; what is left is the next pass's.
    while not bench.relay().run_once().idle:
        continue
    assert sorted(bench.postbox.sent) == sorted(runs)
    assert {bench.status(run_id) for run_id in runs} == {RunStatus.QUEUED}


class Waits(threading.Event):
    """A stop that takes no time, notes the pauses, and is set after so many."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self._count = count

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.pauses.append(timeout)
        if len(self.pauses) == self._count:
            self.set()
        return self.is_set()


def test_it_polls_and_goes_on_at_once_after_a_full_batch(bench: Bench) -> None:
    for _ in range(5):
        bench.dispatcher.submit_task("work")
    told: list[Pass] = []
    stop = Waits(2)
    bench.relay(batch=3).run(stop, poll_seconds=7, tell=told.append)
    assert [done.published for done in told] == [3, 2, 0]
    assert stop.pauses == [7, 7]


class Lost(MemoryLedger):
    """Cannot be reached for the first so many passes."""

    def __init__(self, passes: int) -> None:
        super().__init__()
        self.passes = passes

    def reap(self, limit: int, *, backoff_seconds: float) -> list[RunRecord]:
        self.passes -= 1
        if self.passes >= 0:
            raise BackendError("The ledger cannot be reached.")
        return list(super().reap(limit, backoff_seconds=backoff_seconds))


def test_it_outlives_a_ledger_that_is_gone_with_growing_and_bounded_pauses() -> None:
    ledger = Lost(9)
    run_id = SyncDispatcher(Postbox(), ledger, publish=False).submit_task("work")
    told: list[Pass] = []
    stop = Waits(10)
    Relay(ledger, Postbox()).run(stop, poll_seconds=1, tell=told.append)
    assert [done.error for done in told[:9]] == ["The ledger cannot be reached."] * 9
    assert told[9] == Pass(published=1)
    assert stop.pauses[0] < 4 < stop.pauses[7]
    assert max(stop.pauses) <= 30
    assert stop.pauses[9] == 1
    run = ledger.get(run_id)
    assert run is not None
    assert run.status is RunStatus.QUEUED


def test_it_outlives_ended_sessions(database: Database) -> None:
    """Every session of the database is ended between two passes, as by a restart of the server."""
    database.arrange(schema.upgrade)
    postbox = Postbox()
    with ConnectionPool(database.url, min_size=1, max_size=2) as pool:
        ledger = PostgresLedger(pool)
        dispatcher = SyncDispatcher(postbox, ledger, publish=False)
        told: list[Pass] = []

        class Ends(Waits):
            def wait(self, timeout: float | None = None) -> bool:
                if not self.pauses:
                    with psycopg.connect(database.admin_url) as admin:
                        admin.execute(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                        )
                return super().wait(timeout)

        dispatcher.submit_task("work")
        Relay(ledger, postbox).run(Ends(4), poll_seconds=1, tell=told.append)
        assert told[0] == Pass(published=1)
        assert told[1].error is not None
        assert "cannot be reached" in told[1].error
        assert told[-1].error is None


def test_what_of_many_is_published_is_marked_before_the_relay_looks(timed: Timed) -> None:
    published: list[str] = []
    relay = Relay(timed.ledger, Accepting(), batch=2_000)

    class Slow(Accepting):
        def submit(self, run: RunRecord) -> str:
            if len(published) == 1_500:
                timed.forward(50)
                done.append(relay.run_once().published)
            published.append(run.run_id)
            return run.run_id

    done: list[int] = []
    SyncDispatcher(Slow(), timed.ledger).submit_many([task_spec("work") for _ in range(1_600)])
    assert done == [100]  # those that the submitter had not come to
