"""The installed command: exit codes, what goes to stdout and stderr, files, and formats."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import spine_migrate.report
from spine_migrate.cli.compare_reports import FORMATS
from spine_migrate.parity.scope import NOT_CHECKED
from tests.command import run
from tests.database import Database
from tests.legacy import Legacy, arranged, uuid

RENDERERS = [
    path
    for path in Path(spine_migrate.report.__file__).parent.glob("parity_*.py")
    if "\ndef render(" in path.read_text(encoding="utf-8")
]
FIRST = {
    "text": "Equal: legacy rows compared",
    "json": '"verdict": "equal"',
    "markdown": "## Comparison: equal",
    "junit": '<testsuite name="capture-spine/executions"',
    "github": "::notice title=spine-migrate compare::Equal",
    "sarif": '"executionSuccessful": true',
    "html": "<h1>Equal</h1>",
}


@arranged
def moved(legacy: Legacy) -> None:
    legacy.executions(1, 2, 3)
    legacy.executions(4, status="limbo")
    legacy.move("executions")


def compare(url: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return run(None, "compare", "--target", url, *arguments, cwd=cwd)


def test_quarantined_rows_alone_are_equal_and_exit_0(moved: Legacy) -> None:
    ended = compare(moved.url)
    assert (ended.returncode, ended.stderr) == (0, "Comparing capture-spine/executions (1 of 1)\n")
    assert "Equal: legacy rows compared field by field: 4, of which in quarantine: 1." in ended.stdout
    assert "4 source rows = 3 matching + 0 differing + 1 in quarantine + 0 missing + 0 not reached" in ended.stdout
    assert "quarantine by reason: 1 unknown_value" in ended.stdout


def test_a_difference_exits_1_and_is_listed_with_its_rule(moved: Legacy) -> None:
    moved.execute("UPDATE runs SET external_ref = '' WHERE run_id = %s", uuid(2))
    ended = compare(moved.url)
    assert ended.returncode == 1
    (row,) = [line.split() for line in ended.stdout.splitlines() if line.split()[:1] == [uuid(2)]]
    assert row[1:4] == ["external_ref", "NULL", "''"]
    assert row[4].startswith("capture-spine/executions.toml:")
    assert "Different: 1 found." in ended.stdout


@pytest.mark.parametrize("arguments", [("--json",), ("--format", "json")])
def test_json_alone_is_on_stdout(moved: Legacy, arguments: tuple[str, ...]) -> None:
    document = json.loads(compare(moved.url, *arguments).stdout)
    assert (document["format"], document["verdict"]) == (1, "equal")
    assert document["snapshot"]["lsn"]
    assert document["snapshot"]["server_version"]
    assert len(document["comparisons"][0]["mapping_digest"]) == 64
    assert document["equality"].startswith("IS DISTINCT FROM")
    assert document["not_checked"]


def test_there_is_a_form_for_each_renderer() -> None:
    assert set(FORMATS) == {path.stem.removeprefix("parity_") for path in RENDERERS} - {"terminal"} | {"text"}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_goes_to_a_file(moved: Legacy, tmp_path: Path, form: str) -> None:
    file = tmp_path / "report"
    ended = compare(moved.url, "--format", form, "--output", str(file))
    assert (ended.returncode, ended.stdout) == (0, "")
    assert FIRST[form] in file.read_text(encoding="utf-8")


def test_several_reports_of_one_comparison(moved: Legacy, tmp_path: Path) -> None:
    moved.execute("UPDATE runs SET external_ref = 'x' WHERE run_id = %s", uuid(2))
    ended = compare(moved.url, *(f"--report={form}={form}" for form in FORMATS if form != "text"), cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (1, "Comparing capture-spine/executions (1 of 1)\n")
    assert "Different: 1 found." in ended.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*FORMATS} - {"text"})
    for form in ("markdown", "html", "json", "sarif", "junit"):
        assert "external_ref" in (tmp_path / form).read_text(encoding="utf-8"), form
    document = json.loads((tmp_path / "json").read_text(encoding="utf-8"))
    snapshot = document["snapshot"]["snapshot"]
    assert snapshot in (tmp_path / "html").read_text(encoding="utf-8")
    assert sum(one["differing"] for one in document["comparisons"][0]["picture"]["slices"]) == 1


def test_a_report_can_take_stdout_while_the_main_one_has_a_file(moved: Legacy, tmp_path: Path) -> None:
    ended = compare(moved.url, "--json", "--output", "parity.json", "--report", "github=-", cwd=tmp_path)
    assert ended.stdout.startswith("::notice title=spine-migrate compare::Equal")
    assert json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))["verdict"] == "equal"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--report", "pdf=x"], "'pdf=x' is not FORMAT=FILE, with one of text, json"),
        (["--report", "html"], "'html' is not FORMAT=FILE"),
        (["--report", "html="], "'html=' is not FORMAT=FILE"),
        (["--report", "html=a", "--report", "json=./a"], "Two reports would go to the same place"),
        (["--report", "html=-"], "Two reports would go to the same place"),
        (["--report", "html=no/such/folder/a"], "its folder must exist"),
        (["--report", "html=."], "its folder must exist, and it be no folder"),
    ],
)
def test_a_report_that_cannot_be_written_is_a_usage_error_before_anything_is_read(
    tmp_path: Path, arguments: list[str], told: str
) -> None:
    ended = compare("postgresql://nowhere.invalid/x", *arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert told in " ".join(ended.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_the_schema_is_printed_without_a_database_and_holds_for_the_report(moved: Legacy) -> None:
    printed = compare("postgresql://nowhere.invalid/x", "--json-schema")
    assert (printed.returncode, printed.stderr) == (0, "")
    Draft202012Validator(json.loads(printed.stdout)).validate(json.loads(compare(moved.url, "--json").stdout))


def test_what_could_not_be_told_yet_exits_4(moved: Legacy) -> None:
    moved.execute("UPDATE spine_migrate.migration SET step = 'backfill'")
    ended = compare(moved.url, "capture-spine/executions")
    assert ended.returncode == 4
    assert "is unfinished (step backfill)" in ended.stdout
    assert "Could not tell." in ended.stdout


def test_a_mapping_that_is_not_the_one_moved_with_exits_3(moved: Legacy) -> None:
    moved.execute("UPDATE spine_migrate.migration SET mapping_digest = 'f00', step = 'backfill'")
    assert compare(moved.url).returncode == 3


@pytest.mark.parametrize("part", [("--sample", "50%"), ("--since", "2024-01-01"), ("--key", uuid(1), "--key", uuid(2))])
def test_a_part_that_agrees_exits_4_and_one_that_differs_1(moved: Legacy, part: tuple[str, ...]) -> None:
    ended = compare(moved.url, "--mapping", "capture-spine/executions", *part)
    assert ended.returncode == 4
    assert "Only a part was compared" in ended.stdout
    moved.execute("UPDATE runs SET lane = 'touched'")
    assert compare(moved.url, *part).returncode == 1


@pytest.mark.parametrize(
    "part",
    [("--sample", "0.1"), ("--sample", "0%"), ("--sample", "half%"), ("--since", "today"), ("--key", "4711"),
     ("--key", uuid(1), "--sample", "1%"), ("--method", "guess")],
)  # fmt: skip
def test_a_part_that_makes_no_sense_exits_2(moved: Legacy, part: tuple[str, ...]) -> None:
    ended = compare(moved.url, *part)
    assert (ended.returncode, ended.stdout) == (2, "")


@pytest.mark.parametrize("method", ["join", "buckets"])
@pytest.mark.parametrize("exactly", [(), ("--exact",)])
def test_the_method_changes_nothing_in_the_verdict(moved: Legacy, method: str, exactly: tuple[str, ...]) -> None:
    assert compare(moved.url, "--method", method, *exactly).returncode == 0
    moved.execute("UPDATE runs SET external_ref = '' WHERE run_id = %s", uuid(2))
    ended = compare(moved.url, "--method", method, "--workers", "1", *exactly)
    assert ended.returncode == 1
    assert uuid(2) in ended.stdout
    assert ("the binary image" in ended.stdout) == bool(exactly)


def test_an_unlawful_history_exits_1_unless_histories_are_left_out(moved: Legacy) -> None:
    moved.execute("UPDATE runs SET parent_run_id = run_id WHERE run_id = %s", uuid(3))
    moved.execute("UPDATE executions SET parent_execution_id = execution_id WHERE execution_id = %s", uuid(3))
    assert compare(moved.url).returncode == 0
    moved.execute("ALTER TABLE runs DROP CONSTRAINT uq_idempotency")
    moved.execute("UPDATE executions SET idempotency_key = 'k' WHERE execution_id = %s", uuid(3))
    moved.execute("UPDATE runs SET idempotency_key = 'k' WHERE run_id = %s", uuid(3))
    moved.execute("INSERT INTO runs (kind, name, idempotency_key) VALUES ('task', 'theirs', 'k')")
    assert compare(moved.url).returncode == 1
    ended = compare(moved.url, "--no-events", "--json")
    assert (ended.returncode, json.loads(ended.stdout)["verdict"]) == (0, "equal")
    assert "--no-events" in json.loads(ended.stdout)["not_checked"][-1]


def test_two_formats_at_once_are_a_usage_error(moved: Legacy) -> None:
    assert compare(moved.url, "--json", "--format", "junit").returncode == 2


def test_a_name_that_is_no_mapping_exits_2_with_the_nearest(moved: Legacy) -> None:
    ended = compare(moved.url, "capture-spine/execution")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "did you mean 'capture-spine/executions'?" in ended.stderr


def test_a_missing_privilege_exits_3_and_names_the_table(database: Database, moved: Legacy) -> None:
    ended = compare(database.url_as(database.add_role("stranger")))
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "permission denied" in ended.stderr


def test_the_runbook_is_what_the_tool_says_and_its_commands_run(moved: Legacy, tmp_path: Path) -> None:
    runbook = (Path(__file__).parents[2] / "runbooks" / "compare.md").read_text(encoding="utf-8")
    for line in NOT_CHECKED:
        assert f"\n- {line}\n" in runbook
    commands = "".join(re.findall(r"^```sh\n(.*?)^```", runbook, re.MULTILINE | re.DOTALL)).splitlines()
    assert len(commands) == 11
    for command in commands:
        tool, name, *arguments = shlex.split(command)
        assert (tool, name) == ("spine-migrate", "compare")
        part = {"--sample", "--since", "--key"} & {*arguments}
        assert compare(moved.url, *arguments, cwd=tmp_path).returncode == (4 if part else 0), command
    assert json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"))["verdict"] == "equal"
    assert FIRST["html"] in (tmp_path / "parity.html").read_text(encoding="utf-8")
    forms = re.findall(r"^\| `([a-z]+)` \|", runbook.partition("## Reports")[2], re.MULTILINE)
    assert sorted(forms) == sorted(FORMATS)
