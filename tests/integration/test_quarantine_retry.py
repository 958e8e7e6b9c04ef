"""Retrying quarantined rows: mended rows and mappings, what follows from them, what is refused again, what is gone."""

from __future__ import annotations

import threading
from typing import LiteralString

import pytest

from spine_migrate.backfill import release, retry
from spine_migrate.backfill.pace import Progress
from spine_migrate.backfill.quarantine import Selected
from spine_migrate.mapping.load import load
from tests.database import Database
from tests.legacy import Legacy, build, prove, uuid
from tests.retrying import account, again

EVENTS = "INSERT INTO execution_events (event_id, execution_id, event_type) VALUES (%s, %s, 'created')"


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def test_a_mended_row_moves_and_leaves_quarantine(legacy: Legacy) -> None:
    legacy.executions(1)
    legacy.executions(2, status="zombie")
    legacy.executions(3, status="stuck")
    legacy.move()
    legacy.execute("UPDATE executions SET status = 'failed' WHERE execution_id = %s", uuid(2))

    outcome = again(legacy)

    (result,) = outcome.migrations
    assert (result.selected, result.moved, dict(result.refused), outcome.clean) == (2, 1, {"unknown_value": 1}, False)
    assert legacy.value("SELECT status FROM runs WHERE run_id = %s", uuid(2)) == "failed"
    assert legacy.rows("SELECT source_key, attempts FROM spine_migrate.quarantine") == [(uuid(3), 2)]
    assert account(legacy) == [(2, 2)]
    legacy.prove()


def test_what_is_refused_again_keeps_its_number_and_the_time_of_its_first_refusal(legacy: Legacy) -> None:
    legacy.executions(1, status="zombie")
    legacy.move()
    facts: LiteralString = "SELECT quarantine_id, created_at FROM spine_migrate.quarantine"
    before = legacy.rows(facts)
    legacy.execute("UPDATE executions SET status = NULL")

    again(legacy)
    again(legacy)

    assert legacy.rows(facts) == before
    assert legacy.rows("SELECT reason, attempts, updated_at > created_at FROM spine_migrate.quarantine") == [
        ("null_value", 3, True)
    ]
    assert legacy.value("SELECT source_row ->> 'status' FROM spine_migrate.quarantine") is None


def test_only_what_is_selected_is_tried(legacy: Legacy) -> None:
    legacy.executions(1, status="zombie")
    legacy.executions(2, status=None)
    legacy.executions(3, pipeline_name=None)
    legacy.move()
    legacy.execute("UPDATE executions SET status = 'failed', pipeline_name = 'mended'")

    by_reason = again(legacy, reasons=["unknown_value"])
    by_key = again(legacy, uuid(2), uuid(9))

    assert [one.moved for one in (*by_reason.migrations, *by_key.migrations)] == [1, 1]
    assert by_key.absent == [uuid(9)]
    assert legacy.rows("SELECT source_key FROM spine_migrate.quarantine") == [(uuid(3),)]


def test_events_of_an_execution_come_along(legacy: Legacy) -> None:
    """Also those of several batches; events that have a reason of their own, or another parent, stay."""
    legacy.executions(1)
    legacy.executions(2, 3, status="zombie")
    for number, execution in enumerate([1, 2, 2, 3], start=101):
        legacy.execute(EVENTS, uuid(number), uuid(execution))
    legacy.execute(
        "INSERT INTO execution_events (event_id, execution_id, event_type) VALUES (%s, %s, 'odd')", uuid(110), uuid(1)
    )
    legacy.move()
    legacy.move("execution_events")
    legacy.execute("UPDATE executions SET status = 'failed' WHERE execution_id = %s", uuid(2))

    outcome = again(legacy, mappings=["capture-spine/executions"])

    assert [(one.follows, one.selected, one.moved) for one in outcome.migrations] == [(False, 2, 1), (True, 2, 2)]
    assert [row[:2] for row in legacy.quarantine()] == [
        (uuid(3), "unknown_value"),
        (uuid(104), "parent_quarantined"),
        (uuid(110), "unknown_value"),
    ]
    assert account(legacy) == [(2, 2), (3, 4)]
    legacy.prove("executions", "execution_events")


def test_a_retry_that_was_killed_before_the_events_is_made_good_by_the_next(legacy: Legacy) -> None:
    """Nothing is left to retry of the executions themselves, and yet their events come along."""
    legacy.executions(1, status="zombie")
    legacy.execute(EVENTS, uuid(101), uuid(1))
    legacy.move()
    legacy.move("execution_events")
    legacy.execute("UPDATE executions SET status = 'failed'")
    stop = threading.Event()
    retry.retry(
        legacy.url,
        Selected(None, None),
        mappings=[load("capture-spine/executions")],
        options=retry.Options(),
        stop=stop,
        report=lambda _: stop.set(),
    )
    assert [row[1] for row in legacy.quarantine()] == ["parent_quarantined"]

    outcome = again(legacy, mappings=["capture-spine/executions"])

    assert [(one.follows, one.selected, one.moved) for one in outcome.migrations] == [(False, 0, 0), (True, 1, 1)]
    assert legacy.quarantine() == []


