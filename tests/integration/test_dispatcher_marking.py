"""Runs whose submitter does not wait for the mark that they were published."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from psycopg_pool import ConnectionPool

from spine_migrate.execution import BackendError, RunRecord, RunStatus, SyncDispatcher
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.publishing import PUBLISH_GRACE
from spine_migrate.execution.relay import Relay
from tests.carrier import Carrier, found, types
from tests.celery_worker import REPOSITORY
from tests.ledgers import Timed
from tests.waiting import until

_SUBMITTER = """
import os, sys, threading
from psycopg_pool import ConnectionPool
from spine_migrate.execution import SyncDispatcher
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from tests.carrier import Carrier

pool = ConnectionPool(sys.argv[1], min_size=1, open=True)
if sys.argv[2] == "child":
    pool.wait()
ledger = PostgresLedger(pool)
if sys.argv[2] == "killed":
    # However long it takes to get killed, nothing is marked before.
    ledger.mark_many_queued = lambda *_, **__: threading.Event().wait()
dispatcher = SyncDispatcher(Carrier(), ledger, mark_later=True)
if sys.argv[2] == "child":
    dispatcher.submit_task("before")
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(dispatcher.submit_task("work"), flush=True)
if sys.argv[2] == "killed":
    os._exit(0)
"""


class _Gated(PostgresLedger):
    """Marks once it may; ``marked`` has how many runs came together, ``failed`` what their marks have raised."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        super().__init__(pool)
        self.gate = threading.Event()
        self.marked: list[int] = []
        self.failed: list[Exception] = []

    def mark_many_queued(
        self, published: Sequence[tuple[RunRecord, str]], executor_name: str, *, claim_within_seconds: float
    ) -> int:
        assert self.gate.wait(60)
        self.marked.append(len(published))
        try:
            return super().mark_many_queued(published, executor_name, claim_within_seconds=claim_within_seconds)
        except Exception as error:
            self.failed.append(error)
            raise


def test_nobody_waits_and_many_are_marked_together(ledger_pool: ConnectionPool[Any], postgres: Timed) -> None:
    ledger, carrier = _Gated(ledger_pool), Carrier()
    dispatcher = SyncDispatcher(carrier, ledger, mark_later=True)
    ids = [dispatcher.submit_task("work") for _ in range(5)]
    assert carrier.taken == ids
    assert [run.status for run in dispatcher.get_runs(ids)] == [RunStatus.PENDING] * 5
    ledger.gate.set()
    for run_id in ids:
        _queued(dispatcher, run_id)
        assert types(dispatcher, run_id) == ["created", "queued"]
    # The first may have been on its way alone.
    assert sum(ledger.marked) == 5
    assert len(ledger.marked) <= 2


def test_the_relay_leaves_them_alone_meanwhile(ledger_pool: ConnectionPool[Any], postgres: Timed) -> None:
    ledger, carrier = _Gated(ledger_pool), Carrier()
    dispatcher = SyncDispatcher(carrier, ledger, mark_later=True)
    run_id = dispatcher.submit_task("work")
    Relay(ledger, carrier).run_once()
    assert carrier.taken == [run_id]
    ledger.gate.set()
    # To the end: the next test empties the tables.
    _queued(dispatcher, run_id)


def test_what_cannot_be_published_is_told_at_once(dispatcher: SyncDispatcher, carrier: Carrier) -> None:
    later = SyncDispatcher(carrier, dispatcher.ledger, mark_later=True)
    carrier.fault = BackendError("The broker is away.")
    run_id = later.submit_task("work")
    assert found(later, run_id).status is RunStatus.PENDING
    assert types(later, run_id) == ["created", "alert_triggered"]


def test_a_mark_that_fails_leaves_the_next_ones_alone(ledger_pool: ConnectionPool[Any], postgres: Timed) -> None:
    """Whatever the reason is: here, a table that is not there for a moment."""
    ledger, carrier = _Gated(ledger_pool), Carrier()
    dispatcher = SyncDispatcher(carrier, ledger, mark_later=True)
    unmarked = dispatcher.submit_task("work")
    with ledger_pool.connection() as connection:
        connection.execute("ALTER TABLE run_events RENAME TO elsewhere")
    ledger.gate.set()
    until(lambda: ledger.failed, "No mark has failed.")
    with ledger_pool.connection() as connection:
        connection.execute("ALTER TABLE elsewhere RENAME TO run_events")
    _queued(dispatcher, dispatcher.submit_task("work"))
    assert found(dispatcher, unmarked).status is RunStatus.PENDING
    postgres.forward(PUBLISH_GRACE)
    assert Relay(postgres.ledger, carrier).run_once().published == 1


@pytest.mark.parametrize("how", ["ends", "child"])
def test_a_process_that_ends_marks_what_is_left(ledger_pool: ConnectionPool[Any], postgres: Timed, how: str) -> None:
    run_id = _submitted(ledger_pool, how)
    run = found(SyncDispatcher(Carrier(), postgres.ledger), run_id)
    assert (run.status, run.external_ref) == (RunStatus.QUEUED, f"ref-{run_id}")


def test_what_a_killed_process_has_not_marked_is_published_again(
    ledger_pool: ConnectionPool[Any], postgres: Timed
) -> None:
    run_id, carrier = _submitted(ledger_pool, "killed"), Carrier()
    dispatcher = SyncDispatcher(carrier, postgres.ledger)
    assert found(dispatcher, run_id).status is RunStatus.PENDING
    postgres.forward(PUBLISH_GRACE)
    Relay(postgres.ledger, carrier).run_once()
    assert carrier.taken == [run_id]
    _queued(dispatcher, run_id)


def test_where_no_thread_can_be_started_the_submitter_marks(
    dispatcher: SyncDispatcher, carrier: Carrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    later = SyncDispatcher(carrier, dispatcher.ledger, mark_later=True)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert found(later, later.submit_task("work")).status is RunStatus.QUEUED


def _queued(dispatcher: SyncDispatcher, run_id: str) -> None:
    marked: Callable[[], bool] = lambda: found(dispatcher, run_id).external_ref == f"ref-{run_id}"  # noqa: E731
    until(marked, f"The run {run_id} is not marked.")
    assert found(dispatcher, run_id).status is RunStatus.QUEUED


def _submitted(pool: ConnectionPool[Any], how: str) -> str:
    """The id of a run of a process that has ended."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", _SUBMITTER, str(pool.conninfo), how],
        check=False, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.strip()
