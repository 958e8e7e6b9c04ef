"""``spine-migrate mapping``, and what an application calls."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from psycopg import sql

from spine_migrate.cli import main
from spine_migrate.cli.mapping import mapping
from spine_migrate.db import schema
from spine_migrate.demo.generate import create_legacy
from spine_migrate.errors import MappingError, RowRejected
from spine_migrate.mapping import from_run_record, to_run_record
from spine_migrate.mapping.load import find, load, shipped
from spine_migrate.resources import mappings_dir
from tests.database import Database

ROW: dict[str, Any] = {
    "execution_id": UUID("7e12bde6-6ba7-434c-82f7-5ef61313fec3"),
    "pipeline_name": "ingest",
    "params": {"depth": [1, None]},
    "status": "running",
    "feed_id": UUID("8e2736e7-8d63-4323-8f3c-e50c57b6004c"),
    "retry_count": None,
    "created_at": datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["mapping", *arguments])


def _broken(folder: Path) -> str:
    """Two things are wrong with it."""
    text = find("capture-spine/executions").read_text(encoding="utf-8")
    file = folder / "broken.toml"
    text = text.replace('keep = "metadata.legacy.error_type"\n', "").replace(
        '[fields.kind]\nconstant = "pipeline"\n', ""
    )
    file.write_text(text, encoding="utf-8")
    return str(file)


def test_check_all_that_ships() -> None:
    checked = run("check")
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert [line.partition(":")[0] for line in checked.stdout.splitlines()] == shipped()


def test_check_names_every_problem(tmp_path: Path) -> None:
    file = _broken(tmp_path)
    checked = run("check", "capture-spine/jobs", file, "capture-spine/job")
    assert checked.exit_code == 2
    assert checked.stdout == "capture-spine/jobs: complete, 22 fields for 15 columns.\n"
    lossy, kind, unknown = checked.stderr.splitlines()
    assert "fields.error_type: loses part of the value" in lossy
    assert "runs.kind is NOT NULL and nothing produces it" in kind
    assert "did you mean 'capture-spine/jobs'?" in unknown
    found = json.loads(run("check", file, "--json").stdout)
    assert (len(found), len(found[0]["problems"]), found[0]["exit_code"]) == (1, 2, 2)


def test_check_against_a_database(database: Database) -> None:
    """Exit 3 for drift, with each difference; a missing optional column is only said."""
    database.arrange(schema.upgrade)
    with database.connect() as connection:
        create_legacy(connection)
        connection.execute("ALTER TABLE executions DROP lane")
    checked = run("check", "capture-spine/executions", "--target", database.url)
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert "fits the database; the table lacks optional lane." in checked.stdout
    with database.connect() as connection:
        connection.execute("ALTER TABLE executions ADD shard int, ADD area int")
    checked = run("check", "capture-spine/executions", "--target", database.url)
    assert (checked.exit_code, checked.stdout) == (3, "")
    assert [line.split()[1] for line in checked.stderr.splitlines()] == [
        '"public"."executions".shard',
        '"public"."executions".area',
    ]
    missing = run("check", "--target", database.url, "--source-schema", "nowhere")
    assert missing.exit_code == 3
    assert "There is no table" in missing.stderr


def test_show() -> None:
    shown = run("show", "capture-spine/jobs")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "\nrun_id <- job_id (bigint)\n  how: UUIDv8 of capture-spine/jobs:<key> (SHA-256)\n" in shown.stdout
    facts = json.loads(run("show", "capture-spine/jobs", "--json").stdout)
    assert [field["target"] for field in facts["fields"]] == [f.name for f in load("capture-spine/jobs").fields]
    assert facts["digest"] == load("capture-spine/jobs").digest


@pytest.mark.parametrize("name", shipped())
def test_the_printed_sql_runs(name: str, database: Database) -> None:
    """Forward, judge, inverse and parity are whole statements over the tables as declared."""
    database.arrange(schema.upgrade)
    with database.connect() as connection:
        create_legacy(connection)
        connection.execute("ALTER TABLE jobs ALTER user_id TYPE text, ALTER feed_id TYPE text")
        for form in ("forward", "judge", "inverse"):
            printed = run("sql", name, "--form", form)
            assert (printed.exit_code, printed.stderr) == (0, "")
            assert connection.execute(sql.SQL(printed.stdout)).fetchall() == []
        parity = run("sql", name, "--form", "parity").stdout
        connection.execute(sql.SQL("PREPARE parity (bigint, integer) AS {}").format(sql.SQL(parity.replace("%", "%%"))))


def test_the_printed_sql_names_the_schemas() -> None:
    printed = run("sql", "capture-spine/jobs", "--source-schema", 'ol"d').stdout
    assert printed.endswith('FROM "ol""d"."jobs" AS s;\n')


def test_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stale is exit 1 with --check, and is written anew without it; a named mapping's goes to standard output."""
    folder = tmp_path / "mappings"
    shutil.copytree(mappings_dir(), folder)
    for module in ("spine_migrate.mapping.load", "spine_migrate.mapping.emit.docs"):
        monkeypatch.setattr(f"{module}.mappings_dir", lambda: folder)
    assert run("docs", "--check").exit_code == 0
    readme = (folder / "README.md").read_text(encoding="utf-8")
    file = folder / "capture-spine" / "jobs.toml"
    file.write_text(
        file.read_text(encoding="utf-8").replace("0 is the most urgent.", "0 comes first."), encoding="utf-8"
    )
    stale = run("docs", "--check")
    assert (stale.exit_code, stale.stdout) == (1, "")
    assert "is stale" in stale.stderr
    assert run("docs").exit_code == 0
    written = (folder / "README.md").read_text(encoding="utf-8")
    assert written == readme.replace("0 is the most urgent.", "0 comes first.")
    assert run("docs", "--check").exit_code == 0
    assert run("docs", "capture-spine/jobs").stdout in written
    assert run("docs", "capture-spine/jobs", "--check").exit_code == 2


