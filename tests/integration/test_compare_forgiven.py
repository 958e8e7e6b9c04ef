"""How many legacy rows lost something for good, by rule and by dropped column."""

from __future__ import annotations

from pathlib import Path

import pytest

from spine_migrate.db.connect import connect
from spine_migrate.mapping.load import find
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Verdict
from tests.comparing import both_methods, by_method
from tests.database import Database
from tests.legacy import Legacy, arranged, build

pytestmark = both_methods


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    """Jobs in local time of New York, without their errors, and with priorities that come back as one of several."""
    text = find("capture-spine/jobs").read_text(encoding="utf-8")
    zone = 'zone = "America/New_York"\nlossy = "one hour of the year does not come back"'
    text = text.replace('zone = "UTC"', zone)
    text = text.replace('[fields.error]\ncopy = "error_message"\n', "")
    text = text.replace('keep = "metadata.legacy.priority"', 'lossy = "ten priorities become five"')
    text += '\n[dropped]\nerror_message = "nobody reads it"\n'
    file = tmp_path / "our-app" / "jobs.toml"
    file.parent.mkdir()
    file.write_text(text, encoding="utf-8")
    return file


def test_every_rule_that_loses_is_counted(database: Database, mapping: Path) -> None:
    legacy = build(database)
    ordinary = {"job_type": "ocr", "status": "done", "created_at": "2024-01-01"}
    legacy.add(
        "jobs",
        {**ordinary, "job_id": 1, "priority": 0, "error_message": "one"},
        {**ordinary, "job_id": 2, "priority": 1, "error_message": "two"},
        {**ordinary, "job_id": 3, "priority": 8, "created_at": "2024-03-10 02:30:00"},
        {**ordinary, "job_id": 4, "priority": 1, "error_message": "in quarantine", "status": "limbo"},
        {**ordinary, "job_id": 5, "priority": None, "created_at": "294276-12-31 23:59:59"},
        {**ordinary, "job_id": 6, "priority": 5, "error_message": ""},
    )
    legacy.move("jobs", mapping=str(mapping))
    with connect(legacy.url) as connection:
        (comparison,) = compare(connection, [str(mapping)], by_method()).comparisons
    assert comparison.verdict is Verdict.EQUAL, comparison.reasons
    assert [(one.what, one.rule.field if one.rule else None, one.rows) for one in comparison.forgiven] == [
        ("error_message is dropped: nobody reads it", None, 3),
        ("ten priorities become five", "priority", 2),
        ("one hour of the year does not come back", "created_at", 1),
        ("one hour of the year does not come back", "started_at", 0),
        ("one hour of the year does not come back", "completed_at", 0),
    ]


def test_a_mapping_that_loses_nothing_forgives_nothing(legacy: Legacy) -> None:
    with connect(legacy.url) as connection:
        (comparison,) = compare(connection, options=by_method()).comparisons
    assert comparison.forgiven == []


@arranged
def legacy(old: Legacy) -> None:
    old.executions(1, 2)
    old.move()
