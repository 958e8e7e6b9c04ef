"""What was injected into the target is found by its checks and its runs, and nothing else is."""

from __future__ import annotations

from typing import LiteralString

import pytest

from spine_migrate.parity.model import Verdict
from tests.lives import Moved, broken

# The statements, and the runs that each check finds.
DEFECTS: dict[str, tuple[LiteralString, dict[str, set[int]]]] = {
    "another type": (
        "UPDATE run_events SET event_type = 'heartbeat' WHERE event_id = event(1, 3)",
        {"sequence": {1}, "types": {1}},
    ),
    "a type that nobody knows": (
        "UPDATE run_events SET event_type = 'mystery' WHERE event_id = event(1, 3)",
        {"sequence": {1}, "types": {1}},
    ),
    "a lost event": (
        "DELETE FROM run_events WHERE event_id = event(1, 3)",
        {"sequence": {1}, "count": {1}, "types": {1}, "timestamps": {1}},
    ),
    "one microsecond": (
        "UPDATE run_events SET timestamp = timestamp + interval '1 us' WHERE event_id = event(1, 3)",
        {"timestamps": {1}},
    ),
    "a timestamp that is gone": (
        "UPDATE run_events SET timestamp = NULL WHERE event_id = event(1, 4)",
        {"timestamps": {1}},
    ),
    "swapped events": (
        """UPDATE run_events SET event_type = CASE event_type WHEN 'queued' THEN 'progress' ELSE 'queued'
           END WHERE run_id = run(1) AND event_type IN ('queued', 'progress')""",
        {"sequence": {1}, "gaps": {1}},
    ),
    "swapped events of one moment": (
        """UPDATE run_events SET event_type = CASE event_type WHEN 'heartbeat' THEN 'progress' ELSE
           'heartbeat' END WHERE run_id = run(5) AND event_type IN ('heartbeat', 'progress')""",
        {"sequence": {5}},
    ),
    "an event of another run": (
        "UPDATE run_events SET run_id = run(3) WHERE event_id = event(1, 3)",
        {"sequence": {1, 3}, "count": {1, 3}, "types": {1, 3}, "timestamps": {1, 3}},
    ),
    "a completion before the start": (
        """UPDATE run_events SET event_type = CASE event_type WHEN 'started' THEN 'completed' ELSE
           'started' END WHERE run_id = run(7) AND event_type IN ('started', 'completed')""",
        {"sequence": {7}, "gaps": {7}, "terminal": {7}, "started-first": {7}, "status-agrees": {7}, "times-agree": {7}},
    ),
    "all events": (
        "DELETE FROM run_events WHERE run_id = run(1)",
        {"sequence": {1}, "count": {1}, "types": {1}, "timestamps": {1}},
    ),
    "the event of the end": (
        "DELETE FROM run_events WHERE event_id = event(2, 2)",
        {"sequence": {2}, "count": {2}, "types": {2}, "timestamps": {2}, "gaps": {2}, "status-agrees": {2}},
    ),
    "somebody else's heartbeat after the end": (
        """INSERT INTO run_events (run_id, event_type, timestamp) VALUES (run(1), 'heartbeat',
           '2031-01-01')""",
        {"terminal": {1}},
    ),
    "somebody else's second start": (
        """INSERT INTO run_events (run_id, event_type, timestamp) VALUES (run(3), 'started', '2031-01-01')""",
        {"gaps": {3}, "times-agree": {3}},
    ),
    "somebody else's creation": (
        """INSERT INTO run_events (run_id, event_type, timestamp) VALUES (run(3), 'created', '2024-02-29
           12:00:30+00')""",
        {"started-first": {3}},
    ),
    "another status": (
        "UPDATE runs SET status = 'failed' WHERE run_id = run(1)",
        {"status-agrees": {1}},
    ),
    "another status of a run that had the wrong one": (
        "UPDATE runs SET status = 'cancelled' WHERE run_id = run(15)",
        {"status-agrees": {15}},
    ),
    "a start that no event knows": (
        "UPDATE runs SET started_at = created_at WHERE run_id = run(6)",
        {"gaps": {6}},
    ),
    "another end": (
        "UPDATE runs SET completed_at = completed_at + interval '1 microsecond' WHERE run_id = run(1)",
        {"times-agree": {1}},
    ),
    "another end of a run that had the wrong start": (
        "UPDATE runs SET completed_at = 'infinity' WHERE run_id = run(16)",
        {"times-agree": {16}},
    ),
    "events without a run": (
        """ALTER TABLE run_events DROP CONSTRAINT run_events_run_id_fkey; UPDATE run_events SET run_id =
           run(777) WHERE event_id = event(1, 3); INSERT INTO run_events (run_id, event_type) VALUES
           (run(778), 'created')""",
        {"sequence": {1, 777}, "count": {1, 777}, "types": {1, 777}, "timestamps": {1, 777}, "orphans": {777, 778}},
    ),
    "events of a run that is not ours": (
        "UPDATE runs SET metadata = metadata - 'migrated_from' WHERE run_id = run(9)",
        {"orphans": {9}},
    ),
    "an attempt too many in a chain": (
        "UPDATE runs SET attempt = 3 WHERE run_id = run(7)",
        {"attempts": {7}},
    ),
    "an attempt too few in a chain": (
        "UPDATE runs SET attempt = 1 WHERE run_id = run(7)",
        {"attempts": {7}},
    ),
    "another attempt than the history shows": (
        "UPDATE runs SET attempt = 1 WHERE run_id = run(8)",
        {"attempts": {8}},
    ),
    "another wrong attempt": (
        "UPDATE runs SET attempt = 9 WHERE run_id = run(19)",
        {"attempts": {19}},
    ),
    "a circle of parents": (
        "UPDATE runs SET parent_run_id = run(10) WHERE run_id = run(1)",
        {"parents": {1, 9, 10}},
    ),
    "a run that retries itself": (
        "UPDATE runs SET retry_of_run_id = run_id, attempt = 2 WHERE run_id = run(4)",
        {"parents": {4}, "attempts": {4}},
    ),
    "a parent that is not there": (
        """ALTER TABLE runs DROP CONSTRAINT runs_parent_run_id_fkey; UPDATE runs SET parent_run_id =
           run(777) WHERE run_id = run(10)""",
        {"parents": {10}},
    ),
    "one idempotency key for two": (
        """ALTER TABLE runs DROP CONSTRAINT uq_idempotency; UPDATE runs SET idempotency_key = 'k' WHERE
           run_id IN (run(1), run(2))""",
        {"idempotency": {1, 2}},
    ),
    "one entity for two active runs": (
        """DROP INDEX ix_runs_one_active_per_entity; UPDATE runs SET metadata = metadata || '{"entity_id":
           "00000000-0000-4000-8000-000000000901"}' WHERE run_id = run(4)""",
        {"one-active": {3, 4}},
    ),
    "one entity for our run and somebody else's": (
        """DROP INDEX ix_runs_one_active_per_entity; INSERT INTO runs (kind, name, metadata) SELECT 'task',
           'theirs', metadata - 'migrated_from' FROM runs WHERE run_id = run(3)""",
        {"one-active": {3}},
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found_by_its_checks_and_its_runs(moved_lives: Moved, defect: str) -> None:
    statements, expected = DEFECTS[defect]
    found = moved_lives.after(statements)
    assert broken(found) == expected
    assert found.verdict is Verdict.DIFFERENT


@pytest.mark.parametrize(
    "change",
    [
        # A failed run is retried by the runtime, and a run that was moved while it was pending is executed.
        """INSERT INTO run_events (run_id, event_type, timestamp, source)
           VALUES (run(2), 'retried', '2031-01-01', 'ledger')""",
        """WITH ended AS (UPDATE runs SET status = 'completed', started_at = '2031-01-01', completed_at = '2031-01-02'
                           WHERE run_id = run(4) RETURNING run_id)
           INSERT INTO run_events (run_id, event_type, timestamp, source)
           SELECT run_id, type, at::timestamptz, 'ledger' FROM ended, (VALUES ('queued', '2030-12-31'),
                  ('started', '2031-01-01'), ('completed', '2031-01-02')) AS e (type, at)""",
        # Runs and events of others.
        """WITH made AS (INSERT INTO runs (kind, name, status) VALUES ('task', 'theirs', 'completed') RETURNING run_id)
           INSERT INTO run_events (run_id, event_type) SELECT run_id, 'started' FROM made""",
    ],
)
def test_what_goes_on_lawfully_on_the_target_is_no_difference(moved_lives: Moved, change: LiteralString) -> None:
    found = moved_lives.after(change)
    assert (broken(found), found.verdict) == ({}, Verdict.EQUAL)
