"""Certificates on the command line: issued by an equal comparison, shown, verified, refused."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from psycopg.conninfo import make_conninfo

from spine_migrate.mapping.load import find
from tests.command import run
from tests.database import Database, fresh_database
from tests.legacy import Legacy, arranged, build, uuid


@arranged
def moved(legacy: Legacy) -> None:
    legacy.executions(1, 2, 3)
    legacy.executions(4, status="limbo")
    legacy.move("executions")


@pytest.fixture
def file(moved: Legacy, tmp_path: Path) -> Path:
    file = tmp_path / "parity.certificate.json"
    done = run(moved.url, "compare", "--certificate", str(file))
    assert (done.returncode, done.stderr.splitlines()[1]) == (0, "Hashing both sides for the certificate")
    assert done.stderr.splitlines()[2] == f"Certificate {_content(file)['digest'][:12]} written to {file}"
    return file


def _content(file: Path) -> dict[str, str]:
    content: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return content


def test_an_unchanged_database_verifies(moved: Legacy, file: Path) -> None:
    done = run(moved.url, "certificate", "verify", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "capture-spine/executions (migration 1): holds",
        "  legacy: as certified, rows: 3",
        "  target: as certified, rows: 3",
        "The certificate holds: both sides are as they were certified.",
    ]


def test_a_changed_row_is_told_by_side_and_bucket(moved: Legacy, file: Path) -> None:
    moved.execute("UPDATE runs SET lane = 'x' WHERE run_id = %s", uuid(2))
    done = run(moved.url, "certificate", "verify", str(file))
    assert done.returncode == 1
    assert "  legacy: as certified, rows: 3" in done.stdout
    assert "  target: changed, rows: 3 certified, 3 now; buckets changed: 1 of 256 (" in done.stdout
    assert "The sides differ from each other; spine-migrate compare lists the rows." in done.stdout

    told = json.loads(run(moved.url, "certificate", "verify", str(file), "--json").stdout)
    (migration,) = told["migrations"]
    assert (told["format"], told["outcome"], migration["agree"]) == (1, "changed", False)
    assert (migration["old"]["buckets"], len(migration["new"]["buckets"])) == ([], 1)


def test_what_cannot_be_told_exits_3(moved: Legacy, file: Path) -> None:
    moved.execute("UPDATE spine_migrate.migration SET step = 'undone'")
    done = run(moved.url, "certificate", "verify", str(file))
    assert done.returncode == 3
    assert "it was undone, or this is another database" in done.stdout
    assert "Could not tell whether the certificate holds." in done.stdout


def test_rules_that_cannot_be_evaluated_any_more_exit_5(database: Database, tmp_path: Path) -> None:
    mapping, file = tmp_path / "our-app" / "jobs.toml", tmp_path / "certificate.json"
    mapping.parent.mkdir()
    zone = 'zone = "America/New_York"\nlossy = "one hour of the year is there twice"'
    text = find("capture-spine/jobs").read_text(encoding="utf-8").replace('zone = "UTC"', zone)
    mapping.write_text(text, encoding="utf-8")
    legacy = build(database)
    legacy.add("jobs", {"job_id": 1, "job_type": "ocr", "status": "done", "created_at": "2024-01-01"})
    legacy.move("jobs", mapping=str(mapping))
    assert run(legacy.url, "compare", str(mapping), "--certificate", str(file)).returncode == 0
    legacy.execute("UPDATE jobs SET created_at = '294276-12-31 23:59:59'")
    done = run(legacy.url, "certificate", "verify", str(file), "--mapping", str(mapping))
    assert (done.returncode, "(SQLSTATE 22008)" in done.stdout) == (5, True)


def test_an_edited_file_exits_2_and_no_database_is_asked(file: Path) -> None:
    file.write_text(file.read_text(encoding="utf-8").replace('"rows": 3', '"rows": 4', 1), encoding="utf-8")
    for command in ("verify", "show"):
        done = run("postgresql://nobody@127.0.0.1:1/none", "certificate", command, str(file))
        assert (done.returncode, done.stdout) == (2, "")
        assert "was changed after it was written" in done.stderr


def test_a_difference_gets_no_certificate_and_leaves_an_earlier_one(moved: Legacy, file: Path) -> None:
    before = file.read_bytes()
    moved.execute("UPDATE runs SET lane = 'x' WHERE run_id = %s", uuid(2))
    done = run(moved.url, "compare", "--certificate", str(file))
    assert done.returncode == 1
    assert "No certificate: only an equal comparison has one, this one is: different." in done.stderr
    assert file.read_bytes() == before
    fresh = file.with_name("another.json")
    assert run(moved.url, "compare", "--certificate", str(fresh)).returncode == 1
    assert not fresh.exists()


def test_where_nothing_was_compared_there_is_no_certificate_either(database: Database, tmp_path: Path) -> None:
    file = tmp_path / "certificate.json"
    done = run(database.url, "compare", "--certificate", str(file))
    assert done.returncode == 3
    assert "No certificate: only an equal comparison has one, this one is: could not tell." in done.stderr
    assert not file.exists()


def test_tables_in_two_databases_get_none_and_that_is_said_at_once(
    moved: Legacy, database: Database, server_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "certificate.json"
    with fresh_database(server_url, f"{database.name}_legacy", database.owner) as elsewhere:
        done = run(moved.url, "compare", "--source", elsewhere.url, "--certificate", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert "leave out --source, or --certificate" in done.stderr
    here = make_conninfo(moved.url, connect_timeout=5)
    assert run(moved.url, "compare", "--source", here, "--certificate", str(file)).returncode == 0


def test_a_place_that_cannot_take_it_is_said_at_once(moved: Legacy, tmp_path: Path) -> None:
    done = run(moved.url, "compare", "--certificate", str(tmp_path / "none" / "certificate.json"))
    assert (done.returncode, done.stdout) == (2, "")
    assert "Comparing" not in done.stderr


def test_the_equality_is_that_of_the_comparison(moved: Legacy, file: Path) -> None:
    """The same numbers, spelled otherwise on both sides: a change only where spelling counts."""
    exact = file.with_name("exact.json")
    moved.execute("UPDATE runs SET params = '{\"n\": 1.0}'")
    moved.execute("UPDATE executions SET params = '{\"n\": 1.0}'")
    assert run(moved.url, "compare", "--certificate", str(file)).returncode == 0
    assert run(moved.url, "compare", "--exact", "--certificate", str(exact)).returncode == 0
    moved.execute("UPDATE runs SET params = '{\"n\": 1.00}'")
    assert [run(moved.url, "certificate", "verify", str(one)).returncode for one in (file, exact)] == [0, 1]


def test_show_and_schema(file: Path) -> None:
    shown = run(None, "certificate", "show", str(file))
    assert shown.returncode == 0
    assert f"Certificate {_content(file)['digest']}" in shown.stdout
    assert "rows             3 of 4 legacy rows" in shown.stdout
    schema = json.loads(run(None, "certificate", "schema").stdout)
    jsonschema.Draft202012Validator(schema).validate(_content(file))


def test_select_is_enough_to_verify(moved: Legacy, database: Database, file: Path) -> None:
    reader = database.add_role("reader")
    grants = run(moved.url, "grants", "compare", "--role", reader.name)
    with database.connect_admin(autocommit=True) as admin:
        admin.execute(grants.stdout.encode())
    assert run(database.url_as(reader), "certificate", "verify", str(file)).returncode == 0
