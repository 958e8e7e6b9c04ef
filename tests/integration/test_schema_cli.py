"""``spine-migrate db`` from the checkout and from the wheel, and the commands of its runbook."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from spine_migrate.cli import main
from spine_migrate.cli.db import db
from spine_migrate.db import schema
from tests.database import Database
from tests.integration.test_schema_structure import REPOSITORY, create_schema, run_script
from tests.structure import everything, structure

WHICH_REVISIONS = "import sys; from spine_migrate.resources import alembic_dir; print(alembic_dir(), file=sys.stderr)"


def run(database: Database | None, *arguments: str) -> Result:
    """``spine-migrate db``; without a database, with a server that cannot be reached."""
    url = "postgresql://nobody@127.0.0.1:1/none" if database is None else database.url
    return CliRunner().invoke(main, ["db", *arguments], env={"SPINE_TARGET_URL": url})


def test_upgrade_current_downgrade(database: Database) -> None:
    """Data on standard output, one sentence each; the second upgrade says that there is nothing to do."""
    assert "at base" in run(database, "current").stdout
    first = run(database, "upgrade")
    assert (first.exit_code, first.stderr) == (0, "")
    assert first.stdout == (
        "From base to spine_0009.\n"
        'The database is at spine_0009 (the newest); the target tables are in schema "public".\n'
    )
    assert run(database, "upgrade").stdout.startswith("Nothing to do. The database is at spine_0009")
    assert "(the newest is spine_0009)" in run(database, "downgrade", "spine_0002").stdout
    assert "From spine_0002 to base." in run(database, "downgrade", "base").stdout


def test_json(database: Database) -> None:
    create_schema(database, "spine")
    changed = json.loads(run(database, "upgrade", "spine_0001", "--target-schema", "spine", "--json").stdout)
    assert changed == {
        "changed": True,
        "before": {"revision": None, "head": "spine_0009", "target_schema": None},
        "revision": "spine_0001",
        "head": "spine_0009",
        "target_schema": "spine",
    }
    state = json.loads(run(database, "current", "--json").stdout)
    assert state == {"revision": "spine_0001", "head": "spine_0009", "target_schema": "spine"}


def test_sql_asks_no_server(database: Database) -> None:
    """The printed scripts are complete, and standard output has nothing else in it."""
    up, down = run(None, "upgrade", "--sql"), run(None, "downgrade", "base", "--sql")
    assert (up.exit_code, up.stderr, down.exit_code, down.stderr) == (0, "", 0, "")
    before = everything(database.url)
    run_script(database, up.stdout)
    assert schema.current(database.url).current
    run_script(database, down.stdout)
    assert everything(database.url) == before


def test_sql_and_json_exclude_each_other() -> None:
    refused = run(None, "upgrade", "--sql", "--json")
    assert refused.exit_code == 2
    assert "--json" in refused.stderr


def test_rows_are_dropped_only_with_yes(database: Database) -> None:
    run(database, "upgrade")
    run_script(database, "INSERT INTO runs (kind, name) VALUES ('task', 'a')")
    refused = run(database, "downgrade", "base")
    assert (refused.exit_code, refused.stdout) == (3, "")
    assert refused.stderr.startswith("spine-migrate: The downgrade would drop")
    assert schema.current(database.url).current
    assert run(database, "downgrade", "base", "--yes").exit_code == 0
    assert schema.current(database.url).revision is None


@pytest.mark.parametrize("command", sorted(db.commands))
def test_help_has_an_example(command: str) -> None:
    shown = run(None, command, "--help")
    assert shown.exit_code == 0
    assert f"\n    spine-migrate db {command}" in shown.stdout


def test_the_installed_wheel_brings_its_revisions(database: Database, tmp_path: Path) -> None:
    """Unpacked where no checkout is, it builds what the checkout builds."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "built")],
        check=True,
        cwd=REPOSITORY,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "built").iterdir()
    shutil.unpack_archive(wheel, tmp_path / "installed", format="zip")
    schema.upgrade(database.url)
    reference = structure(database.url)
    schema.downgrade(database.url, revision="base")

    done = subprocess.run(
        [sys.executable, "-c", f"{WHICH_REVISIONS}; from spine_migrate.cli import main; main()", "db", "upgrade"],
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed"), "SPINE_TARGET_URL": database.url},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == str(tmp_path / "installed" / "spine_migrate" / "_data" / "alembic")
    assert structure(database.url) == reference


def test_the_commands_of_the_runbook_run(database: Database, tmp_path: Path) -> None:
    """Every block marked ``sh``, in order, in a checkout, on a fresh database."""
    runbook = (REPOSITORY / "runbooks" / "schema.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", runbook, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 4
    for name in ("alembic.ini", "alembic", "spine_migrate"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, arguments in {
        "spine-migrate": ("-m", "spine_migrate"),
        "alembic": ("-m", "alembic"),
        "python": (),
    }.items():
        quoted = " ".join(f'"{argument}"' for argument in (sys.executable, *arguments))
        (programs / name).write_text(f'#!/bin/sh\nexec {quoted} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    before = everything(database.url)
    for block in blocks:
        done = subprocess.run(
            ["/bin/sh", "-ec", block],
            check=False,
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(REPOSITORY),
                "SPINE_TARGET_URL": database.url,
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert everything(database.url) == before
    assert "CREATE TABLE runs" in (tmp_path / "upgrade.sql").read_text(encoding="utf-8")
