"""What an offline load builds at its end finds what the online load would have found row by row."""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString

import pytest

from spine_migrate.backfill.pace import Progress
from tests.legacy import Legacy, arranged, uuid

_FEED = "f0000000-0000-4000-8000-000000000001"
_LINKS: tuple[LiteralString, ...] = ("parent_run_id", "retry_of_run_id")


@arranged
def legacy(old: Legacy) -> None:
    """Links forward, backward, to a row in quarantine, to one that will lose its place in an index, to none at all."""
    old.executions(1, parent_execution_id=uuid(2))
    old.executions(2, status="zombie")
    old.executions(3, retry_of_execution_id=uuid(999))
    old.executions(4, parent_execution_id=uuid(1), retry_of_execution_id=uuid(999))
    old.executions(5, parent_execution_id=uuid(40))
    old.executions(6, status="running", feed_id=_FEED)
    old.execute("DROP INDEX ix_executions_one_active_per_feed")
    old.executions(7, status="running", feed_id=_FEED)
    old.executions(8, parent_execution_id=uuid(7), retry_of_execution_id=uuid(6))
    old.many_executions(30, first=11)


def _definitions(legacy: Legacy) -> list[tuple[object, ...]]:
    """Without the indexes' predicates, which the server spells otherwise once they were built from their own text."""
    return legacy.rows("""
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint
         WHERE 'runs'::regclass IN (conrelid, confrelid) AND contype IN ('p', 'u', 'f')
        UNION ALL
        SELECT indrelid::regclass::text, indexrelid::regclass::text,
               split_part(pg_get_indexdef(indexrelid), ' WHERE ', 1), indisvalid
          FROM pg_index WHERE indrelid = 'runs'::regclass
           AND indexrelid NOT IN (SELECT conindid FROM pg_constraint WHERE conrelid = 'runs'::regclass)
         ORDER BY 1, 2
    """)


def _unchecked(legacy: Legacy) -> None:
    for column in _LINKS:
        legacy.execute(f"ALTER TABLE runs DROP CONSTRAINT runs_{column}_fkey")
        legacy.execute(f"ALTER TABLE runs ADD CONSTRAINT {column} FOREIGN KEY ({column}) REFERENCES runs NOT VALID")


def _absent(legacy: Legacy) -> None:
    for column in _LINKS:
        legacy.execute(f"ALTER TABLE runs DROP CONSTRAINT runs_{column}_fkey")


def _as_they_are(_: Legacy) -> None: ...


@pytest.mark.parametrize("foreign_keys", [_as_they_are, _unchecked, _absent])
def test_links_that_lead_nowhere_are_cut_and_remembered(legacy: Legacy, foreign_keys: Callable[[Legacy], None]) -> None:
    foreign_keys(legacy)
    before = _definitions(legacy)

    outcome = legacy.move(offline=True, workers=2, batch_rows=5)

    assert outcome.state == "done"
    assert (outcome.links.waiting, outcome.links.broken) == (2, 2)
    assert outcome.quarantined == {"unknown_value": 1, "unique_conflict": 1}
    assert _definitions(legacy) == before
    legacy.prove()


@pytest.mark.parametrize("orphans", [0, 3])
def test_events_without_an_execution(legacy: Legacy, orphans: int) -> None:
    legacy.execute("ALTER TABLE execution_events DROP CONSTRAINT execution_events_execution_id_fkey")
    keys = [*range(11, 41), *range(900, 900 + orphans)]
    rows = ({"event_id": uuid(5000 + n), "execution_id": uuid(n), "event_type": "started"} for n in keys)
    legacy.add("execution_events", *rows)
    legacy.move(offline=True)

    outcome = legacy.move("execution_events", offline=True)

    assert (outcome.moved, outcome.quarantined) == (30, {"orphan": orphans} if orphans else {})
    legacy.prove("executions", "execution_events")


def test_cut_short_before_each_object_and_gone_on(legacy: Legacy) -> None:
    before = _definitions(legacy)
    assert legacy.move(offline=True, limit=20).state == "limit"
    stages: list[str] = []

    def fail_at_next(progress: Progress) -> None:
        if progress.stage.startswith("building ") and progress.stage not in stages:
            stages.append(progress.stage)
            raise InterruptedError(progress.stage)

    for _ in before:
        with pytest.raises(InterruptedError):
            legacy.move(report=fail_at_next)
    outcome = legacy.move(report=fail_at_next)

    assert (outcome.state, len(stages)) == ("done", len(before))
    assert (outcome.links.waiting, outcome.links.broken) == (2, 2)
    assert _definitions(legacy) == before
    legacy.prove()
