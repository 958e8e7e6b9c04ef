"""While changes are on their way, a comparison tells neither a false difference nor a false equality."""

from __future__ import annotations

import pytest

from spine_migrate.db.connect import connect
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Comparison, Verdict
from spine_migrate.parity.options import Finding, Options
from tests.legacy import Legacy, arranged, uuid
from tests.syncing import apply, move_live

METHODS = pytest.mark.parametrize("method", [Finding.JOIN, Finding.BUCKETS])


@arranged
def live(legacy: Legacy) -> None:
    legacy.many_executions(20)
    move_live(legacy)


def compared(legacy: Legacy, method: Finding, named: int = 100) -> Comparison:
    with connect(legacy.url) as connection:
        report = compare(connection, ["capture-spine/executions"], Options(method=method, max_differences=named))
    (one,) = report.comparisons
    assert report.verdict is one.verdict
    return one


@METHODS
def test_what_is_on_its_way_is_no_difference(live: Legacy, method: Finding) -> None:
    """Nor is it equal; once it is applied it is."""
    live.execute("UPDATE executions SET error = 'x' WHERE execution_id = %s", uuid(1))
    live.execute("DELETE FROM executions WHERE execution_id = %s", uuid(2))
    live.executions(21)
    found = compared(live, method)
    assert (found.verdict, [reason.code for reason in found.reasons]) == (Verdict.UNKNOWN, ["in-flight"])
    assert "Changes of 3 rows are captured" in found.reasons[0].sentence
    apply(live)
    assert compared(live, method).verdict is Verdict.EQUAL


@METHODS
def test_a_link_whose_row_has_come_is_on_its_way(live: Legacy, method: Finding) -> None:
    """The applier has applied the row and not completed the link yet; where nobody follows, nobody will."""
    live.executions(21, parent_execution_id=uuid(1))
    apply(live)
    live.execute("UPDATE runs SET parent_run_id = NULL WHERE run_id = %s", uuid(21))
    live.execute(
        "INSERT INTO spine_migrate.link (migration_id, target_key, field, wanted) VALUES (1, %s, 'parent_run_id', %s)",
        uuid(21),
        uuid(1),
    )
    found = compared(live, method)
    assert (found.verdict, [reason.code for reason in found.reasons]) == (Verdict.UNKNOWN, ["in-flight"])
    live.execute("DELETE FROM spine_migrate.capture")
    assert compared(live, method).verdict is Verdict.DIFFERENT


@METHODS
def test_a_real_difference_is_found_among_them(live: Legacy, method: Finding) -> None:
    live.execute("UPDATE executions SET error = 'x' WHERE execution_id = %s", uuid(5))
    live.execute("UPDATE runs SET error = 'damaged' WHERE run_id = %s", uuid(3))
    assert compared(live, method).verdict is Verdict.DIFFERENT
    apply(live)
    assert compared(live, method).verdict is Verdict.DIFFERENT


@METHODS
def test_what_is_only_counted_is_never_called_equal(live: Legacy, method: Finding) -> None:
    """Of the differences that are not named it is not known whether their rows are on their way."""
    live.execute("UPDATE executions SET error = 'x' WHERE execution_id = %s", uuid(5))
    live.execute("UPDATE runs SET error = 'damaged' WHERE run_id = %s", uuid(3))
    assert compared(live, method, named=1).verdict is not Verdict.EQUAL


@METHODS
def test_what_a_truncate_leaves_is_on_its_way(live: Legacy, method: Finding) -> None:
    live.execute("TRUNCATE executions CASCADE")
    assert compared(live, method).verdict is Verdict.UNKNOWN
    assert compared(live, method, named=0).verdict is Verdict.UNKNOWN
    live.executions(1, error="written after it")
    assert compared(live, method).verdict is Verdict.UNKNOWN
    apply(live)
    assert compared(live, method).verdict is Verdict.EQUAL


@METHODS
def test_a_truncate_excuses_no_row_that_is_there(live: Legacy, method: Finding) -> None:
    """Each that was written after it has an entry of its own."""
    live.execute("TRUNCATE executions CASCADE")
    live.executions(1)
    live.execute("DELETE FROM spine_migrate.change_log WHERE row_key = %s", uuid(1))
    live.execute("UPDATE runs SET error = 'damaged' WHERE run_id = %s", uuid(1))
    assert compared(live, method).verdict is Verdict.DIFFERENT


@METHODS
def test_an_empty_log_excuses_nothing(live: Legacy, method: Finding) -> None:
    live.execute("UPDATE runs SET error = 'damaged' WHERE run_id = %s", uuid(3))
    assert compared(live, method).verdict is Verdict.DIFFERENT


def test_a_history_is_excused_by_its_own_changes_alone(live: Legacy) -> None:
    """A run that another law-breaker is on its way beside is told; one that is judged by a run on its way is not."""
    move_live(live, "execution_events")
    live.execute("DROP INDEX ix_runs_one_active_per_entity")
    live.execute(
        'UPDATE runs SET status = \'running\', metadata = metadata || \'{"entity_type": "feed",'
        ' "entity_id": "1"}\' WHERE run_id IN (%s, %s)',
        uuid(1),
        uuid(2),
    )
    live.execute("UPDATE executions SET error = 'x' WHERE execution_id = %s", uuid(1))
    with connect(live.url) as connection:
        (found,) = compare(connection).histories
        assert (found.verdict, [reason.code for reason in found.reasons]) == (Verdict.UNKNOWN, ["in-flight"])
        live.execute("INSERT INTO run_events (run_id, event_type) VALUES (%s, 'started')", uuid(3))
        (found,) = compare(connection).histories
    assert found.verdict is Verdict.DIFFERENT
    assert {example.run for check in found.checks for example in check.examples} == {uuid(3)}