def test_schema() -> None:
    assert json.loads(run("schema").stdout)["title"] == "spine-migrate mapping"


@pytest.mark.parametrize("command", sorted(mapping.commands))
def test_help_has_an_example(command: str) -> None:
    assert f"\n    spine-migrate mapping {command}" in run(command, "--help").stdout


def test_to_run_record_and_back() -> None:
    """Seed 001, phase 1: the application's own row, with the three keys that guard one active run per feed."""
    record = to_run_record(ROW)
    assert record["run_id"] == ROW["execution_id"]
    assert (record["kind"], record["name"], record["attempt"]) == ("pipeline", "ingest", 1)
    assert record["metadata"] == {
        "feed_id": "8e2736e7-8d63-4323-8f3c-e50c57b6004c",
        "entity_type": "feed",
        "entity_id": "8e2736e7-8d63-4323-8f3c-e50c57b6004c",
        "migrated_from": "capture-spine/executions",
        "legacy": {"retry_count": None},
    }
    back = from_run_record(record)
    assert {name: back[name] for name in ROW} == ROW
    assert all(value is None for name, value in back.items() if name not in ROW)


def test_a_record_shares_nothing_with_the_mapping() -> None:
    to_run_record(ROW)["tags"]["mine"] = 1
    assert to_run_record(ROW)["tags"] == {}


def test_a_row_that_cannot_be_carried() -> None:
    with pytest.raises(
        RowRejected, match=r"rule status \(capture-spine/executions.toml:\d+\): unknown_value"
    ) as caught:
        to_run_record({**ROW, "status": "s3cret"})
    assert (caught.value.reason, caught.value.field) == ("unknown_value", "status")
    assert "s3cret" not in str(caught.value)


def test_a_row_of_another_table() -> None:
    with pytest.raises(MappingError, match="status: is missing from the row"):
        to_run_record({name: value for name, value in ROW.items() if name != "status"})
    with pytest.raises(MappingError, match="shard: is in the row, but in no rule"):
        to_run_record({**ROW, "shard": 1})
