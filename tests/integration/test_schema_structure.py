"""Revisions == reference DDL, whichever way they are run, and a downgrade leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from secrets import token_hex

import psycopg
import pytest
from psycopg import sql

from spine_migrate.db import schema
from tests.database import Database, Role, fresh_database
from tests.structure import everything, structure

REPOSITORY = Path(__file__).resolve().parents[2]
REFERENCE = REPOSITORY / "spine_migrate" / "db" / "sql" / "reference"

# Quotes, a dot, a colon, percent signs, a backslash, a comment, a reserved word: none may reach the SQL unquoted.
HOSTILE_NAMES = [
    'we"ird',
    "a.b.c",
    "x:y ::text",
    "50%s %% %(id)s",
    r"back\slash",
    "'; DROP TABLE t; --",
    "window",
    "Ünï$",
]


@pytest.fixture(scope="module")
def reference(server_url: str, owner: Role) -> set[tuple[str, ...]]:
    """The structure of the reference DDL, run in a database of its own."""
    with fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database:
        with database.connect() as connection:
            for name in ("target", "runtime", "shims", "ledger"):
                connection.execute((REFERENCE / f"{name}.sql").read_text(encoding="utf-8").encode())
        return structure(database.url)


def create_schema(database: Database, name: str) -> None:
    with database.connect() as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))


def alembic(database: Database, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Plain ``alembic`` in the checkout."""
    return subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "SPINE_TARGET_URL": database.url, **environment},
        check=False,
        capture_output=True,
        text=True,
    )


def run_script(database: Database, script: str) -> None:
    with database.connect(autocommit=True) as connection:
        connection.execute(script.encode())


def by_driver(database: Database, target_schema: str | None) -> None:
    schema.upgrade(database.url, target_schema=target_schema)


def by_printed_sql(database: Database, target_schema: str | None) -> None:
    run_script(database, schema.upgrade_sql(target_schema=target_schema))


def by_alembic(database: Database, target_schema: str | None) -> None:
    chosen = () if target_schema is None else ("-x", f"target_schema={target_schema}")
    done = alembic(database, *chosen, "upgrade", "head")
    assert done.returncode == 0, done.stderr


def by_alembic_printed_sql(database: Database, target_schema: str | None) -> None:
    chosen = () if target_schema is None else ("-x", f"target_schema={target_schema}")
    done = alembic(database, *chosen, "upgrade", "head", "--sql", SPINE_TARGET_URL="postgresql://nobody@127.0.0.1:1/x")
    assert done.returncode == 0, done.stderr
    run_script(database, done.stdout)


WAYS = [by_driver, by_printed_sql, by_alembic, by_alembic_printed_sql]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target_schema", [None, HOSTILE_NAMES[0] + HOSTILE_NAMES[3]])
def test_revisions_build_the_reference_schema(
    way: Callable[[Database, str | None], None],
    target_schema: str | None,
    database: Database,
    reference: set[tuple[str, ...]],
) -> None:
    """Column for column, constraint for constraint, index for index, in the search_path's schema and in a named one."""
    if target_schema is not None:
        create_schema(database, target_schema)

    way(database, target_schema)

    built = structure(database.url, target_schema or "public")
    assert built - reference == set()
    assert reference - built == set()


@pytest.mark.parametrize("target_schema", HOSTILE_NAMES)
def test_any_schema_name_is_quoted(target_schema: str, database: Database, reference: set[tuple[str, ...]]) -> None:
    """Online and printed alike; the downgrade finds the same tables again."""
    create_schema(database, target_schema)

    by_driver(database, target_schema)
    assert structure(database.url, target_schema) == reference
    assert schema.current(database.url).target_schema == target_schema
    schema.downgrade(database.url, target_schema=target_schema, revision="base")

    by_printed_sql(database, target_schema)
    assert structure(database.url, target_schema) == reference
    assert schema.current(database.url).target_schema == target_schema
    run_script(database, schema.downgrade_sql(target_schema=target_schema, revision="base"))
    assert structure(database.url, target_schema) == set()


def test_the_reference_has_every_table(reference: set[tuple[str, ...]]) -> None:
    """The comparison above would also hold between two empty databases."""
    tables = {(fact[1], fact[2]) for fact in reference if fact[0] == "relation" and fact[3] == "r"}
    assert tables == {
        ("target", "runs"),
        ("target", "run_events"),
        ("target", "run_handoff"),
        ("target", "run_guard"),
        *(("target", name) for name in ("shim_mode", "shim_call", "shim_worker")),
        *(
            ("spine_migrate", name)
            for name in ("migration", "checkpoint", "quarantine", "link", "deferred_ddl", "audit", "repair")
        ),
        *(("spine_migrate", name) for name in ("capture", "change_log", "pending", "control")),
        *(("spine_migrate", name) for name in ("cutover", "view_write", "set_aside", "retirement")),
    }
    named = {fact[2] for fact in reference if fact[0] in {"constraint", "index"}}
    assert {"runs.uq_idempotency", "ix_runs_one_active_per_entity", "ix_run_events_run_id"} <= named
    assert ("target", "run_fence") in {(fact[1], fact[2]) for fact in reference if fact[0] == "sequence"}


