"""``spine-migrate archive`` as it is installed: what it prints and exits with, and its runbook."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest

from tests.archives import CLIENT, JOBS, fill, make
from tests.command import environment, run
from tests.database import Database, url_for
from tests.generated import generated

RUNBOOK = Path(__file__).parents[2] / "runbooks" / "archive.md"


@pytest.fixture
def filled(database: Database) -> Database:
    fill(database)
    return database


def test_create_verify_restore(filled: Database, tmp_path: Path) -> None:
    directory = tmp_path / "archive"
    made = run(filled.url, "archive", "create", "app.jobs", "APP.Base", 'app."Odd ""table""; -- name"', str(directory))
    assert made.returncode == 0, made.stderr
    assert made.stderr.splitlines()[-1] == 'Archived "app"."child": 1 rows'
    lines = made.stdout.splitlines()
    assert re.fullmatch(r'"app"."jobs"  rows 3, \d+ bytes for 22 of text', lines[2])
    assert lines[3] == '  not held: foreign key jobs_feed_id_fkey to "app"."feeds", which is not in the archive'
    assert lines[-2] == "must be there to restore: function app.twice(integer)"
    content = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    assert lines[-1] == f"Archive {content['digest'][:12]} written to {directory}."

    verified = run(None, "archive", "verify", str(directory))
    assert (verified.returncode, verified.stdout) == (
        0,
        f"Sound: tables 4, rows 8, of {filled.name} as of {content['made_at']}.\n",
    )
    restored = run(filled.url, "archive", "restore", str(directory), "--schema", "Some types")
    assert restored.returncode == 0, restored.stderr
    assert '"Some types"."jobs"  restored, rows: 3' in restored.stdout.splitlines()
    against = ("archive", "verify", str(directory), "--against", filled.url)
    beside = run(None, *against, "--schema", "Some types")
    assert (beside.returncode, beside.stdout.splitlines()[-1]) == (0, "The tables are as archived.")
    with filled.connect() as connection:
        connection.execute('DELETE FROM "Some types".base WHERE id = 2')
    beside = run(None, *against, "--schema", "Some types")
    assert beside.returncode == 1
    assert '"Some types"."child"  other rows; rows: 1 archived, 0 now' in beside.stdout.splitlines()


def test_json(filled: Database, tmp_path: Path) -> None:
    directory = str(tmp_path / "archive")
    made = json.loads(run(filled.url, "archive", "create", "app.jobs", directory, "--json").stdout)
    assert (made["format"], made["rows"], made["tables"][0]["table"]) == (1, 3, "jobs")
    verified = json.loads(run(None, "archive", "verify", directory, "--json", "--against", filled.url).stdout)
    assert verified == {
        "format": 1,
        "sound": True,
        "damage": [],
        "tables": [{"schema": "app", "table": "jobs", "rows": 3}],
        "against": [{"schema": "app", "table": "jobs", "rows": 3, "rows_now": 3, "state": "equal"}],
    }
    restored = json.loads(run(filled.url, "archive", "restore", directory, "--json", "--table", "jobs=The_jobs").stdout)
    assert [(one["schema"], one["table"], one["from"]) for one in restored["tables"]] == [
        ("app", "the_jobs", ["app", "jobs"])
    ]
    schema = json.loads(run(None, "archive", "schema").stdout)
    content = json.loads((tmp_path / "archive" / "manifest.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(content)


def test_a_damaged_archive(filled: Database, tmp_path: Path) -> None:
    directory = tmp_path / "archive"
    make(filled.url, directory, [JOBS])
    os.truncate(directory / "0001.jobs.0001.copy.gz", 5)
    (directory / "more").touch()
    verified = run(None, "archive", "verify", str(directory))
    assert verified.returncode == 1
    assert re.fullmatch(
        r"more is not in the manifest\n0001\.jobs\.0001\.copy\.gz has 5 bytes, the manifest says \d+\nDamaged: .*\n",
        verified.stdout,
    )
    told = json.loads(run(None, "archive", "verify", str(directory), "--json").stdout)
    assert (told["sound"], [one["file"] for one in told["damage"]]) == (False, ["more", "0001.jobs.0001.copy.gz"])
    refused = run(filled.url, "archive", "restore", str(directory), "--schema", "app")
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "is damaged: more is not in the manifest, and 1 more;" in refused.stderr


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["create", "app.jobs", "{here}"], 2, "is there already; name a directory that is not there yet"),
        (["create", "app.jobs", "{here}/a/b"], 2, "cannot be written: No such file or directory; nothing of it is"),
        (["create", "app.none", "{here}/a"], 3, "There is no table 'none' in the schema 'app'"),
        (["create", "jobs", "{here}/a"], 3, "There is no table 'jobs' in the search_path"),
        (["create", "app.", "{here}/a"], 2, "'app.' is no name of a table"),
        (["create", "{here}/a"], 2, "Missing argument 'TABLE...'"),
        (["verify", "{here}"], 2, "is no archive: it has no manifest.json"),
        (["verify", "{here}/made", "--schema", "x"], 2, "give --against too"),
        (["restore", "{here}"], 2, "is no archive: it has no manifest.json"),
        (["restore", "{here}/made"], 3, 'There is a relation "app"."jobs" already'),
        (["restore", "{here}/made", "--schema", "none"], 3, "There is no schema 'none' to restore into"),
        (["restore", "{here}/made", "--table", "x"], 2, "'x' is not OLD=NEW"),
        (["restore", "{here}/made", "--table", "x=y"], 2, "The archive has no table 'x'; it has \"app\".\"jobs\""),
    ],
)  # fmt: skip
def test_what_cannot_be_done(filled: Database, tmp_path: Path, words: list[str], code: int, sentence: str) -> None:
    make(filled.url, tmp_path / "made", [JOBS])
    ended = run(filled.url, "archive", *(word.format(here=tmp_path) for word in words))
    assert (ended.returncode, ended.stdout) == (code, "")
    assert sentence in " ".join(ended.stderr.split())
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"]


def test_no_server(tmp_path: Path) -> None:
    ended = run("postgresql://nobody@127.0.0.1:1/none", "archive", "create", "t", str(tmp_path / "archive"))
    assert (ended.returncode, list(tmp_path.iterdir())) == (5, [])


def test_the_runbook(database: Database, tmp_path: Path) -> None:
    """Line by line; createdb and dropdb are run as the superuser of the same server."""
    generated(database, executions=300, jobs=30, seed=5)
    blocks = re.findall(r"^```sh\n(.*?)^```", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 11
    env = environment(database.url)
    env["PATH"] = f"{CLIENT}{os.pathsep}{env['PATH']}"
    scratch = f"{database.name}_scratch"
    places = {
        "createdb scratch_archive": f"createdb --maintenance-db='{database.server_url}' {scratch}",
        "schema.sql scratch_archive": f"schema.sql '{url_for(database.server_url, scratch)}'",
        "dropdb scratch_archive": f"dropdb --maintenance-db='{database.server_url}' {scratch}",
    }
    for line in lines:
        typed = line
        for written, here in places.items():
            typed = typed.replace(written, here)
        done = subprocess.run(
            ["/bin/sh", "-c", typed], check=False, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=120
        )
        assert done.returncode == 0, f"{line}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    with database.connect() as connection:
        rows = connection.execute(
            "SELECT (SELECT count(*) FROM archived.executions), (SELECT count(*) FROM executions)"
        )
        assert len({*rows.fetchall()[0]}) == 1
