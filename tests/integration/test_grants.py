"""What ``spine-migrate grants`` prints is enough for each command, and nothing of it is too much."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

from spine_migrate.backfill.run import Options, run
from spine_migrate.cli import main
from spine_migrate.db import schema
from spine_migrate.db.connect import connect
from spine_migrate.demo.generate import create_legacy, generate
from spine_migrate.errors import Refused, SpineMigrateError
from spine_migrate.mapping.load import load
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Verdict
from spine_migrate.plan.make import make_plan
from tests.database import Database, Role
from tests.grants import give, printed

_OLD = 'Old "runs" %s'
_SCHEMAS = ("--source-schema", _OLD, "--target-schema", "spine")
_MAPPINGS = ("capture-spine/executions", "capture-spine/execution_events")


class Denied(Exception):
    """The operation under test could not be done, in whichever way it says so."""


def _apart(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("CREATE SCHEMA spine")
        generate(owner, executions=60, events_per_execution=2, jobs=0, seed=7, schema=_OLD)
        _link(owner)
        # A default that draws from a sequence is the target's owner's to have.
        schema.upgrade(url, target_schema="spine")
        owner.execute("ALTER TABLE spine.runs ADD COLUMN ticket bigserial")


@pytest.fixture
def filled(database: Database) -> Database:
    """Legacy tables and target in schemas that PUBLIC may not use, with every kind of awkward row."""
    database.arrange(_apart)
    return database


def _link(owner: psycopg.Connection) -> None:
    """Rows in a ring: in whatever order they come, one of the first batch refers to one of a later batch."""
    owner.execute(
        sql.SQL(
            "INSERT INTO {}.executions (execution_id, pipeline_name, status, parent_execution_id)"
            " SELECT md5(n::text)::uuid, 'linked', 'pending', md5((n % 100 + 1)::text)::uuid"
            " FROM generate_series(1, 100) AS n"
        ).format(sql.Identifier(_OLD))
    )


def _forget(database: Database) -> None:
    with database.connect(autocommit=True) as owner:
        owner.execute("TRUNCATE spine.runs, spine.run_events, spine_migrate.migration, spine_migrate.audit CASCADE")


def _move(database: Database, role: Role, *, offline: bool = False) -> None:
    for name in _MAPPINGS:
        outcome = run(
            database.url_as(role),
            load(name),
            options=Options(batch_rows=None if offline else 20, retry_seconds=0, offline=offline),
            stop=threading.Event(),
            report=lambda _: None,
            source_schema=_OLD,
            target_schema="spine",
        )
        assert outcome.state == "done"


@contextmanager
def _doubt(database: Database) -> Iterator[None]:
    """Rows written since a transaction that is still open might be missed by a scan, so a move looks for them."""
    with database.connect() as older, database.connect(autocommit=True) as owner:
        older.execute("SELECT pg_current_xact_id()")
        for table, column in (("executions", "lane"), ("execution_events", "data")):
            owner.execute(
                sql.SQL("UPDATE {} SET {column} = {column}").format(
                    sql.Identifier(_OLD, table), column=sql.Identifier(column)
                )
            )
        yield


def _move_in_doubt(database: Database, role: Role) -> None:
    with _doubt(database):
        _move(database, role)


def _move_with_a_collision(database: Database, role: Role) -> None:
    """A key that is taken makes the engine look at what is on the target."""
    with database.connect(autocommit=True) as owner:
        owner.execute("INSERT INTO spine.runs (kind, name) VALUES ('task', 'somebody else''s')")
        owner.execute(
            sql.SQL(
                "INSERT INTO spine.run_events (event_id, run_id, event_type)"
                " SELECT (SELECT event_id FROM {}.execution_events e JOIN {}.executions USING (execution_id)"
                " WHERE e.event_type = 'created' ORDER BY event_id LIMIT 1), run_id, 'other' FROM spine.runs"
            ).format(sql.Identifier(_OLD), sql.Identifier(_OLD))
        )
    _move_in_doubt(database, role)


def _plan(database: Database, role: Role) -> None:
    with connect(database.url_as(role)) as connection:
        for name in _MAPPINGS:
            plan = make_plan(connection, load(name), source_schema=_OLD, target_schema="spine")
            if unknown := [one for one in plan.unknown if "pg_read_all_stats" not in one.why]:
                raise Denied(str(unknown))


def _upgrade(database: Database, role: Role) -> None:
    schema.upgrade(database.url_as(role), target_schema="spine")


def _each_is_needed(
    database: Database, command: tuple[str, ...], operation: Callable[[Database, Role], None], *, again: bool
) -> None:
    """The operation works with all grants and fails with any one of them less; ``again``: it starts from nothing."""
    role = database.add_role("role")
    for held in give(database, role, *command):
        with database.connect(autocommit=True) as owner:
            owner.execute(held.revoke)
        assert _fails(operation, database, role), f"not needed: {held.name}"
        with database.connect(autocommit=True) as owner:
            owner.execute(held.grant)
        if again:
            _forget(database)
    operation(database, role)


def _fails(operation: Callable[[Database, Role], None], database: Database, role: Role) -> bool:
    try:
        operation(database, role)
    except (SpineMigrateError, psycopg.Error, Denied):
        return True
    return False


def test_moving_executions_and_their_events(filled: Database) -> None:
    _each_is_needed(filled, ("executions-to-runs", *_SCHEMAS), _move_with_a_collision, again=True)


def test_a_dry_run(filled: Database) -> None:
    _each_is_needed(filled, ("executions-to-runs", "--dry-run", *_SCHEMAS), _plan, again=False)


def test_a_dry_run_of_a_migration_that_has_begun(filled: Database) -> None:
    _move(filled, filled.owner)
    role = filled.add_role("role")
    give(filled, role, "executions-to-runs", "--dry-run", *_SCHEMAS)
    _plan(filled, role)


def test_comparing(filled: Database) -> None:
    _move(filled, filled.owner)
    _each_is_needed(
        filled, ("compare", "--mapping", "capture-spine/executions", *_SCHEMAS), _compare_executions, again=False
    )


def _compare_executions(database: Database, role: Role) -> None:
    with connect(database.url_as(role)) as connection:
        report = compare(connection, ["capture-spine/executions"])
        if report.verdict is not Verdict.EQUAL:
            raise Denied(str(report))


def test_an_upgrade(database: Database) -> None:
    with database.connect(autocommit=True) as owner:
        owner.execute("CREATE SCHEMA spine")
    _each_is_needed(database, ("db", "upgrade", "--target-schema", "spine"), _upgrade, again=False)


def test_a_further_upgrade(database: Database) -> None:
    """The runtime's tables beside runs, which another role has made."""
    with database.connect(autocommit=True) as owner:
        owner.execute("CREATE SCHEMA spine")
    schema.upgrade(database.url, target_schema="spine", revision="spine_0003")
    role = database.add_role("role")
    grants = printed(database, role, "db", "upgrade", "--target-schema", "spine")
    with database.connect_admin(autocommit=True) as admin:
        for grant in grants:
            with pytest.raises(SpineMigrateError):
                _upgrade(database, role)
            admin.execute(sql.SQL(grant["statement"]))
    _upgrade(database, role)


