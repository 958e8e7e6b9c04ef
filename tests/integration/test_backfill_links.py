"""Links to other rows of the same table: wherever the row they name stands, and whenever it arrives."""

from __future__ import annotations

import pytest

from spine_migrate.errors import Refused
from tests.database import Database
from tests.legacy import Legacy, build, uuid

CREW = pytest.mark.parametrize(("workers", "batch_rows"), [(1, None), (1, 1), (4, 3)])


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def parents(legacy: Legacy) -> dict[str, str | None]:
    return dict(legacy.rows("SELECT run_id::text, parent_run_id::text FROM runs"))


def records(legacy: Legacy) -> dict[tuple[str, str], str]:
    found = legacy.rows("SELECT target_key, field, state FROM spine_migrate.link")
    return {(key, field): state for key, field, state in found}


@CREW
def test_forward_backward_and_self(legacy: Legacy, workers: int, batch_rows: int | None) -> None:
    legacy.executions(1, parent_execution_id=uuid(900))
    legacy.many_executions(898, first=2)
    legacy.executions(900, parent_execution_id=uuid(1), retry_of_execution_id=uuid(450))
    legacy.executions(901, parent_execution_id=uuid(901))

    outcome = legacy.move(workers=workers, batch_rows=batch_rows)

    found = parents(legacy)
    assert (found[uuid(1)], found[uuid(900)], found[uuid(901)]) == (uuid(900), uuid(1), uuid(901))
    assert records(legacy) == {}
    assert (outcome.links.waiting, outcome.links.broken) == (0, 0)
    legacy.prove()


@CREW
def test_a_cycle_of_three(legacy: Legacy, workers: int, batch_rows: int | None) -> None:
    for number, parent in ((1, 200), (100, 1), (200, 100)):
        legacy.executions(number, parent_execution_id=uuid(parent))
        legacy.many_executions(50, first=1000 * number)

    legacy.move(workers=workers, batch_rows=batch_rows)

    found = parents(legacy)
    assert [found[uuid(n)] for n in (1, 100, 200)] == [uuid(200), uuid(1), uuid(100)]
    legacy.prove()


@CREW
def test_a_link_to_a_quarantined_row_waits_and_one_to_no_row_is_broken(
    legacy: Legacy, workers: int, batch_rows: int | None
) -> None:
    legacy.executions(1, parent_execution_id=uuid(2))
    legacy.executions(2, status="zombie")
    legacy.executions(3, retry_of_execution_id=uuid(999))
    # Beside a link that is completed, in the same row.
    legacy.executions(4, parent_execution_id=uuid(1), retry_of_execution_id=uuid(999))

    outcome = legacy.move(workers=workers, batch_rows=batch_rows)

    assert records(legacy) == {
        (uuid(1), "parent_run_id"): "waiting",
        (uuid(3), "retry_of_run_id"): "broken",
        (uuid(4), "retry_of_run_id"): "broken",
    }
    assert (outcome.links.waiting, outcome.links.broken) == (1, 2)
    assert parents(legacy)[uuid(4)] == uuid(1)
    legacy.prove()


def test_a_link_across_an_interruption_is_completed_by_the_next_run(legacy: Legacy) -> None:
    legacy.executions(1, parent_execution_id=uuid(500))
    legacy.many_executions(498, first=2)
    legacy.executions(500)
    legacy.move(limit=10)

    # Nothing is known yet of the row that the link names, so it must not be called broken.
    assert records(legacy) == {(uuid(1), "parent_run_id"): "waiting"}
    assert parents(legacy)[uuid(1)] is None

    legacy.move()

    assert parents(legacy)[uuid(1)] == uuid(500)
    assert records(legacy) == {}
    legacy.prove()


def test_more_links_than_one_round_completes(legacy: Legacy) -> None:
    legacy.many_executions(12_000)
    legacy.execute("""
        UPDATE executions SET parent_execution_id = ('00000000-0000-4000-8000-'
            || lpad(((right(execution_id::text, 6)::int + 5999) % 12000 + 1)::text, 12, '0'))::uuid
    """)

    outcome = legacy.move(batch_rows=100)

    assert outcome.links.completed > 5_000
    assert records(legacy) == {}
    legacy.prove()


def test_events_follow_their_execution(legacy: Legacy) -> None:
    legacy.executions(1)
    legacy.executions(2, status="zombie")
    legacy.execute("ALTER TABLE execution_events DROP CONSTRAINT execution_events_execution_id_fkey")
    legacy.add(
        "execution_events",
        *({"event_id": uuid(10 + n), "execution_id": uuid(n), "event_type": "started"} for n in (1, 2, 3)),
        {"event_id": uuid(20), "execution_id": uuid(2), "event_type": "nonsense"},
    )
    legacy.move()

    outcome = legacy.move("execution_events", workers=2)

    assert outcome.moved == 1
    held = {key: reason for key, reason, *_ in legacy.quarantine()}
    assert held == {
        uuid(2): "unknown_value",
        uuid(12): "parent_quarantined",
        uuid(13): "orphan",
        uuid(20): "unknown_value",
    }
    legacy.prove("executions", "execution_events")


@pytest.mark.parametrize("batch_rows", [1, 4, None])
def test_orphans_among_many_are_found_and_the_others_move(legacy: Legacy, batch_rows: int | None) -> None:
    legacy.many_executions(50)
    legacy.execute("ALTER TABLE execution_events DROP CONSTRAINT execution_events_execution_id_fkey")
    legacy.add(
        "execution_events",
        *({"event_id": uuid(n), "execution_id": uuid(n), "event_type": "started"} for n in range(1, 71)),
    )
    legacy.move()

    outcome = legacy.move("execution_events", batch_rows=batch_rows, workers=2)

    assert (outcome.moved, outcome.quarantined) == (50, {"orphan": 20})
    legacy.prove("executions", "execution_events")


@pytest.mark.parametrize("limit", [None, 1])
def test_events_are_refused_before_all_executions_are_done(legacy: Legacy, limit: int | None) -> None:
    legacy.many_executions(3)
    if limit:
        legacy.move(limit=limit)

    with pytest.raises(Refused, match="capture-spine/executions") as refused:
        legacy.move("execution_events")

    assert refused.value.precondition == "parent-missing"
    assert legacy.value("SELECT count(*) FROM spine_migrate.migration WHERE mapping LIKE '%events'") == 0
