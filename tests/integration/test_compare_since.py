"""What becomes of open links and of quarantine when the source, or the target, goes on after the move."""

from __future__ import annotations

import pytest

from spine_migrate.db.connect import connect
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Comparison, Counts, Verdict
from spine_migrate.parity.options import Options
from tests.comparing import both_methods, by_method
from tests.legacy import Legacy, arranged, uuid

pytestmark = both_methods

STALE = "recorded as open, but the row that it names is there by now; run the move again"


@arranged
def legacy(old: Legacy) -> None:
    """Two links that lead nowhere, one to a row in quarantine, two rows in quarantine."""
    old.executions(1, parent_execution_id=uuid(50), retry_of_execution_id=uuid(51))
    old.executions(2, parent_execution_id=uuid(3))
    old.executions(3, 4, status="zombie")
    old.executions(5)
    old.move()


def compared(legacy: Legacy) -> tuple[Comparison, Counts]:
    with connect(legacy.url) as connection:
        (comparison,) = compare(connection, options=by_method()).comparisons
    assert comparison.counts is not None
    assert all(equation.holds for equation in comparison.equations), comparison.equations
    return comparison, comparison.counts


def found(comparison: Comparison) -> list[tuple[str, str | None, str | None, str | None, str | None]]:
    assert comparison.differences_total == len(comparison.differences)
    return [(one.kind, one.key, one.field, one.old, one.note) for one in comparison.differences]


def test_links_that_lead_nowhere_are_equal(legacy: Legacy) -> None:
    comparison, counts = compared(legacy)
    assert (comparison.verdict, counts.matching, counts.quarantined, counts.gone) == (Verdict.EQUAL, 3, 2, 0)
    assert [(one.field, one.waiting, one.broken, one.found, one.stale) for one in comparison.links] == [
        ("parent_run_id", 1, 1, 2, 0),
        ("retry_of_run_id", 0, 1, 1, 0),
    ]


def test_a_broken_link_whose_row_is_added_to_the_source_later(legacy: Legacy) -> None:
    legacy.executions(50)

    comparison, counts = compared(legacy)

    assert [reason.code for reason in comparison.reasons] == ["missing", "differing"]
    assert (counts.matching, counts.differing, counts.missing) == (2, 1, 1)
    assert sorted(found(comparison)) == [
        ("field", uuid(1), "parent_run_id", uuid(50), STALE),
        ("missing", uuid(50), None, None, None),
    ]
    assert [(one.found, one.stale) for one in comparison.links] == [(1, 1), (1, 0)]
    legacy.move()
    assert compared(legacy)[0].verdict is Verdict.EQUAL


def test_a_broken_link_whose_row_came_and_cannot_be_carried_waits(legacy: Legacy) -> None:
    legacy.executions(50, status="zombie")
    assert compared(legacy)[0].verdict is Verdict.DIFFERENT
    legacy.move()
    comparison, _ = compared(legacy)
    assert (comparison.verdict, comparison.links[0].waiting, comparison.links[0].broken) == (Verdict.EQUAL, 2, 0)


@pytest.mark.parametrize("number", [50, 3])
def test_an_open_link_whose_row_comes_to_the_target_without_us(legacy: Legacy, number: int) -> None:
    legacy.execute("INSERT INTO runs (run_id, kind, name) VALUES (%s, 'task', 'theirs')", uuid(number))

    comparison, counts = compared(legacy)

    assert (comparison.verdict, counts.differing, counts.missing) == (Verdict.DIFFERENT, 1, 0)
    assert [one[2:] for one in found(comparison)] == [("parent_run_id", uuid(number), STALE)]


def test_a_row_that_differs_elsewhere_too_is_counted_once(legacy: Legacy) -> None:
    legacy.executions(50, 51)
    legacy.execute("UPDATE runs SET lane = 'touched' WHERE run_id = %s", uuid(1))
    legacy.move()
    legacy.execute("UPDATE runs SET parent_run_id = NULL WHERE run_id = %s", uuid(1))

    comparison, counts = compared(legacy)

    assert (counts.differing, counts.matching) == (1, 4)
    assert [one[2] for one in found(comparison)] == ["lane", "parent_run_id"]


def test_an_unfinished_migration_may_have_links_to_complete(legacy: Legacy) -> None:
    legacy.execute("INSERT INTO runs (run_id, kind, name) VALUES (%s, 'task', 'theirs')", uuid(50))
    legacy.execute("UPDATE spine_migrate.migration SET step = 'backfill'")
    comparison, _ = compared(legacy)
    assert (comparison.verdict, [reason.code for reason in comparison.reasons]) == (Verdict.UNKNOWN, ["unfinished"])


def test_a_row_that_is_deleted_after_it_went_to_quarantine(legacy: Legacy) -> None:
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(4))

    comparison, counts = compared(legacy)

    assert (comparison.verdict, counts.quarantined, counts.gone) == (Verdict.DIFFERENT, 1, 1)
    assert [reason.sentence for reason in comparison.reasons] == [
        "Rows in quarantine, not discarded, whose legacy row is gone: 1."
    ]
    (difference,) = comparison.differences
    assert (difference.kind, difference.key, comparison.differences_total) == ("gone", uuid(4), 1)

    legacy.execute("UPDATE spine_migrate.quarantine SET discarded_at = now(), discarded_by = 'dba'")
    comparison, counts = compared(legacy)
    assert (comparison.verdict, counts.quarantined, counts.gone) == (Verdict.EQUAL, 1, 0)


def test_more_gone_rows_than_are_listed(legacy: Legacy) -> None:
    legacy.executions(*range(100, 130), status="zombie")
    legacy.move()
    legacy.execute("DELETE FROM executions WHERE status = 'zombie'")
    with connect(legacy.url) as connection:
        (comparison,) = compare(connection, options=by_method(Options(max_differences=7))).comparisons
    assert (len(comparison.differences), comparison.differences_total) == (7, 32)
    assert comparison.counts is not None
    assert comparison.counts.gone == 32