def test_an_offline_load_as_a_member_of_the_owner(filled: Database) -> None:
    role = filled.add_role("role")
    grants = printed(filled, role, "executions-to-runs", "--offline", *_SCHEMAS)
    member = sql.SQL("GRANT {} TO {}").format(sql.Identifier(filled.owner.name), sql.Identifier(role.name))
    assert f"{member.as_string(None)};" in [grant["statement"] for grant in grants]
    # Membership needs ADMIN OPTION, which the owner of a database does not have on itself.
    with filled.connect_admin(autocommit=True) as admin:
        for grant in grants:
            admin.execute(sql.SQL(grant["statement"]))
    with _doubt(filled):
        _move(filled, role, offline=True)


def test_an_offline_load_owns_what_points_to_the_target_too(filled: Database) -> None:
    """Its foreign keys are taken away and built again, whoever has them."""
    other, role = filled.add_role("billing"), filled.add_role("role")
    with filled.connect_admin(autocommit=True) as admin:
        admin.execute("CREATE SCHEMA billing")
        admin.execute("CREATE TABLE billing.bills (run_id uuid REFERENCES spine.runs)")
        admin.execute(sql.SQL("ALTER TABLE billing.bills OWNER TO {}").format(sql.Identifier(other.name)))
        member = sql.SQL("GRANT {} TO {}").format(sql.Identifier(other.name), sql.Identifier(role.name))
        use = sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier("billing"), sql.Identifier(role.name))
        needed = [f"{statement.as_string(None)};" for statement in (member, use)]
        others = [
            grant["statement"]
            for grant in printed(filled, role, "executions-to-runs", "--offline", *_SCHEMAS)
            if grant["statement"] not in needed
        ]
        for statement in others:
            admin.execute(sql.SQL(statement))
        for statement in needed:
            with pytest.raises(Refused, match="spine-migrate grants lists them"):
                _move(filled, role, offline=True)
            admin.execute(sql.SQL(statement))
    _move(filled, role, offline=True)


def test_partitions_are_named_since_they_are_read_directly(database: Database) -> None:
    with database.connect(autocommit=True) as owner:
        owner.execute("CREATE SCHEMA spine")
        owner.execute('CREATE SCHEMA "arch%ive"')
        generate(owner, executions=60, jobs=0, seed=7, schema=_OLD)
        owner.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(_OLD)))
        owner.execute("ALTER TABLE execution_events DROP CONSTRAINT execution_events_execution_id_fkey")
        owner.execute("ALTER TABLE executions RENAME TO flat")
        owner.execute("CREATE TABLE executions (LIKE flat) PARTITION BY HASH (execution_id)")
        for part, place in enumerate(("", '"arch%ive".')):
            name = sql.SQL(f'{place}"part {part}"')
            owner.execute(
                sql.SQL("CREATE TABLE {} PARTITION OF executions FOR VALUES WITH (MODULUS 2, REMAINDER {})").format(
                    name, part
                )
            )
        owner.execute("ALTER TABLE executions ADD PRIMARY KEY (execution_id)")
        owner.execute("INSERT INTO executions SELECT * FROM flat")
        owner.execute("DROP TABLE flat")
        _link(owner)
    schema.upgrade(database.url, target_schema="spine")
    _each_is_needed(database, ("executions-to-runs", *_SCHEMAS), _move_with_a_collision, again=True)
    planner = database.add_role("planner")
    give(database, planner, "executions-to-runs", "--dry-run", *_SCHEMAS)
    _plan(database, planner)


