"""A run that is given back waits again, and nothing of it is used up."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.execution import RunRecord, RunStatus, TransitionError, task_spec
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.ledgers.protocol import Ledger
from tests.database import Database


@pytest.fixture(params=["memory", "postgres"])
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    database: Database = request.getfixturevalue("database")
    database.arrange(schema.upgrade)
    with ConnectionPool(database.url, min_size=1) as pool:
        yield PostgresLedger(pool)


def submit(ledger: Ledger, key: str | None = None) -> str:
    return ledger.create(RunRecord(task_spec("x", {}, idempotency_key=key))).run_id


def test_attempts_and_retries_stay_as_they_were(ledger: Ledger) -> None:
    run_id = submit(ledger)
    claim = ledger.claim(run_id, "w", lease_seconds=60)
    postponed = ledger.postpone(run_id, "feed 7 is locked\0", in_seconds=0, fence=claim.fence)
    assert (postponed.status, postponed.attempt, postponed.error) == (RunStatus.PENDING, 1, None)
    event = ledger.events(run_id)[-1]
    assert event.event_type == "postponed"
    assert event.data == {"why": "feed 7 is locked\\x00", "attempt": 1, "in_seconds": 0}
    again = ledger.claim(run_id, "w", lease_seconds=60)
    assert again.fence > claim.fence
    assert again.retries_left == claim.retries_left
    assert again.run.attempt == 1


def test_it_is_not_due_before_its_time_and_published_after_it(ledger: Ledger) -> None:
    early, late = submit(ledger), submit(ledger)
    for run_id, seconds in ((early, 0.0), (late, 3600.0)):
        fence = ledger.claim(run_id, "w", lease_seconds=60).fence
        ledger.postpone(run_id, "locked", in_seconds=seconds, fence=fence)
    assert [run.run_id for run in ledger.publishable(10, again_in_seconds=60)] == [early]
    with pytest.raises(TransitionError, match="not due"):
        ledger.claim(late, "w", lease_seconds=60)


def test_only_who_has_the_claim_gives_it_back(ledger: Ledger) -> None:
    run_id = submit(ledger)
    fence = ledger.claim(run_id, "w", lease_seconds=60).fence
    with pytest.raises(TransitionError, match="claim of this worker is lost"):
        ledger.postpone(run_id, "locked", in_seconds=0, fence=fence - 1)
    ledger.complete(run_id, None, fence=fence)
    with pytest.raises(TransitionError, match="claim of this worker is lost"):
        ledger.postpone(run_id, "locked", in_seconds=0, fence=fence)


def test_a_cancellation_is_not_lost(ledger: Ledger) -> None:
    run_id = submit(ledger)
    fence = ledger.claim(run_id, "w", lease_seconds=60).fence
    assert ledger.cancel(run_id, "asked for").status == RunStatus.RUNNING
    with pytest.raises(TransitionError, match="to be cancelled"):
        ledger.postpone(run_id, "locked", in_seconds=0, fence=fence)
    with pytest.raises(TransitionError, match="to be cancelled"):
        ledger.try_again(run_id, "failed", None, in_seconds=0, fence=fence)
    assert ledger.renew(run_id, fence, lease_seconds=60)


def test_the_run_of_a_key_is_found(ledger: Ledger) -> None:
    key = str(uuid4())
    assert ledger.of_key(key) is None
    run_id = submit(ledger, key)
    found = ledger.of_key(key)
    assert found is not None
    assert found.run_id == run_id
