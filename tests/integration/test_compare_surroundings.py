"""What an application has put beside its tables has no say in a comparison."""

from __future__ import annotations

from typing import LiteralString

import pytest

from spine_migrate.db.connect import connect
from spine_migrate.parity.certificate_check import Outcome
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Verdict
from spine_migrate.parity.options import Finding, Options
from tests.certificates import issue, verify
from tests.comparing import both_methods, by_method
from tests.database import Database
from tests.legacy import Legacy, build, uuid

# The closest argument types win, wherever on the path the operator stands (PostgreSQL manual, 10.2).
EQUALS_EVERYTHING: tuple[LiteralString, ...] = (
    "CREATE FUNCTION public.alike(varchar, varchar) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'",
    "CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.alike)",
    "CREATE FUNCTION public.alike(text, varchar) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'",
    "CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = varchar, FUNCTION = public.alike)",
)


@pytest.fixture
def moved(database: Database) -> Legacy:
    legacy = build(database.url)
    legacy.many_executions(30)
    legacy.move()
    for statement in EQUALS_EVERYTHING:
        legacy.execute(statement)
    return legacy


@both_methods
def test_operators_of_the_search_path_do_not_judge(moved: Legacy) -> None:
    moved.execute("UPDATE runs SET name = 'another', status = 'failed' WHERE run_id = %s", uuid(3))
    with connect(moved.url) as connection:
        (comparison,) = compare(connection, options=by_method()).comparisons
    assert comparison.verdict is Verdict.DIFFERENT
    assert {(one.key, one.field) for one in comparison.differences} == {(uuid(3), "name"), (uuid(3), "status")}


@pytest.mark.parametrize("method", [Finding.JOIN, Finding.BUCKETS])
def test_the_self_test_is_as_blind_to_them(moved: Legacy, method: Finding) -> None:
    with connect(moved.url) as connection, connect(moved.url) as scratch:
        (comparison,) = compare(connection, options=Options(method=method), scratch=scratch).comparisons
    assert comparison.verdict is Verdict.EQUAL, comparison.reasons
    assert comparison.self_test is not None
    assert comparison.self_test.injections
    assert not comparison.self_test.failed


def test_a_certificate_does_not_hold_by_them(moved: Legacy) -> None:
    certificate = issue(moved.url)
    moved.execute("UPDATE runs SET name = 'another' WHERE run_id = %s", uuid(3))
    assert verify(moved.url, certificate).outcome is Outcome.CHANGED