def test_missing_shows_what_is_lacking_until_nothing_is(filled: Database) -> None:
    role = filled.add_role("role")
    arguments = ["grants", "executions-to-runs", *_SCHEMAS, "--missing", "--target", filled.url_as(role)]
    lacking = CliRunner().invoke(main, arguments)
    assert lacking.exit_code == 1
    with filled.connect(autocommit=True) as owner:
        owner.execute(sql.SQL(lacking.stdout))
    satisfied = CliRunner().invoke(main, arguments)
    assert (satisfied.exit_code, satisfied.stdout) == (0, "-- executions-to-runs\n-- nothing is missing\n")
    _move_in_doubt(filled, role)


def test_missing_is_cut_down_to_the_privileges_that_lack(filled: Database) -> None:
    role = filled.add_role("role")
    give(filled, role, "executions-to-runs", *_SCHEMAS)
    with filled.connect(autocommit=True) as owner:
        owner.execute(sql.SQL("REVOKE INSERT ON spine.runs FROM {}").format(sql.Identifier(role.name)))
    arguments = ["grants", "executions-to-runs", *_SCHEMAS, "--missing", "--json", "--role", role.name]
    result = CliRunner().invoke(main, [*arguments, "--target", filled.url])
    (grant,) = json.loads(result.stdout)["commands"]["executions-to-runs"]
    assert (grant["object"], grant["privileges"]) == ('"spine"."runs"', ["INSERT"])


def test_the_owner_lacks_nothing(filled: Database) -> None:
    result = CliRunner().invoke(main, ["grants", *_SCHEMAS, "--missing", "--target", filled.url])
    assert result.exit_code == 0
    assert "GRANT" not in result.stdout


def test_before_the_first_upgrade_the_names_to_come_are_printed(database: Database) -> None:
    with database.connect(autocommit=True) as owner:
        generate(owner, executions=0, jobs=0, seed=1)
    result = CliRunner().invoke(main, ["grants", "--role", database.owner.name, "--target", database.url])
    assert result.exit_code == 0
    assert f'GRANT CREATE ON DATABASE "{database.name}" TO "{database.owner.name}";' in result.stdout
    assert f'GRANT SELECT, INSERT ON TABLE "public"."runs" TO "{database.owner.name}";' in result.stdout


def test_nobody_is_made_a_member_of_a_superuser(filled: Database) -> None:
    with filled.connect_admin(autocommit=True) as admin:
        admin.execute("ALTER TABLE spine.runs OWNER TO CURRENT_USER")
    role = filled.add_role("role")
    grants = printed(filled, role, "executions-to-runs", "--offline", *_SCHEMAS)
    (owned,) = [grant["statement"] for grant in grants if grant["kind"] == "role" and "superuser" in grant["statement"]]
    assert owned.startswith("-- ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["execution-to-run"], "There is no command 'execution-to-run'"),
        (["compare", "--offline"], "--dry-run and --offline go"),
        (["executions-to-runs", "--offline", "--dry-run"], "--dry-run and --offline go"),
        (["--role", "no such role"], "There is no role 'no such role'"),
    ],
)
def test_usage(database: Database, arguments: list[str], sentence: str) -> None:
    result = CliRunner().invoke(main, ["grants", *arguments, "--target", database.url])
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_the_commands_of_the_runbook_run(database: Database, tmp_path: Path) -> None:
    """Every block marked ``sh``, in order. ``psql`` stands for any client that runs a file of statements."""
    database.arrange(schema.upgrade)
    with database.connect(autocommit=True) as owner:
        create_legacy(owner)
    runbook = (Path(__file__).parents[2] / "runbooks" / "grants.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", runbook, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    roles = {name: database.add_role(name).name for name in ("mover", "planner", "auditor", "installer", "loader")}
    url = '"$SPINE_TARGET_URL"'
    python = f'"{sys.executable}"'
    programs = {
        "spine-migrate": f'exec {python} -m spine_migrate "$@"',
        "psql": f"exec {python} -c 'import sys, psycopg; "
        f'psycopg.connect(sys.argv[1], autocommit=True).execute(open(sys.argv[3]).read())\' {url} "$@"',
    }
    for name, line in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SPINE_TARGET_URL": database.url,
    }
    outputs = []
    for block in blocks:
        for role, real in roles.items():
            block = block.replace(f"--role {role}", f'--role "{real}"')  # noqa: PLW2901 - the names are this test's own
        done = subprocess.run(
            ["/bin/sh", "-ec", block],
            check=False,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert outputs[0] == "-- executions-to-runs\n-- nothing is missing\n"
