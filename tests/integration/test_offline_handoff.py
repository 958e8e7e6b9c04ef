"""The runtime's foreign key to runs: away for an offline load and built again as it was, with rows in it or without."""

from __future__ import annotations

from typing import LiteralString

import pytest

from spine_migrate.db import schema
from spine_migrate.errors import Refused
from tests.database import Database
from tests.legacy import Legacy, build, uuid

_FEED = "f0000000-0000-4000-8000-000000000001"
_KEY: LiteralString = (
    "SELECT pg_get_constraintdef(oid), convalidated FROM pg_constraint WHERE conrelid = 'run_handoff'::regclass"
    " AND contype = 'f'"
)
_WHOLE = [("FOREIGN KEY (run_id) REFERENCES runs(run_id) ON DELETE CASCADE", True)]
_HANDED: LiteralString = "SELECT run_id::text FROM run_handoff ORDER BY 1"


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def adopt(legacy: Legacy, number: int) -> None:
    legacy.execute(
        "INSERT INTO run_handoff (run_id, lane, due_at, retry_delay_seconds, retries_left)"
        " VALUES (%s, 'default', now(), 60, 0)",
        uuid(number),
    )


def begin(legacy: Legacy) -> None:
    """An offline load, cut short while the indexes and foreign keys are away."""
    assert legacy.rows(_KEY) == _WHOLE
    assert legacy.move(offline=True, limit=2, batch_rows=2).state == "limit"
    assert legacy.rows(_KEY) == []


@pytest.mark.parametrize("adopted", [(), (1, 2)])
def test_the_foreign_key_is_built_again(legacy: Legacy, adopted: tuple[int, ...]) -> None:
    legacy.executions(1, 2, 3)
    begin(legacy)
    for number in adopted:
        adopt(legacy, number)

    assert legacy.move().state == "done"

    assert legacy.rows(_KEY) == _WHOLE
    assert legacy.rows(_HANDED) == [(uuid(number),) for number in adopted]
    legacy.prove()


def test_a_handoff_whose_run_lost_its_place_is_named(legacy: Legacy) -> None:
    """It is nobody's to delete but who wrote it; without it the same command goes on."""
    legacy.execute("DROP INDEX ix_executions_one_active_per_feed")
    legacy.executions(1, 2, 3, status="running", feed_id=_FEED)
    begin(legacy)
    adopt(legacy, 1)
    adopt(legacy, 2)

    with pytest.raises(Refused, match="run_handoff_run_id_fkey cannot be built again") as refused:
        legacy.move()

    assert refused.value.precondition == "rows-of-others"
    assert '"public"."run_handoff"' in str(refused.value)
    assert len(legacy.rows(_HANDED)) == 2
    legacy.execute("DELETE FROM run_handoff WHERE run_id NOT IN (SELECT run_id FROM runs)")
    assert legacy.move().state == "done"
    assert legacy.rows(_KEY) == _WHOLE
    assert legacy.rows(_HANDED) == [(uuid(1),)]
    legacy.prove()


def test_rows_of_others_that_exclude_each_other_are_named(legacy: Legacy) -> None:
    legacy.executions(1, 2, 3)
    begin(legacy)
    legacy.execute(
        "INSERT INTO runs (kind, name, idempotency_key) SELECT 'task', 'theirs', 'once' FROM (VALUES (1), (2)) v"
    )

    with pytest.raises(Refused, match="uq_idempotency cannot be built again") as refused:
        legacy.move()

    assert refused.value.precondition == "rows-of-others"
    legacy.execute("DELETE FROM runs WHERE ctid = (SELECT max(ctid) FROM runs WHERE name = 'theirs')")
    assert legacy.move().state == "done"


def test_the_runtimes_tables_wait_for_the_load_to_end(legacy: Legacy) -> None:
    """Their foreign key needs the key that is away."""
    schema.downgrade(legacy.url, revision="spine_0003")
    legacy.executions(1, 2, 3)
    assert legacy.move(offline=True, limit=2, batch_rows=2).state == "limit"

    with pytest.raises(Refused, match="offline load") as refused:
        schema.upgrade(legacy.url)

    assert refused.value.precondition == "keys-there"
    assert legacy.move().state == "done"
    schema.upgrade(legacy.url)
    assert legacy.rows(_KEY) == _WHOLE
