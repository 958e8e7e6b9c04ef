"""Each kind of bad input: one sentence on stderr, the documented exit code, nothing left half done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spine_migrate.db import schema
from spine_migrate.demo.generate import generate
from spine_migrate.mapping.load import find
from spine_migrate.resources import mappings_dir
from tests.command import run
from tests.conftest import StartServer
from tests.database import Database
from tests.generated import generated
from tests.ports import free_port


def fill(database: Database, executions: int = 300) -> None:
    """Generated rows, and the target."""
    generated(database, executions=executions, seed=5, jobs=20, awkward=0)


def refused(database: Database, code: int, *words: str, command: tuple[str, ...] = ("executions-to-runs",)) -> str:
    """Run, check the exit code, one line on stderr with all ``words`` in it, and no migration begun."""
    done = run(database.url, *command, "--quiet")
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0]
    assert done.stdout == ""
    with database.connect() as connection:
        ledger = connection.execute("SELECT to_regclass('spine_migrate.migration')").fetchone()
        if ledger is not None and ledger[0] is not None:
            assert connection.execute("SELECT count(*) FROM spine_migrate.migration").fetchone() == (0,)
    return lines[0]


def test_no_server() -> None:
    """Tried for as long as it was told, then exit 5 with the host in the sentence."""
    done = run("postgresql://nobody@127.0.0.1:1/app", "executions-to-runs", "--retry-for", "0")
    assert done.returncode == 5
    assert done.stderr.startswith("spine-migrate: No server answers for app on 127.0.0.1:1 as nobody")


def test_wrong_password_is_masked(start_server: StartServer) -> None:
    """Exit 2; the password stands nowhere."""
    port = free_port()
    server = start_server(port=port)
    import psycopg

    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
    done = run(f"postgresql://guarded:hunter2-wrong@127.0.0.1:{port}/postgres", "executions-to-runs")
    assert done.returncode == 2, done.stderr
    assert "check the user and the password" in done.stderr
    assert "hunter2-wrong" not in done.stderr + done.stdout


def test_no_such_database(database: Database) -> None:
    done = run(database.url.replace(database.name, "there_is_no_such"), "executions-to-runs")
    assert done.returncode == 2
    assert '"there_is_no_such" does not exist' in done.stderr


def test_url_that_is_none() -> None:
    done = run("postgresql://host/app?nonsense=secret", "executions-to-runs")
    assert done.returncode == 2
    assert "secret" not in done.stderr


def test_target_schema_absent(database: Database) -> None:
    """Names what is missing and the command that creates it."""
    with database.connect() as connection:
        generate(connection, executions=10, jobs=0, seed=5, awkward=0)
    refused(database, 3, "spine-migrate db upgrade")


def test_missing_source_table(database: Database) -> None:
    database.arrange(schema.upgrade)
    refused(database, 3, "no table 'executions'")


def test_missing_column(database: Database) -> None:
    """A column that is not optional; the nearest that is there is offered."""
    fill(database)
    with database.connect() as connection:
        connection.execute("ALTER TABLE executions RENAME pipeline_name TO pipeline")
        connection.commit()
    refused(database, 3, "pipeline_name", "did you mean 'pipeline'")


def test_missing_optional_column_is_only_reported(database: Database) -> None:
    fill(database)
    with database.connect() as connection:
        connection.execute("ALTER TABLE executions DROP error_type, DROP retry_of_execution_id")
        connection.commit()
    done = run(database.url, "executions-to-runs", "--quiet")
    assert done.returncode == 0, done.stderr
    assert "optional columns that the source lacks: retry_of_execution_id, error_type" in done.stdout


def test_drifted_target(database: Database) -> None:
    fill(database)
    with database.connect() as connection:
        connection.execute("ALTER TABLE runs ALTER name TYPE varchar(50)")
        connection.commit()
    refused(database, 3, '"public"."runs".name is character varying(50), too short for varchar(100)')


@pytest.mark.parametrize("table", ["executions", "runs", "spine_migrate.quarantine"])
def test_missing_privilege(database: Database, table: str) -> None:
    """Names the object and the command that lists the grants."""
    fill(database)
    role = database.add_role("poor")
    with database.connect() as connection:
        connection.execute("GRANT USAGE ON SCHEMA spine_migrate TO " + role.name)
        for granted in ("executions", "runs", "run_events", "execution_events"):
            connection.execute(f"GRANT ALL ON {granted} TO {role.name}")
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA spine_migrate TO {role.name}")
        connection.execute(f"REVOKE ALL ON {table} FROM {role.name}")
        # Something to put there, so that every table is needed.
        connection.execute("UPDATE executions SET status = 'zombie' WHERE ctid = '(0,1)'")
        connection.commit()
    done = run(database.url_as(role), "executions-to-runs", "--no-events", "--quiet")
    assert done.returncode == 3, done.stderr
    assert table.rpartition(".")[2] in done.stderr
    assert "spine-migrate grants" in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('[fields.status]\ncopy = "status"', '[fields.status]\ncopi = "status"', ["fields.status.copi", "'copy'"]),
        ('[fields.lane]\ncopy = "lane"', '[fields.lane]\ncopy = "lanes"', ["fields.lane", "did you mean 'lane'"]),
        ('[fields.lane]\ncopy = "lane"', '[fields.lane]\nconstant = "x"', ["source.columns.lane", "no field copies"]),
        ('[fields.kind]\nconstant = "pipeline"', "", ["runs.kind is NOT NULL and nothing produces it"]),
        ("[fields.kind]", "[fields.kind", ["is not TOML"]),
    ],
    ids=["typo", "column", "unmapped", "not-null", "syntax"],
)
def test_mapping_with_a_mistake(database: Database, tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    """File, key path and the nearest right name; exit 2 before any connection is opened."""
    text = find("capture-spine/executions").read_text(encoding="utf-8")
    assert old in text
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "wrong.toml").write_text(text.replace(old, new), encoding="utf-8")
    mapping = str(folder / "wrong.toml")
    refused(database, 2, "wrong.toml", *words, command=("executions-to-runs", "--mapping", mapping))


def test_mapping_changed_since_the_migration_began(database: Database, tmp_path: Path) -> None:
    fill(database)
    folder = tmp_path / "capture-spine"
    folder.mkdir()
    mine = folder / "executions.toml"
    shipped = (mappings_dir() / "capture-spine" / "executions.toml").read_text(encoding="utf-8")
    mine.write_text(shipped, encoding="utf-8")
    words = ("executions-to-runs", "--no-events", "--mapping", str(mine))
    assert run(database.url, *words, "--limit", "10").returncode == 0
    mine.write_text(shipped.replace('failed = "failed"', 'failed = "cancelled"'), encoding="utf-8")
    done = run(database.url, *words)
    assert done.returncode == 2, "two statuses that become one need a keep"
    mine.write_text(shipped.replace('constant = "normal"', 'constant = "low"'), encoding="utf-8")
    done = run(database.url, *words)
    assert done.returncode == 3
    assert "has changed since migration 1 began" in done.stderr
    mine.write_text("# a comment changes nothing\n" + shipped, encoding="utf-8")
    assert run(database.url, *words).returncode == 0


def test_read_only_server(database: Database) -> None:
    fill(database)
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on')
    done = run(database.url, "executions-to-runs", "--quiet")
    assert done.returncode == 3
    assert "takes no writes" in done.stderr


@pytest.mark.parametrize("executions", [0, 1])
def test_no_row_and_one_row(database: Database, executions: int) -> None:
    fill(database, executions)
    done = run(database.url, "executions-to-runs", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert [one["state"] for one in json.loads(done.stdout)["migrations"]] == ["done", "done"]
    assert run(database.url, "compare").returncode == 0
    assert run(database.url, "executions-to-runs", "--quiet").returncode == 0


def test_rejects_only(database: Database) -> None:
    """Every row goes to quarantine; that is done with exit 1, not a failure."""
    fill(database)
    with database.connect() as connection:
        connection.execute("DROP INDEX ix_executions_one_active_per_feed")
        connection.execute("UPDATE executions SET status = 'zombie'")
        connection.commit()
    done = run(database.url, "executions-to-runs", "--json", "--quiet")
    assert done.returncode == 1
    executions, events = json.loads(done.stdout)["migrations"]
    assert executions["quarantined"] == {"unknown_value": 300}
    assert set(events["quarantined"]) == {"parent_quarantined"}


def test_two_databases_are_refused(database: Database) -> None:
    done = run(None, "executions-to-runs", "--source", "postgresql://a/x", "--target", database.url)
    assert done.returncode == 2
    assert "one database" in done.stderr


def test_dry_run_changes_nothing_and_names_what_blocks(database: Database) -> None:
    """Not ready is exit 3 with a numbered list; ready is exit 0; the database is the same before and after."""
    with database.connect() as connection:
        generate(connection, executions=300, jobs=20, seed=5, awkward=0)
    done = run(database.url, "executions-to-runs", "--dry-run")
    assert done.returncode == 3
    assert "Run spine-migrate db upgrade" in done.stdout
    run(database.url, "db", "upgrade")
    done = run(database.url, "executions-to-runs", "--dry-run", "--json")
    assert done.returncode == 0, done.stdout
    plans = json.loads(done.stdout)
    assert plans["ready"] is True
    assert [plan["mapping"] for plan in plans["plans"]] == [
        "capture-spine/executions",
        "capture-spine/execution_events",
    ]
    assert all(plan["steps"] and not plan["blocks"] for plan in plans["plans"])
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM spine_migrate.migration").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)


@pytest.mark.parametrize(
    "words",
    [("--batch-size", "0"), ("--batch-size", "many"), ("--workers", "0"), ("--limit", "-1"), ("--retry-for", "-1")],
)
def test_options_that_make_no_sense(words: tuple[str, str]) -> None:
    done = run(None, "executions-to-runs", *words)
    assert done.returncode == 2
    assert words[0] in done.stderr
