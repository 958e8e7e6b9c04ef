"""A part of the rows: a sample, since a time, by key. What differs in it is found, and agreement is never "equal"."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from spine_migrate.db.connect import connect
from spine_migrate.errors import ConfigurationError
from spine_migrate.parity.compare import compare
from spine_migrate.parity.evidence import Scope
from spine_migrate.parity.model import Comparison, Counts, Verdict
from spine_migrate.parity.options import Finding, Options
from tests.comparing import both_methods, by_method
from tests.database import Database
from tests.legacy import Legacy, arranged, build, uuid

EXECUTIONS, JOBS = "capture-spine/executions", "capture-spine/jobs"

pytestmark = both_methods


@arranged
def legacy(old: Legacy) -> None:
    """Five hundred executions, one for each day from 2024-01-01 on, the last two in quarantine."""
    old.many_executions(500)
    old.execute(
        """UPDATE executions SET created_at = '2024-01-01'::timestamptz + interval '1 day'
            * (right(execution_id::text, 12)::int - 1)"""
    )
    old.execute("UPDATE executions SET status = 'zombie' WHERE execution_id IN (%s, %s)", uuid(499), uuid(500))
    old.move()


def compared(legacy: Legacy, scope: Scope, name: str = EXECUTIONS) -> tuple[Comparison, Counts]:
    with connect(legacy.url) as connection:
        report = compare(connection, [name], by_method(Options(scope=scope)))
    (comparison,) = report.comparisons
    assert comparison.counts is not None
    assert comparison.scope == scope
    return comparison, comparison.counts


def since(day: int) -> Scope:
    return Scope(since=datetime(2024, 1, day, tzinfo=UTC))


def test_a_sample_that_agrees_is_not_equal(legacy: Legacy) -> None:
    comparison, counts = compared(legacy, Scope(sample=0.2))
    assert (comparison.verdict, [reason.code for reason in comparison.reasons]) == (Verdict.UNKNOWN, ["partial"])
    assert comparison.differences == []
    assert 50 <= counts.source_rows <= 150
    assert counts.source_rows == counts.matching + counts.quarantined
    assert counts.target_rows == counts.matching


def test_a_sample_is_always_the_same_and_a_larger_one_holds_a_smaller(legacy: Legacy) -> None:
    legacy.execute("UPDATE runs SET lane = 'touched'")
    keys = [
        {difference.key for difference in compared(legacy, Scope(sample=share))[0].differences}
        for share in (0.05, 0.05, 0.15)
    ]
    assert keys[0] == keys[1] < keys[2]


def test_a_sample_of_everything_finds_every_row(legacy: Legacy) -> None:
    legacy.execute("UPDATE runs SET lane = 'touched' WHERE run_id IN (%s, %s)", uuid(3), uuid(400))
    comparison, counts = compared(legacy, Scope(sample=1.0))
    assert comparison.verdict is Verdict.DIFFERENT
    assert {difference.key for difference in comparison.differences} == {uuid(3), uuid(400)}
    assert (counts.source_rows, counts.quarantined) == (500, 2)


def test_only_rows_since_the_bound_are_compared(legacy: Legacy) -> None:
    legacy.execute("UPDATE runs SET lane = 'touched' WHERE run_id IN (%s, %s)", uuid(9), uuid(10))
    legacy.execute("DELETE FROM runs WHERE run_id IN (%s, %s)", uuid(8), uuid(11))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(12))
    comparison, counts = compared(legacy, since(10))
    assert sorted((one.kind, one.target_key) for one in comparison.differences) == [
        ("extra", uuid(12)),
        ("field", uuid(10)),
        ("missing", uuid(11)),
    ]
    assert (counts.source_rows, counts.target_rows, counts.quarantined) == (490, 488, 2)


@pytest.mark.parametrize("table", ["runs", "executions"])
@pytest.mark.parametrize("shift", ["-20 days", "20 days"])
def test_a_time_that_moved_across_the_bound_is_one_difference_of_that_field(
    legacy: Legacy, table: str, shift: str
) -> None:
    """On one side only; the row is neither missing nor extra."""
    number = 15 if shift.startswith("-") else 5
    key = "run_id" if table == "runs" else "execution_id"
    with legacy.connect() as connection:
        connection.execute(
            f"UPDATE {table} SET created_at = created_at + %s::interval WHERE {key} = %s",  # noqa: S608 - literals
            (shift, uuid(number)),
        )
    comparison, counts = compared(legacy, since(10))
    assert [(one.kind, one.key, one.field) for one in comparison.differences] == [("field", uuid(number), "created_at")]
    assert (counts.missing, counts.extra, counts.differing) == (0, 0, 1)


def test_rows_by_key(legacy: Legacy) -> None:
    legacy.execute("UPDATE runs SET lane = 'touched' WHERE run_id IN (%s, %s)", uuid(9), uuid(10))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(12))
    comparison, counts = compared(legacy, Scope(keys=(uuid(9), uuid(11), uuid(12), uuid(499), uuid(9999))))
    assert sorted((one.kind, one.target_key) for one in comparison.differences) == [
        ("extra", uuid(12)),
        ("field", uuid(9)),
    ]
    assert (counts.source_rows, counts.target_rows, counts.matching, counts.quarantined) == (3, 3, 1, 1)
    comparison, _ = compared(legacy, Scope(keys=(uuid(11),)))
    assert comparison.verdict is Verdict.UNKNOWN


def test_keys_that_become_other_keys(database: Database) -> None:
    legacy = build(database)
    legacy.add(
        "jobs", *({"job_id": n, "job_type": "ocr", "status": "done", "created_at": "2024-01-01"} for n in (1, 2))
    )
    legacy.move("jobs")
    legacy.execute("UPDATE runs SET lane = 'touched'")
    legacy.execute("DELETE FROM jobs WHERE job_id = 2")
    comparison, _ = compared(legacy, Scope(keys=("1", "2")), JOBS)
    assert [(one.kind, one.key) for one in comparison.differences] == [("field", "1"), ("extra", None)]
    comparison, _ = compared(legacy, Scope(since=datetime(2023, 1, 1, tzinfo=UTC)), JOBS)
    assert [(one.kind, one.key) for one in comparison.differences] == [("field", "1"), ("extra", None)]


def test_what_is_no_key_is_a_usage_error(legacy: Legacy) -> None:
    with pytest.raises(ConfigurationError, match=r"execution_id is uuid"):
        compared(legacy, Scope(keys=("4711",)))


def test_a_method_that_was_asked_for_is_told(legacy: Legacy) -> None:
    comparison, _ = compared(legacy, Scope(sample=0.5))
    assert comparison.method is not None
    assert comparison.method.name == by_method().method.value
    with connect(legacy.url) as connection:
        (automatic,) = compare(connection, [EXECUTIONS], Options(method=Finding.AUTO)).comparisons
    assert automatic.method is not None
    assert automatic.method.name == "join"
    assert "fits into memory" in automatic.method.why
