"""While changes are on their way, a comparison tells neither a false difference nor a false equality."""

from __future__ import annotations

import pytest

from spine_migrate.db.connect import connect
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Comparison, Verdict
from spine_migrate.parity.options import Finding, Options
from tests.database import Database
from tests.legacy import Legacy, build, uuid
from tests.syncing import apply, move_live

METHODS = pytest.mark.parametrize("method", [Finding.JOIN, Finding.BUCKETS])


@pytest.fixture
def live(database: Database) -> Legacy:
    legacy = build(database.url)
    legacy.many_executions(20)
    move_live(legacy)
    return legacy


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
def test_after_a_truncate_nothing_can_be_told(live: Legacy, method: Finding) -> None:
    live.execute("TRUNCATE executions CASCADE")
    assert compared(live, method).verdict is Verdict.UNKNOWN
    apply(live)
    assert compared(live, method).verdict is Verdict.EQUAL


@METHODS
def test_an_empty_log_excuses_nothing(live: Legacy, method: Finding) -> None:
    live.execute("UPDATE runs SET error = 'damaged' WHERE run_id = %s", uuid(3))
    assert compared(live, method).verdict is Verdict.DIFFERENT
