"""What ``spine-migrate grants`` prints for the commands about runs is enough, and nothing of it is too much."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from click.testing import CliRunner
from psycopg import sql

from spine_migrate.cli import main
from spine_migrate.db import schema
from tests.database import Database, Role
from tests.grants import Fresh, give, printed
from tests.runs import add_run, key, numbers

_LISTING = (("list",), ("show", str(key(1))))
_CHANGING = (
    ("cancel", str(key(1)), "--json"),
    ("retry", str(key(2))),
    ("reprocess", str(key(3))),
    ("show", str(key(3))),
)
_PURGING = (("purge", "--older-than", "90d", "--yes"), ("purge", "--older-than", "90d", "--yes", "--migrated"))


@pytest.fixture
def runs(database: Database) -> Database:
    """In the owner's own schema, which PUBLIC may not use; a table of the application points to runs."""
    with database.connect() as connection:
        connection.execute("CREATE SCHEMA spine")
        connection.execute(
            sql.SQL("ALTER ROLE {} IN DATABASE {} SET search_path = spine").format(
                sql.Identifier(database.owner.name), sql.Identifier(database.name)
            )
        )
    schema.upgrade(database.url, target_schema="spine")
    with database.connect() as connection:
        connection.execute("CREATE TABLE report (run uuid REFERENCES runs)")
    return database


def _fill(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("TRUNCATE runs CASCADE")
    # One that the runtime does not know yet, as a migration makes them.
    add_run(database, 1, status="pending", completed_at=None, handed=False)
    add_run(database, 2, status="failed")
    add_run(database, 3, status="dead_lettered")


def _works(database: Database, role: Role, calls: Sequence[tuple[str, ...]]) -> bool:
    results = [CliRunner().invoke(main, ["runs", *words, "--target", database.url_as(role)]) for words in calls]
    assert {one.exit_code for one in results} <= {0, 3}, [one.stderr for one in results]
    assert all("lacks a privilege" in one.stderr for one in results if one.exit_code == 3)
    return all(one.exit_code == 0 for one in results)


@pytest.mark.parametrize(
    ("command", "calls"), [("runs list", _LISTING), ("runs cancel", _CHANGING), ("runs purge", _PURGING)]
)
def test_each_grant_is_needed_and_all_are_enough(
    runs: Database, command: str, calls: Sequence[tuple[str, ...]]
) -> None:
    role = runs.add_role("role")
    fresh = Fresh(runs, lambda: _fill(runs))
    for held in give(runs, role, *command.split()):
        fresh.again()
        with runs.connect(autocommit=True) as owner:
            owner.execute(held.revoke)
        assert not _works(runs, role, calls), f"not needed: {held.name}"
        with runs.connect(autocommit=True) as owner:
            owner.execute(held.grant)
    fresh.again()
    assert _works(runs, role, calls)


def test_a_purger_changes_no_run(runs: Database) -> None:
    _fill(runs)
    role = runs.add_role("role")
    give(runs, role, "runs", "purge")
    assert not _works(runs, role, _CHANGING)
    assert _works(runs, role, _PURGING)
    assert numbers(runs) == {1}


def test_building_indexes_as_a_member_of_the_owner(runs: Database) -> None:
    role = runs.add_role("role")
    grants = printed(runs, role, "runs", "index")
    # Membership needs ADMIN OPTION, which the owner of a database does not have on itself.
    with runs.connect_admin(autocommit=True) as admin:
        for grant in grants:
            admin.execute(sql.SQL(grant["statement"]))
    assert _works(runs, role, [("index", "create"), ("index", "status"), ("index", "drop")])


def test_commands_that_need_the_same(runs: Database) -> None:
    role = runs.add_role("role")
    assert printed(runs, role, "runs", "retry") == printed(runs, role, "runs", "cancel")
    assert printed(runs, role, "runs", "show") == printed(runs, role, "runs", "list")


def test_before_the_first_upgrade_the_names_to_come_are_printed(database: Database) -> None:
    grants = [one["statement"] for one in printed(database, database.owner, "runs", "purge")]
    assert f'GRANT SELECT, DELETE ON TABLE "public"."runs" TO "{database.owner.name}";' in grants
