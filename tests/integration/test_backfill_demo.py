"""The demonstration's ten years of history, moved whole: every awkward kind meets its documented fate."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import psycopg
import pytest

from spine_migrate.db import schema
from spine_migrate.demo.generate import generate
from tests.database import Database
from tests.legacy import Legacy, prove

ENTITIES = ("executions", "execution_events", "jobs")


def _demonstration(url: str) -> None:
    with psycopg.connect(url) as connection:
        generate(connection, executions=1500, jobs=400, seed=20261120)
    schema.upgrade(url)


@pytest.fixture
def history(database: Database) -> Legacy:
    database.arrange(_demonstration)
    return Legacy(database.url, database=database)


def fates(history: Legacy, entity: str) -> dict[str, str]:
    """What really became of each awkward row, in the words of the catalogue but for links."""
    found = history.rows(
        """SELECT a.source_key, coalesce('quarantined:' || q.reason, 'moved')
             FROM spine_demo.awkward_row a
             JOIN spine_migrate.migration m ON m.mapping = 'capture-spine/' || a.entity
             LEFT JOIN spine_migrate.quarantine q USING (migration_id, source_key)
            WHERE a.entity = %s""",
        entity,
    )
    return dict(found)


def links_of(history: Legacy) -> dict[str, str]:
    return dict(history.rows("SELECT target_key, state FROM spine_migrate.link"))


@pytest.mark.parametrize("workers", [1, 4])
def test_every_awkward_row_meets_its_documented_fate(history: Legacy, workers: int) -> None:
    outcomes = [history.move(entity, workers=workers, batch_rows=97) for entity in ENTITIES]

    assert [outcome.state for outcome in outcomes] == ["done"] * 3
    links = links_of(history)
    for entity in ENTITIES:
        became = fates(history, entity)
        contested: Counter[str] = Counter()
        kept: Counter[str] = Counter()
        for kind, key, fate in history.rows(
            "SELECT kind, source_key, fate FROM spine_demo.awkward_row WHERE entity = %s", entity
        ):
            promised, _, detail = fate.partition(":")
            if promised == "one_moves":
                assert became[key] in ("moved", f"quarantined:{detail}"), (kind, key)
                contested[kind] += 1
                kept[kind] += became[key] == "moved"
            elif promised == "quarantined":
                assert became[key] == fate, (kind, key)
            else:
                assert became[key] == "moved", (kind, key)
            if detail.startswith("link_"):
                assert links[key] == detail.removeprefix("link_"), (kind, key)
        assert all(0 < kept[kind] < contested[kind] for kind in contested)
    with history.connect() as connection:
        prove(connection, *ENTITIES)


def test_of_the_contenders_for_one_key_exactly_one_moves(history: Legacy) -> None:
    history.move("executions", workers=2, batch_rows=50)

    groups = history.rows("""
        SELECT e.idempotency_key, count(*) FILTER (WHERE r.run_id IS NOT NULL)
          FROM executions e LEFT JOIN runs r ON r.run_id = e.execution_id
         WHERE e.idempotency_key IN (SELECT idempotency_key FROM executions GROUP BY 1 HAVING count(*) > 1)
         GROUP BY 1
    """)
    assert groups
    assert {count for _, count in groups} == {1}
    active = history.rows("""
        SELECT feed_id, count(*) FILTER (WHERE r.run_id IS NOT NULL)
          FROM executions e LEFT JOIN runs r ON r.run_id = e.execution_id
         WHERE e.status IN ('pending', 'queued', 'running') AND feed_id IS NOT NULL
         GROUP BY 1 HAVING count(*) > 1
    """)
    assert active
    assert {count for _, count in active} == {1}


def test_after_every_batch_each_row_is_moved_quarantined_or_ahead(history: Legacy) -> None:
    """Invariant 1, read from the ledger alone after each limited run: what is counted is what is there."""
    while True:
        outcome = history.move("executions", workers=2, batch_rows=60, limit=333)
        in_target = history.value("SELECT count(*) FROM runs")
        held = history.value("SELECT count(*) FROM spine_migrate.quarantine")
        counted = history.rows(
            "SELECT sum(rows_moved), sum(rows_adopted), sum(rows_quarantined) FROM spine_migrate.checkpoint"
        )
        assert counted == [(in_target, 0, held)]
        assert outcome.moved == in_target
        assert sum(outcome.quarantined.values()) == held
        if outcome.state == "done":
            break
    assert in_target + held == outcome.source_rows
    history.prove("executions")


def test_progress_ends_exactly_where_the_table_ends(history: Legacy) -> None:
    history.move("executions", workers=2, batch_rows=100)

    seen = [progress for progress in history.progress if progress.stage == "backfill"]
    assert seen[-1].blocks == seen[-1].total_blocks
    assert seen[-1].rows == history.value("SELECT count(*) FROM executions")
    assert all(a.blocks <= b.blocks for a, b in pairwise(seen))
    assert seen[0].seconds_left is None or seen[0].seconds_left >= 0


def test_a_quarantined_row_is_kept_whole(history: Legacy) -> None:
    history.move("executions")

    with psycopg.connect(history.url) as connection:
        changed = connection.execute("""
            SELECT q.source_key FROM spine_migrate.quarantine q
              JOIN executions e ON e.execution_id::text = q.source_key
             WHERE q.source_row::jsonb IS DISTINCT FROM to_jsonb(e)
        """).fetchall()
    assert changed == []
