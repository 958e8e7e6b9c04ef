"""A mended mapping is accepted for a retry where it leaves what was moved as it is."""

from __future__ import annotations

from pathlib import Path
from typing import LiteralString

import pytest

from spine_migrate.errors import Refused
from spine_migrate.mapping.load import load
from spine_migrate.resources import mappings_dir
from tests.database import Database
from tests.legacy import Legacy, build, uuid
from tests.retrying import again

# An undocumented status becomes known; what it was is kept for the way back.
ZOMBIE = {
    'failed = "failed"': 'failed = "failed"\nzombie = "failed"',
    '[fields.status]\ncopy = "status"': '[fields.status]\ncopy = "status"\nkeep = "metadata.legacy.status"',
}


@pytest.fixture
def legacy(database: Database) -> Legacy:
    return build(database)


def mended(folder: Path, changes: dict[str, str]) -> Path:
    """A copy of the shipped mapping for executions with some changes."""
    text = (mappings_dir() / "capture-spine" / "executions.toml").read_text(encoding="utf-8")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    file = folder / "capture-spine" / "executions.toml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_a_mended_mapping_is_accepted_where_it_leaves_moved_rows_as_they_are(legacy: Legacy, tmp_path: Path) -> None:
    legacy.executions(1, error_type="x" * 150, feed_id=uuid(7))
    legacy.executions(2, status="zombie", parent_execution_id=uuid(1))
    legacy.executions(3, parent_execution_id=uuid(2))
    legacy.move()
    file = mended(tmp_path, ZOMBIE)
    before = legacy.value("SELECT mapping_digest FROM spine_migrate.migration")
    with pytest.raises(Refused) as refused:
        again(legacy, mappings=[file])
    assert refused.value.precondition == "mapping-changed"

    outcome = again(legacy, mappings=[file], accept_mapping=True)

    assert outcome.clean
    assert [one.rows for one in outcome.accepted] == [2]
    assert legacy.value("SELECT mapping_digest FROM spine_migrate.migration") == load(str(file)).digest
    assert legacy.rows(
        "SELECT detail ->> 'before', detail ->> 'after' FROM spine_migrate.audit WHERE action = 'mapping accepted'"
    ) == [(before, load(str(file)).digest)]
    assert legacy.rows("SELECT status, parent_run_id::text FROM runs ORDER BY run_id") == [
        ("completed", None),
        ("failed", uuid(1)),
        ("completed", uuid(2)),
    ]
    assert legacy.move(mapping=str(file)).state == "nothing-to-do"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {'completed = "completed"': 'completed = "failed"', 'failed = "failed"': 'failed = "completed"'},
            "would become another row (status)",
        ),
        ({'constant = "normal"': 'constant = "high"'}, "would become another row (priority)"),
        ({"metadata.migrated_from": "metadata.origin"}, "0 are recognised"),
        (
            {
                '[fields.external_ref]\ncopy = "backend_task_id"\n': "",
                '[target]\ntable = "runs"': '[target]\ntable = "runs"\n[dropped]\nbackend_task_id = "not wanted"',
            },
            "a column that no rule of it writes",
        ),
    ],
)
def test_a_mapping_that_would_make_moved_rows_differently_is_not_accepted(
    legacy: Legacy, tmp_path: Path, changes: dict[str, str], why: str
) -> None:
    """The refusal names a row; nothing is changed, and the migration goes by the old mapping still."""
    legacy.executions(1, backend_task_id="t-1")
    legacy.executions(2, status="zombie")
    legacy.move()
    file = mended(tmp_path, changes)
    facts: LiteralString = "SELECT mapping_digest FROM spine_migrate.migration"
    before = legacy.rows(facts)

    with pytest.raises(Refused, match=r"not accepted") as refused:
        again(legacy, mappings=[file], accept_mapping=True)

    assert why in refused.value.sentence
    assert legacy.rows(facts) == before
    assert legacy.rows("SELECT attempts FROM spine_migrate.quarantine") == [(1,)]


def test_a_mapping_is_accepted_before_everything_is_moved(legacy: Legacy, tmp_path: Path) -> None:
    """Rows that the scan has not reached prove nothing and hinder nothing, also those that it will refuse."""
    legacy.many_executions(60)
    legacy.execute("UPDATE executions SET retry_count = 2147483647 WHERE right(execution_id::text, 1) = '9'")
    legacy.execute("UPDATE executions SET status = 'zombie' WHERE right(execution_id::text, 1) = '3'")
    assert legacy.move(batch_rows=10, limit=20).state == "limit"
    file = mended(tmp_path, ZOMBIE)

    again(legacy, mappings=[file], accept_mapping=True)

    outcome = legacy.move(mapping=str(file))
    assert (outcome.state, outcome.moved, outcome.quarantined) == ("done", 54, {"out_of_range": 6})


def test_a_changed_source_row_keeps_a_mapping_from_being_accepted(legacy: Legacy, tmp_path: Path) -> None:
    legacy.executions(1, 2)
    legacy.move()
    legacy.execute("UPDATE executions SET lane = 'fast' WHERE execution_id = %s", uuid(2))
    file = mended(tmp_path, ZOMBIE)

    with pytest.raises(Refused, match=uuid(2)):
        again(legacy, mappings=[file], accept_mapping=True)
