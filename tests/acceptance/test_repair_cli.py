"""``spine-migrate repair`` as it is installed: what it asks, prints and exits with, and its runbook."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from psycopg.rows import TupleRow

from tests.command import PROGRAM, environment, run
from tests.legacy import Legacy, arranged, uuid

RUNBOOK = Path(__file__).parents[2] / "runbooks" / "repair.md"


@arranged
def spoiled(legacy: Legacy) -> None:
    """Ten executions: three errors changed, one row gone, one whose legacy row is gone."""
    legacy.executions(*range(1, 11), error="boom")
    legacy.move("executions")
    legacy.execute("UPDATE runs SET error = 'other' WHERE run_id <= %s", uuid(3))
    legacy.execute("DELETE FROM runs WHERE run_id = %s", uuid(5))
    legacy.execute("DELETE FROM executions WHERE execution_id = %s", uuid(6))


def runs(legacy: Legacy) -> list[TupleRow]:
    return legacy.rows("SELECT * FROM runs ORDER BY run_id")


def test_it_repairs_compares_and_exits_with_the_verdict(spoiled: Legacy) -> None:
    ended = run(spoiled.url, "repair", "--yes")
    assert ended.returncode == 0, ended.stderr
    lines = [" ".join(line.split()) for line in ended.stdout.splitlines()]
    assert "capture-spine/executions: repaired (migration 1)" in lines
    assert {"1 moved", "3 corrected", "1 removed", "columns written: error 3"} <= set(lines)
    assert "Equal: legacy rows compared field by field: 9." in lines


def test_what_is_left_exits_1_and_is_named(spoiled: Legacy) -> None:
    spoiled.execute("UPDATE executions SET status = 'limbo' WHERE execution_id = %s", uuid(1))
    ended = run(spoiled.url, "repair", "--yes")
    assert ended.returncode == 1, ended.stderr
    assert "refused: a rule cannot carry the legacy value any more" in ended.stdout
    assert f"    {uuid(1)}  unknown_value: status, error\n" in ended.stdout


def test_json_is_one_document_with_the_comparison(spoiled: Legacy) -> None:
    ended = run(spoiled.url, "repair", "--yes", "--json", "--only", "differing")
    assert ended.returncode == 1
    document = json.loads(ended.stdout)
    (one,) = document["migrations"]
    assert (document["format"], one["rows"], one["fields"]) == (1, {"differing": 3}, {"error": 3})
    assert document["comparison"]["verdict"] == "different"


def test_it_asks_and_a_no_changes_nothing(spoiled: Legacy) -> None:
    before = runs(spoiled)
    ended = subprocess.run(
        [PROGRAM, "repair"],
        input="n\n",
        capture_output=True,
        text=True,
        check=False,
        env=environment(spoiled.url),
    )
    assert ended.returncode == 4
    assert "Repair 5 rows of the target?" in ended.stderr
    assert runs(spoiled) == before


def test_a_dry_run_exits_1_where_there_is_something_to_do(spoiled: Legacy) -> None:
    before = runs(spoiled)
    ended = run(spoiled.url, "repair", "--dry-run")
    assert ended.returncode == 1
    assert [line.split() for line in ended.stdout.splitlines()][1:] == [
        ["1", "missing", "rows"],
        ["3", "rows", "that", "differ"],
        ["1", "rows", "without", "a", "legacy", "row"],
    ]
    assert runs(spoiled) == before
    assert run(spoiled.url, "repair", "--yes").returncode == 0
    assert run(spoiled.url, "repair", "--dry-run").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--only", "some"], 2, "is not one of"),
        (["capture-spine/execution"], 2, "did you mean 'capture-spine/executions'?"),
        (["capture-spine/jobs", "--yes"], 2, "no migration of capture-spine/jobs that is not undone"),
    ],
)
def test_usage(spoiled: Legacy, arguments: list[str], code: int, sentence: str) -> None:
    ended = run(spoiled.url, "repair", *arguments)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert sentence in ended.stderr


def test_the_runbook_runs_and_its_way_back_restores_every_row(spoiled: Legacy, tmp_path: Path) -> None:
    before = runs(spoiled)
    text = RUNBOOK.read_text(encoding="utf-8")
    codes = []
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            done = subprocess.run(
                ["/bin/sh", "-c", line],
                check=False,
                capture_output=True,
                text=True,
                cwd=tmp_path,
                env=environment(spoiled.url),
            )
            assert "Traceback" not in done.stderr, line
            codes.append(done.returncode)
    # different; something to do; the first fields alone leave it different; equal, then as well
    assert codes == [1, 1, 1, 0, 0]
    assert (tmp_path / "fix.sql").exists()
    check, back = re.findall(r"^```sql\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    with spoiled.connect() as connection:
        for statement in check.strip().split("\n"):
            assert connection.execute(statement.encode()).fetchall()
        connection.execute(back.encode())
    assert runs(spoiled) == before
