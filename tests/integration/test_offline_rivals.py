"""Rows that others write into the target while an offline load has its indexes away: ours give way, theirs stay."""

from __future__ import annotations

from tests import legacy
from tests.database import Database

_FEED = "f0000000-0000-4000-8000-000000000001"


def _rivals(old: legacy.Legacy) -> list[tuple[object, ...]]:
    return old.rows("SELECT name FROM runs WHERE metadata->>'migrated_from' IS DISTINCT FROM %s ORDER BY name",
                    "capture-spine/executions")  # fmt: skip


def test_rows_of_others_keep_their_place_when_the_indexes_are_built(database: Database) -> None:
    old = legacy.build(database.url)
    old.executions(1, idempotency_key="once")
    old.executions(2, status="running", feed_id=_FEED)
    old.executions(3)
    assert old.move(offline=True, limit=2, batch_rows=2).state == "limit"
    old.execute("INSERT INTO runs (kind, name, idempotency_key) VALUES ('task', 'application', 'once')")
    old.add("jobs", {"job_type": "job", "status": "processing", "feed_id": _FEED})
    assert old.move("jobs").clean
    outcome = old.move()
    assert (outcome.state, outcome.moved, outcome.quarantined) == ("done", 1, {"unique_conflict": 2})
    assert _rivals(old) == [("application",), ("job",)]
    taken = [(legacy.uuid(1), "uq_idempotency"), (legacy.uuid(2), "ix_runs_one_active_per_entity")]
    assert [(row[0], row[4]) for row in old.quarantine()] == taken
