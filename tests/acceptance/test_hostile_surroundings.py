"""What a database, a role or a shell may do to a command: one clear sentence, or no difference at all."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from psycopg import sql

from spine_migrate.db.connect import connect
from tests.command import PROGRAM, environment, run
from tests.database import Database
from tests.generated import generated


@pytest.fixture
def filled(database: Database) -> Database:
    generated(database, executions=60, jobs=5, seed=5, awkward=0)
    return database


def said(database: Database, *command: str) -> tuple[int, str]:
    """Exit code and the one line on stderr."""
    done = run(database.url, *command)
    (line,) = done.stderr.strip().splitlines()
    return done.returncode, line


@pytest.mark.parametrize(
    "setting",
    [
        "sslmode=bogus",
        "port=99999",
        "connect_timeout=soon",
        "service=nosuch",
        "options=-c%20nosuch%3D1",
        "options=-c%20work_mem%3Dlots",
    ],
)
def test_connection_settings_that_make_no_sense(database: Database, setting: str) -> None:
    done = run(f"{database.url}&{setting}" if "?" in database.url else f"{database.url}?{setting}", "status")
    assert done.returncode == 2, done.stderr
    assert "The connection settings cannot be used" in done.stderr
    assert database.owner.password not in done.stderr


@pytest.mark.parametrize("table", ["executions", "runs", "spine_migrate.quarantine"])
def test_row_security_is_told_from_a_missing_grant(filled: Database, table: str) -> None:
    with filled.connect() as connection:
        name = sql.Identifier(*table.split("."))
        for change in ("ENABLE", "FORCE"):
            connection.execute(sql.SQL("ALTER TABLE {} {} ROW LEVEL SECURITY").format(name, sql.SQL(change)))
    code, line = said(filled, "executions-to-runs", "--quiet")
    assert code == 3
    assert table.rpartition(".")[2] in line
    assert "BYPASSRLS" in line


def test_a_foreign_table_among_the_partitions(filled: Database) -> None:
    """The plan and the move refuse by its name, and nothing is begun."""
    with filled.connect_admin(autocommit=True) as admin:
        admin.execute("CREATE FOREIGN DATA WRAPPER far")
        admin.execute("CREATE SERVER away FOREIGN DATA WRAPPER far")
        admin.execute(sql.SQL("GRANT USAGE ON FOREIGN SERVER away TO {}").format(sql.Identifier(filled.owner.name)))
    with filled.connect() as connection:
        connection.execute("DROP TABLE execution_events, executions")
        connection.execute(
            "CREATE TABLE executions (execution_id uuid NOT NULL, pipeline_name text, params jsonb, status text,"
            " created_at timestamptz) PARTITION BY LIST (status)"
        )
        connection.execute("CREATE TABLE here PARTITION OF executions DEFAULT")
        connection.execute("CREATE FOREIGN TABLE there PARTITION OF executions FOR VALUES IN ('failed') SERVER away")
    code, line = said(filled, "executions-to-runs", "--no-events", "--quiet")
    assert code == 3
    assert "a part that is a foreign table (public.there)" in line
    planned = run(filled.url, "executions-to-runs", "--no-events", "--dry-run")
    assert planned.returncode == 3
    assert "a part that is a foreign table (public.there)" in planned.stdout
    with filled.connect() as connection:
        assert connection.execute("SELECT count(*) FROM spine_migrate.migration").fetchone() == (0,)


def test_a_statement_timeout_of_the_role_holds_for_no_session_of_ours(filled: Database) -> None:
    """``compare`` reads two tables in one statement; the move is tested with a batch that is really slow."""
    role, name = sql.Identifier(filled.owner.name), sql.Identifier(filled.name)
    with filled.connect_admin(autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER ROLE {} IN DATABASE {} SET statement_timeout = '10s'").format(role, name))
    with filled.connect() as theirs, connect(filled.url) as ours:
        assert theirs.execute("SHOW statement_timeout").fetchone() == ("10s",)
        assert ours.execute("SHOW statement_timeout").fetchone() == ("0",)


@pytest.mark.parametrize(
    "command", [("status",), ("executions-to-runs", "--quiet"), ("mapping", "show", "capture-spine/jobs")]
)
def test_an_output_that_is_full(filled: Database, command: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [PROGRAM, *command], check=False, stdout=full, stderr=subprocess.PIPE, text=True,
            env=environment(filled.url), timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "The system refuses the output: No space left on device; what was committed stays." in done.stderr


def test_a_mapping_that_the_system_does_not_give(filled: Database, tmp_path: Path) -> None:
    done = run(filled.url, "executions-to-runs", "--mapping", str(tmp_path / "no" / "such.toml"))
    assert done.returncode == 2
    assert "such.toml" in done.stderr
    (tmp_path / "folder.toml").mkdir()
    done = run(filled.url, "executions-to-runs", "--mapping", str(tmp_path / "folder.toml"))
    assert done.returncode == 2
    assert "folder.toml" in done.stderr


def test_a_trigger_that_refuses_rows_in_plain_words(filled: Database) -> None:
    """RAISE EXCEPTION without a code of its own."""
    with filled.connect() as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.status = 'failed' THEN"
            " RAISE EXCEPTION 'no failures here'; END IF; RETURN NEW; END $$;"
            "CREATE TRIGGER refuse BEFORE INSERT ON runs FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
        row = connection.execute("SELECT count(*) FROM executions WHERE status = 'failed'").fetchone()
        assert row is not None
    done = run(filled.url, "executions-to-runs", "--no-events", "--quiet", "--json")
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["migrations"][0]["quarantined"] == {"server_refused": row[0]}