@pytest.mark.parametrize(
    "mutilation",
    [
        "ALTER TABLE runs ALTER name TYPE varchar(101)",
        "ALTER TABLE runs ALTER kind DROP NOT NULL",
        "ALTER TABLE runs ALTER max_retries SET DEFAULT 4",
        "ALTER TABLE runs ALTER params DROP DEFAULT",
        "ALTER TABLE runs ADD extra int",
        "ALTER TABLE run_events DROP CONSTRAINT run_events_run_id_fkey",
        "ALTER TABLE spine_migrate.migration RENAME CONSTRAINT migration_step_check TO other",
        "ALTER TABLE spine_migrate.checkpoint ALTER batches TYPE integer",
        (
            "DROP INDEX ix_runs_one_active_per_entity;"
            " CREATE UNIQUE INDEX ix_runs_one_active_per_entity ON runs ((metadata->>'entity_type'),"
            " (metadata->>'entity_id')) WHERE status IN ('pending', 'running')"
        ),
        "DROP INDEX ix_run_events_run_id",
        (
            "ALTER TABLE run_handoff DROP CONSTRAINT run_handoff_run_id_fkey;"
            " ALTER TABLE run_handoff ADD CONSTRAINT run_handoff_run_id_fkey FOREIGN KEY (run_id) REFERENCES runs"
        ),
        "DROP INDEX ix_run_handoff_lane; CREATE INDEX ix_run_handoff_lane ON run_handoff (lane)",
        "ALTER SEQUENCE run_fence CYCLE",
        "ALTER SEQUENCE run_fence AS integer",
        "ALTER SEQUENCE run_fence OWNED BY run_handoff.fence",
        "DROP SEQUENCE run_fence",
        "ALTER TABLE shim_mode DROP CONSTRAINT shim_mode_mode_check, ADD CHECK (mode <> '')",
        "ALTER TABLE shim_mode ALTER set_by SET DEFAULT current_user",
        "ALTER TABLE shim_call ALTER count TYPE integer",
        (
            "ALTER TABLE shim_worker DROP CONSTRAINT shim_worker_pkey;"
            " ALTER TABLE shim_worker ADD PRIMARY KEY (task, version, host, since)"
        ),
    ],
)
def test_the_comparison_sees_one_difference(
    mutilation: str, database: Database, reference: set[tuple[str, ...]]
) -> None:
    """A test of the test: each single deviation from the reference shows."""
    database.arrange(schema.upgrade)
    run_script(database, mutilation)
    assert structure(database.url) != reference


@pytest.mark.parametrize("down", ["driver", "printed sql", "alembic", "alembic printed sql"])
def test_downgrade_to_base_leaves_nothing(down: str, database: Database) -> None:
    """No table, type, sequence or schema of ours, version table included."""
    before = everything(database.url)
    schema.upgrade(database.url)
    assert everything(database.url) != before

    if down == "driver":
        schema.downgrade(database.url, revision="base")
    elif down == "printed sql":
        run_script(database, schema.downgrade_sql(revision="base"))
    elif down == "alembic":
        done = alembic(database, "downgrade", "base")
        assert done.returncode == 0, done.stderr
    else:
        done = alembic(database, "downgrade", "head:base", "--sql")
        run_script(database, done.stdout)

    assert everything(database.url) == before


def test_every_revision_goes_down_and_up_again(database: Database, reference: set[tuple[str, ...]]) -> None:
    """Each step leaves what its predecessor had built."""
    schema.upgrade(database.url, revision="spine_0001")
    first = everything(database.url)
    schema.upgrade(database.url, revision="spine_0002")
    second = everything(database.url)
    schema.upgrade(database.url, revision="spine_0003")
    third = everything(database.url)
    schema.upgrade(database.url, revision="spine_0004")
    fourth = everything(database.url)
    schema.upgrade(database.url, revision="spine_0005")
    fifth = everything(database.url)
    schema.upgrade(database.url, revision="spine_0006")
    sixth = everything(database.url)
    schema.upgrade(database.url, revision="spine_0007")
    seventh = everything(database.url)
    schema.upgrade(database.url, revision="spine_0008")
    eighth = everything(database.url)
    schema.upgrade(database.url, revision="spine_0009")

    schema.downgrade(database.url, revision="spine_0008")
    assert everything(database.url) == eighth
    schema.downgrade(database.url, revision="spine_0007")
    assert everything(database.url) == seventh
    schema.downgrade(database.url, revision="spine_0006")
    assert everything(database.url) == sixth
    schema.downgrade(database.url, revision="spine_0005")
    assert everything(database.url) == fifth
    schema.downgrade(database.url, revision="spine_0004")
    assert everything(database.url) == fourth
    schema.downgrade(database.url, revision="spine_0003")
    assert everything(database.url) == third
    schema.downgrade(database.url, revision="spine_0002")
    assert everything(database.url) == second
    schema.downgrade(database.url, revision="spine_0001")
    assert everything(database.url) == first
    assert schema.upgrade(database.url).changed
    assert structure(database.url) == reference


def test_the_ledger_schema_of_a_dba_stays(database: Database) -> None:
    """A role without CREATE on the database uses a schema that was made for it, and does not drop it."""
    role = database.add_role("app")
    with database.connect_admin() as admin:
        admin.execute("CREATE SCHEMA spine_migrate")
        admin.execute(
            sql.SQL("GRANT USAGE, CREATE ON SCHEMA spine_migrate, public TO {}").format(sql.Identifier(role.name))
        )
    before = everything(database.url)

    schema.upgrade(database.url_as(role))
    schema.downgrade(database.url_as(role), revision="base")

    assert everything(database.url) == before


def test_what_others_keep_in_the_ledger_schema_stays(database: Database) -> None:
    schema.upgrade(database.url)
    run_script(database, "CREATE VIEW spine_migrate.mine AS SELECT 1 AS one")
    schema.downgrade(database.url, revision="base")
    with psycopg.connect(database.url) as connection:
        assert connection.execute("SELECT one FROM spine_migrate.mine").fetchone() == (1,)