def test_links_that_waited_for_a_retried_row_are_completed(legacy: Legacy) -> None:
    legacy.executions(1, status="zombie", parent_execution_id=uuid(3))
    legacy.executions(2, parent_execution_id=uuid(1))
    legacy.executions(3)
    legacy.move()
    assert legacy.rows("SELECT target_key, state FROM spine_migrate.link") == [(uuid(2), "waiting")]
    legacy.execute("UPDATE executions SET status = 'failed' WHERE execution_id = %s", uuid(1))

    outcome = again(legacy)

    assert outcome.migrations[0].links.completed == 1
    assert legacy.rows("SELECT run_id::text, parent_run_id::text FROM runs ORDER BY 1") == [
        (uuid(1), uuid(3)),
        (uuid(2), uuid(1)),
        (uuid(3), None),
    ]
    legacy.prove()


def test_a_source_row_that_is_gone_is_told_and_kept_or_discarded(legacy: Legacy) -> None:
    legacy.executions(1, 2, status="zombie")
    legacy.move()
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(1))

    kept = again(legacy)
    assert (kept.migrations[0].gone_keys, kept.migrations[0].remaining, kept.clean) == ([uuid(1)], 2, False)
    legacy.execute("DELETE FROM executions")
    discarded = again(legacy, discard_gone=True)

    assert (discarded.migrations[0].gone, discarded.migrations[0].discarded, discarded.clean) == (2, 2, True)
    assert legacy.rows("SELECT attempts, discarded_by = session_user FROM spine_migrate.quarantine ORDER BY 1") == [
        (1, True),
        (2, True),
    ]
    assert again(legacy).migrations[0].selected == 0


def test_the_row_that_stood_in_the_way_is_gone_and_so_is_the_conflict(legacy: Legacy) -> None:
    legacy.executions(1, 2, idempotency_key="k")
    legacy.move()
    ((loser, kept),) = legacy.rows(
        "SELECT source_key, colliding_row ->> 'run_id' FROM spine_migrate.quarantine WHERE reason = 'unique_conflict'"
    )
    assert {loser, kept} == {uuid(1), uuid(2)}
    legacy.execute("UPDATE executions SET idempotency_key = 'other' WHERE execution_id = %s", loser)

    assert again(legacy).clean
    legacy.prove()


def test_the_server_refuses_one_row_and_its_neighbours_move(legacy: Legacy) -> None:
    """Halving, as in the scan; the row that is refused keeps the server's words."""
    legacy.many_executions(40)
    legacy.execute("UPDATE executions SET status = 'zombie'")
    legacy.move()
    legacy.execute("UPDATE executions SET status = 'failed'")
    legacy.execute("ALTER TABLE runs ADD CONSTRAINT odd CHECK (run_id <> '00000000-0000-4000-8000-000000000017')")

    outcome = again(legacy)

    assert (outcome.migrations[0].selected, outcome.migrations[0].moved) == (40, 39)
    assert legacy.quarantine() == [(uuid(17), "server_refused", None, "23514", "odd")]
    assert account(legacy) == [(39, 40)]


def test_batches_and_a_stop_between_them(legacy: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row is tried once although those that are refused stay; a stop loses nothing."""
    monkeypatch.setattr(release, "BATCH", 7)
    legacy.many_executions(50)
    legacy.execute("UPDATE executions SET status = 'zombie'")
    legacy.move()
    legacy.execute("UPDATE executions SET status = 'failed' WHERE right(execution_id::text, 1) < '5'")
    stop = threading.Event()
    seen: list[Progress] = []

    def report(progress: Progress) -> None:
        seen.append(progress)
        if len(seen) == 3:
            stop.set()

    first = retry.retry(legacy.url, Selected(), options=retry.Options(), stop=stop, report=report)
    assert (first.interrupted, first.migrations[0].selected) == (True, 21)
    held = legacy.value("SELECT count(*) FROM spine_migrate.quarantine")
    assert account(legacy) == [(50 - held, 50)]

    again(legacy)

    assert legacy.value("SELECT count(*) FROM spine_migrate.quarantine") == 25
    assert legacy.value("SELECT max(attempts) FROM spine_migrate.quarantine") == 3
    legacy.prove()


def test_a_retry_of_the_demonstration_changes_nothing_that_was_moved(database: Database) -> None:
    """Nothing was mended, so everything is refused again for the same reason, or moves because its rival left."""
    from spine_migrate.db import schema
    from spine_migrate.demo.generate import generate

    with database.connect() as connection:
        generate(connection, executions=1200, jobs=200, seed=7)
    database.arrange(schema.upgrade)
    history = Legacy(database.url)
    for entity in ("executions", "execution_events", "jobs"):
        history.move(entity)
    everything: LiteralString = (
        "SELECT (SELECT md5(string_agg(r::text, '' ORDER BY run_id)) FROM runs r),"
        " (SELECT md5(string_agg(e::text, '' ORDER BY event_id)) FROM run_events e),"
        " (SELECT md5(string_agg(source_key || reason, '' ORDER BY source_key)) FROM spine_migrate.quarantine)"
    )
    before = history.rows(everything)

    outcome = again(history)

    assert history.rows(everything) == before
    assert sum(one.selected for one in outcome.migrations) == history.value(
        "SELECT count(*) FROM spine_migrate.quarantine"
    )
    assert history.rows("SELECT DISTINCT attempts FROM spine_migrate.quarantine") == [(2,)]
    with history.connect() as connection:
        prove(connection, "executions", "execution_events", "jobs")
