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
from tests.conftest import StartServer
from tests.database import Database
from tests.legacy import Legacy, arranged, build, uuid

# The closest argument types win, wherever on the path the operator stands (PostgreSQL manual, 10.2).
EQUALS_EVERYTHING: tuple[LiteralString, ...] = (
    "CREATE FUNCTION public.alike(varchar, varchar) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'",
    "CREATE OPERATOR public.= (LEFTARG = varchar, RIGHTARG = varchar, FUNCTION = public.alike)",
    "CREATE FUNCTION public.alike(text, varchar) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'",
    "CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = varchar, FUNCTION = public.alike)",
)


@arranged
def moved(legacy: Legacy) -> None:
    legacy.many_executions(30)
    legacy.move()
    for statement in EQUALS_EVERYTHING:
        legacy.execute(statement)


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


@both_methods
@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE run_events, execution_events",
        "ALTER TABLE run_events ALTER source TYPE text USING source || ''",
    ],
)
def test_a_table_that_is_rewritten_after_the_snapshot_cannot_be_told(
    database: Database, statement: LiteralString
) -> None:
    """For the snapshot it is empty then, so two of them would be equal, and one beside a whole one different."""
    legacy = build(database)
    legacy.many_executions(20)
    legacy.two_events_each(20)
    legacy.move("executions")
    legacy.move("execution_events")

    def started(_: str, number: int, __: int) -> None:
        if number == 2:
            legacy.execute(statement)

    with connect(legacy.url) as connection:
        report = compare(connection, options=by_method(), started=started)
    executions, events = report.comparisons
    assert (executions.verdict, events.verdict) == (Verdict.EQUAL, Verdict.UNKNOWN)
    assert [one.code for one in events.reasons] == ["rewritten"]


# As the extension has it, but for its operators, which the tool does not use.
CITEXT: tuple[LiteralString, ...] = (
    "CREATE TYPE public.citext",
    "CREATE FUNCTION public.citextin(cstring) RETURNS public.citext LANGUAGE internal IMMUTABLE STRICT AS 'textin'",
    "CREATE FUNCTION public.citextout(public.citext) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout'",
    "CREATE TYPE public.citext (INPUT = public.citextin, OUTPUT = public.citextout, LIKE = text, COLLATABLE = true)",
    "CREATE CAST (public.citext AS text) WITHOUT FUNCTION AS IMPLICIT",
    "CREATE CAST (text AS public.citext) WITHOUT FUNCTION AS ASSIGNMENT",
)


@both_methods
def test_a_type_of_an_extension_is_known_by_its_name_in_any_schema(database: Database) -> None:
    legacy = build(database)
    legacy.many_executions(30)
    with database.connect_admin() as admin:
        for statement in CITEXT:
            admin.execute(statement)
        admin.execute("GRANT USAGE ON TYPE public.citext TO PUBLIC")
    legacy.execute("ALTER TABLE executions ALTER error TYPE public.citext")
    legacy.execute("ALTER TABLE runs ALTER error TYPE public.citext")
    legacy.move()
    legacy.execute("UPDATE runs SET error = upper(error::text)::public.citext WHERE run_id = %s", uuid(3))
    with connect(legacy.url) as connection:
        (comparison,) = compare(connection, options=by_method()).comparisons
    assert [(one.key, one.field) for one in comparison.differences] == [(uuid(3), "error")]


def test_a_constraint_that_is_not_valid_keeps_no_nulls_away(start_server: StartServer) -> None:
    """NOT NULL, which can be NOT VALID from PostgreSQL 18 on; rows from before are NULL all the same."""
    legacy = build(start_server(18).url("postgres"))
    legacy.executions(1)
    legacy.executions(2, feed_id=uuid(7))
    legacy.execute("ALTER TABLE executions ADD CONSTRAINT fed NOT NULL feed_id NOT VALID")
    legacy.move()
    legacy.prove()
    with connect(legacy.url) as connection:
        assert compare(connection).verdict is Verdict.EQUAL
