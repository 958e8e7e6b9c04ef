"""Sizes of tables, batches and crews of workers, the row limit, and the end of a run."""

from __future__ import annotations

import threading

import pytest

from tests.database import Database
from tests.legacy import Legacy, build, uuid


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def swept(legacy: Legacy) -> int:
    """Rows that were not met by the scan of any segment."""
    return int(
        legacy.value("SELECT sum(rows_moved + rows_quarantined) FROM spine_migrate.checkpoint WHERE segment < 0")
    )


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("entity", ["executions", "jobs"])
def test_an_empty_table_is_done_at_once(legacy: Legacy, entity: str, workers: int) -> None:
    outcome = legacy.move(entity, workers=workers)

    assert (outcome.state, outcome.rows, outcome.source_rows, outcome.clean) == ("done", 0, 0, True)
    assert legacy.move(entity).state == "nothing-to-do"


def test_one_row(legacy: Legacy) -> None:
    legacy.executions(1)

    outcome = legacy.move()

    assert (outcome.state, outcome.rows, outcome.moved) == ("done", 1, 1)
    legacy.prove()


@pytest.mark.parametrize("batch_rows", [1, 7, None])
def test_a_table_of_rejects_only(legacy: Legacy, batch_rows: int | None) -> None:
    legacy.executions(*range(1, 40), status="zombie")

    outcome = legacy.move(batch_rows=batch_rows, workers=2)

    assert (outcome.state, outcome.moved, outcome.quarantined) == ("done", 0, {"unknown_value": 39})
    assert not outcome.clean
    assert legacy.value("SELECT count(*) FROM runs") == 0
    legacy.prove()


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("batch_rows", [7, 1000, None])
def test_many_blocks(legacy: Legacy, batch_rows: int | None, workers: int) -> None:
    legacy.many_executions(3000)

    outcome = legacy.move(batch_rows=batch_rows, workers=workers)

    assert (outcome.state, outcome.rows, outcome.moved) == ("done", 3000, 3000)
    if batch_rows is not None:
        assert outcome.batches >= 3000 / batch_rows
    assert swept(legacy) == 0, "the scan alone meets every row"
    legacy.prove()


def test_batches_of_one_row(legacy: Legacy) -> None:
    legacy.many_executions(120)
    legacy.executions(500, status="zombie")
    legacy.many_executions(30, first=600)

    assert legacy.move(batch_rows=1, workers=2).moved == 150
    legacy.prove()


def test_blocks_without_live_rows_are_passed_over(legacy: Legacy) -> None:
    legacy.many_executions(4000)
    legacy.execute("DELETE FROM executions WHERE execution_id NOT IN (SELECT max(execution_id::text)::uuid"
                   " FROM executions)")  # fmt: skip

    outcome = legacy.move(batch_rows=10)

    assert (outcome.state, outcome.moved) == ("done", 1)
    assert swept(legacy) == 0
    legacy.prove()


@pytest.mark.parametrize("workers", [1, 3])
def test_the_limit_is_exact_and_the_next_run_goes_on(legacy: Legacy, workers: int) -> None:
    legacy.many_executions(1000)
    legacy.executions(*range(2001, 2011), status="zombie")
    moved = 0
    states = []
    for _ in range(20):
        outcome = legacy.move(limit=137, workers=workers, batch_rows=50)
        states.append(outcome.state)
        accounted = outcome.moved + sum(outcome.quarantined.values())
        assert outcome.rows == accounted - moved <= 137
        assert outcome.rows == 137 or outcome.state == "done"
        moved = accounted
        if outcome.state == "done":
            break

    assert states == ["limit"] * 7 + ["done"]
    legacy.prove()


def test_a_limit_of_exactly_the_rows_there_are_loses_nothing(legacy: Legacy) -> None:
    legacy.many_executions(50)

    assert legacy.move(limit=50).moved == 50
    assert legacy.move(limit=50).state in ("done", "nothing-to-do")
    legacy.prove()


def test_the_limit_holds_for_rows_that_the_scan_cannot_meet_any_more(legacy: Legacy) -> None:
    """A rewritten table leaves everything to the sweep; a limit is a limit there too."""
    legacy.many_executions(300)
    legacy.move(limit=20, batch_rows=20)
    legacy.execute("VACUUM FULL executions")

    outcome = legacy.move(limit=50)

    assert (outcome.state, outcome.rows, outcome.moved) == ("limit", 50, 70)
    assert legacy.move().state == "done"
    legacy.prove()


def test_stop_ends_after_the_batch_and_the_next_run_resumes(legacy: Legacy) -> None:
    legacy.many_executions(1000)
    stop = threading.Event()

    outcome = legacy.move(batch_rows=100, stop=stop, report=lambda _: stop.set())

    assert (outcome.state, outcome.rows, outcome.moved) == ("interrupted", 100, 100)
    assert legacy.move(batch_rows=100).rows == 900
    legacy.prove()


def test_stop_before_the_first_batch_moves_nothing(legacy: Legacy) -> None:
    legacy.many_executions(10)
    stop = threading.Event()
    stop.set()

    assert (legacy.move(stop=stop).state, legacy.value("SELECT count(*) FROM runs")) == ("interrupted", 0)
    assert legacy.move().state == "done"
    legacy.prove()


def test_a_run_after_the_last_says_that_there_is_nothing_to_do(legacy: Legacy) -> None:
    legacy.many_executions(10)
    first = legacy.move()

    again = legacy.move()

    assert (again.state, again.rows, again.moved) == ("nothing-to-do", 0, first.moved)
    assert again.migration_id == first.migration_id


def test_all_entities_share_one_target(legacy: Legacy) -> None:
    legacy.many_executions(100)
    legacy.add(
        "execution_events",
        *({"event_id": uuid(n), "execution_id": uuid(n), "event_type": "started"} for n in range(1, 60)),
    )
    legacy.add("jobs", *({"job_type": "mail", "status": "done", "priority": n % 10} for n in range(70)))

    for entity in ("executions", "execution_events", "jobs"):
        assert legacy.move(entity, workers=2, batch_rows=13).clean

    legacy.prove("executions", "execution_events", "jobs")
