"""Retries beside runs at work and beside each other, and a connection that is lost."""

from __future__ import annotations

import threading
from typing import LiteralString

import psycopg
import pytest

from spine_migrate.backfill import release, retry
from spine_migrate.backfill.pace import Progress
from spine_migrate.backfill.quarantine import Selected
from spine_migrate.errors import Refused
from tests.database import Database
from tests.legacy import Legacy, build, uuid
from tests.retrying import account, again

EVENTS = "INSERT INTO execution_events (event_id, execution_id, event_type) VALUES (%s, %s, 'created')"
KILL: LiteralString = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'spine-migrate'"
)


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


@pytest.mark.parametrize("entity", ["executions", "execution_events"])
def test_a_run_at_work_on_what_follows_too_refuses_the_retry(legacy: Legacy, entity: str) -> None:
    """Before the first row is touched."""
    legacy.executions(1, status="zombie")
    legacy.execute(EVENTS, uuid(101), uuid(1))
    legacy.move()
    legacy.move("execution_events")
    legacy.execute("UPDATE executions SET status = 'failed'")
    name = f'capture-spine/{entity}|"public"."{entity}"|"public"."{"runs" if entity == "executions" else "run_events"}"'

    with psycopg.connect(legacy.url) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended(%s, 7741))", (name,))
        with pytest.raises(Refused) as refused:
            again(legacy, mappings=["capture-spine/executions"])

    assert refused.value.precondition == "already-running"
    assert legacy.rows("SELECT DISTINCT attempts FROM spine_migrate.quarantine") == [(1,)]


def test_two_retries_at_once_move_each_row_once(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first, then finds nothing left."""
    monkeypatch.setattr(release, "BATCH", 10)
    legacy.many_executions(200)
    legacy.execute("UPDATE executions SET status = 'zombie'")
    legacy.move()
    legacy.execute("UPDATE executions SET status = 'failed'")
    outcomes: list[retry.Outcome] = []
    both = [threading.Thread(target=lambda: outcomes.append(again(legacy, wait=True))) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()

    assert sorted(outcome.migrations[0].moved for outcome in outcomes) == [0, 200]
    legacy.prove()


def test_a_lost_connection_is_outlived(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every session of the tool is ended in the middle; the rows and the figures are right all the same."""
    monkeypatch.setattr(release, "BATCH", 10)
    legacy.many_executions(60)
    legacy.execute("UPDATE executions SET status = 'zombie'")
    legacy.execute(EVENTS, uuid(101), uuid(60))
    legacy.move()
    legacy.move("execution_events")
    legacy.execute("UPDATE executions SET status = 'failed'")
    killed: list[bool] = []

    def report(progress: Progress) -> None:
        if progress.rows == 30:
            killed.extend(row[0] for row in legacy.rows(KILL))

    outcome = retry.retry(
        legacy.url, Selected(), options=retry.Options(retry_seconds=30), stop=threading.Event(), report=report
    )

    assert len(killed) > 1
    assert [(one.follows, one.moved) for one in outcome.migrations] == [(False, 60), (False, 1), (True, 0)]
    assert account(legacy) == [(60, 60), (1, 1)]
    legacy.prove("executions", "execution_events")
