"""A repair that removes many rows does not make the server look through the table once for each."""

from __future__ import annotations

import threading
from typing import LiteralString

import pytest

from spine_migrate.backfill import repair_rows
from spine_migrate.backfill.pace import Progress
from spine_migrate.backfill.repair import repair
from spine_migrate.backfill.repaired import Options
from spine_migrate.carry import references
from spine_migrate.db import catalog
from spine_migrate.db.connect import connect
from tests.database import Database
from tests.legacy import Legacy, build

INDEXES: LiteralString = "SELECT indexname::text FROM pg_indexes WHERE indexname LIKE 'spine_undo%' ORDER BY 1"


@pytest.fixture
def moved(database: Database, monkeypatch: pytest.MonkeyPatch) -> Legacy:
    """Forty executions of which the legacy rows are gone, in a table that counts as large."""
    monkeypatch.setattr(references, "SMALL_BYTES", 0)
    legacy = build(database)
    legacy.many_executions(50)
    legacy.move()
    legacy.execute("DELETE FROM executions WHERE right(execution_id::text, 2)::int > 10")
    return legacy


@pytest.mark.parametrize(("worth", "built"), [(39, 2), (40, 0)])
def test_indexes_are_built_for_many_rows_and_go_with_them(
    moved: Legacy, monkeypatch: pytest.MonkeyPatch, worth: int, built: int
) -> None:
    monkeypatch.setattr(repair_rows, "WORTH_INDEXES", worth)
    seen: list[int] = []

    def report(_: Progress) -> None:
        seen.append(len(moved.rows(INDEXES)))

    repair(moved.url, options=Options(batch_size=20), stop=threading.Event(), report=report)

    assert seen == [built, built]
    assert moved.value("SELECT count(*) FROM runs") == 10
    assert moved.rows(INDEXES) == []


def test_building_them_leaves_the_session_its_patience(moved: Legacy) -> None:
    """Without a lock_timeout the batches after it would wait for a lock as long as it takes."""
    with connect(moved.url, settings={"lock_timeout": "1234ms"}) as connection:
        references.serve(connection, catalog.find(connection, "runs", "public").oid)
        assert connection.execute("SHOW lock_timeout").fetchall() == [("1234ms",)]
    assert len(moved.rows(INDEXES)) == 2
