"""The self-test beside a comparison: what it says, what hinders it, and that it leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.db.connect import connect
from spine_migrate.mapping.emit.parity import Parity, parity
from spine_migrate.parity import compare as comparing
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Comparison, Verdict
from tests.database import Database
from tests.grants import give
from tests.legacy import Legacy, arranged, build, uuid
from tests.mutants import seen

EXECUTIONS = "capture-spine/executions"


@arranged
def moved(legacy: Legacy) -> None:
    legacy.many_executions(50)
    legacy.executions(51, status="limbo")
    legacy.move("executions")


def proven(url: str) -> Comparison:
    with connect(url) as connection, connect(url) as scratch:
        (comparison,) = compare(connection, [EXECUTIONS], scratch=scratch).comparisons
    return comparison


def break_statements(monkeypatch: pytest.MonkeyPatch, breaks: Callable[[Parity], Parity]) -> None:
    monkeypatch.setattr(comparing, "compiled", lambda *arguments, **options: breaks(parity(*arguments, **options)))


def test_an_equal_history_is_equal_with_a_self_test_that_passed(moved: Legacy) -> None:
    comparison = proven(moved.url)
    assert (comparison.verdict, comparison.reasons) == (Verdict.EQUAL, [])
    assert comparison.self_test is not None
    assert comparison.self_test.failed == []
    assert comparison.self_test.rows > 300


def test_without_one_none_is_made(moved: Legacy) -> None:
    with connect(moved.url) as connection:
        (comparison,) = compare(connection).comparisons
    assert comparison.self_test is None


def test_a_comparison_that_would_miss_something_is_never_equal(moved: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    moved.execute("UPDATE runs SET error = error || ' '")
    break_statements(monkeypatch, seen("text", "btrim({v})"))
    comparison = proven(moved.url)
    assert comparison.verdict is Verdict.UNKNOWN
    (reason,) = comparison.reasons
    assert reason.code == "self-test-failed"
    assert "a trailing space in kind" in reason.sentence


def test_a_difference_that_was_found_stays_one(moved: Legacy, monkeypatch: pytest.MonkeyPatch) -> None:
    moved.execute("UPDATE runs SET attempt = 9 WHERE run_id = %s", uuid(3))
    break_statements(monkeypatch, seen("text", "btrim({v})"))
    comparison = proven(moved.url)
    assert comparison.verdict is Verdict.DIFFERENT
    assert [reason.code for reason in comparison.reasons] == ["differing", "self-test-failed"]


def test_rows_that_differ_do_not_disturb_it(moved: Legacy) -> None:
    """It makes its own pairs; what the target has in its place is not asked."""
    moved.execute("UPDATE runs SET name = 'other', metadata = metadata || '{\"x\": 1}'")
    comparison = proven(moved.url)
    assert comparison.verdict is Verdict.DIFFERENT
    assert comparison.self_test is not None
    assert comparison.self_test.failed == []


def test_a_role_that_may_make_no_temporary_tables_cannot_tell(database: Database, moved: Legacy) -> None:
    role = database.add_role("reader")
    give(database, role, "compare")
    with database.connect_admin(autocommit=True) as admin:
        everybody = sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database.name))
        admin.execute(everybody)
    comparison = proven(database.url_as(role))
    assert comparison.verdict is Verdict.UNKNOWN
    assert [reason.code for reason in comparison.reasons] == ["self-test-privilege"]


def test_a_session_that_may_not_write_cannot_tell(database: Database, moved: Legacy) -> None:
    """As on a standby: the server gives both the same SQLSTATE."""
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(
            sql.SQL("ALTER ROLE {} IN DATABASE {} SET default_transaction_read_only = on").format(
                sql.Identifier(database.owner.name), sql.Identifier(database.name)
            )
        )
    comparison = proven(moved.url)
    assert comparison.verdict is Verdict.UNKNOWN
    assert [reason.code for reason in comparison.reasons] == ["self-test-read-only"]
    assert comparison.self_test is not None
    assert comparison.self_test.skipped is not None


def test_tables_without_rows_are_compared_by_counting(database: Database) -> None:
    legacy = build(database)
    legacy.move("executions")
    comparison = proven(legacy.url)
    assert (comparison.verdict, comparison.reasons) == (Verdict.EQUAL, [])
    assert comparison.self_test is not None
    assert comparison.self_test.skipped is not None
    assert comparison.self_test.skipped.code == "self-test-no-rows"


def test_nothing_is_left_behind_and_nobody_waits(database: Database, moved: Legacy) -> None:
    """With rows of every table locked by others, and on a connection that is used again."""
    names = ("executions", "runs", "spine_migrate.quarantine", "spine_migrate.link", "spine_migrate.audit")
    contents = [moved.rows(_content(name)) for name in names]
    with psycopg.connect(moved.url) as writer:
        writer.execute("UPDATE executions SET lane = lane; UPDATE runs SET lane = lane")
        writer.execute("LOCK TABLE executions, runs IN SHARE ROW EXCLUSIVE MODE")
        with connect(moved.url) as connection, connect(moved.url) as scratch:
            for _ in range(2):
                (comparison,) = compare(connection, scratch=scratch).comparisons
                assert comparison.verdict is Verdict.EQUAL
            assert scratch.execute("SELECT relname FROM pg_class WHERE relpersistence = 't'").fetchall() == []
        writer.rollback()
    assert [moved.rows(_content(name)) for name in names] == contents


def _content(name: str) -> sql.Composed:
    return sql.SQL("SELECT t.*::text FROM {} AS t ORDER BY 1").format(sql.Identifier(*name.split(".")))


@pytest.mark.parametrize(
    "awkward",
    [
        "ALTER TABLE runs ALTER started_at TYPE timestamptz(3)",
        "ALTER TABLE executions ALTER lane TYPE char(12)",
        "ALTER TABLE executions ALTER params TYPE json",
        "ALTER TABLE executions ALTER retry_count TYPE smallint, DROP COLUMN feed_id",
        "ALTER TABLE executions ADD CHECK (created_at > '2000-01-01'), ALTER lane SET NOT NULL",
        "ALTER TABLE executions DROP CONSTRAINT executions_pkey CASCADE",
        'ALTER TABLE runs ALTER error TYPE text COLLATE "C"',
    ],
)
def test_tables_of_other_shapes_are_taken_as_they_are(database: Database, awkward: LiteralString) -> None:
    legacy = build(database)
    legacy.execute(awkward)
    legacy.executions(*range(1, 6))
    legacy.move("executions")
    comparison = proven(legacy.url)
    assert comparison.self_test is not None
    assert comparison.self_test.failed == []
    assert comparison.verdict is Verdict.EQUAL
