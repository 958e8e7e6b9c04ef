"""runbooks/parity-in-ci.md: its jobs are run step by step, as the two services would, and their files are there."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml

from spine_migrate.db.embedded import bundled_binaries
from spine_migrate.demo.ordinary import statement
from tests.command import environment
from tests.database import Database
from tests.legacy import Legacy, uuid

_RUNBOOK = (Path(__file__).parents[2] / "runbooks" / "parity-in-ci.md").read_text(encoding="utf-8")
_ROWS = "INSERT INTO executions (execution_id, pipeline_name, status) VALUES ('{}', 'ingest', '{}');\n"


def _blocks(language: str) -> list[str]:
    return [str(found) for found in re.findall(rf"^```{language}\n(.*?)^```", _RUNBOOK, re.MULTILINE | re.DOTALL)]


_GITHUB, _GITLAB = (yaml.safe_load(block) for block in _blocks("yaml"))


@dataclass(frozen=True)
class Runner:
    """A checkout of the application, and a shell as a service starts it."""

    folder: Path
    environment: Mapping[str, str]

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", script],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**self.environment},
            timeout=240,
        )

    def read(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8")


@pytest.fixture
def runner(database: Database, tmp_path: Path) -> Runner:
    data = tmp_path / "tests" / "data"
    data.mkdir(parents=True)
    rows = "".join(_ROWS.format(uuid(number), "limbo" if number == 4 else "completed") for number in range(1, 5))
    (data / "legacy.sql").write_text(f"{statement('legacy')}\n{rows}", encoding="utf-8")
    (suite,) = _blocks("python")
    (data.parent / "test_parity.py").write_text(suite, encoding="utf-8")
    made = environment(database.url, CI="true", GITHUB_STEP_SUMMARY=str(tmp_path / "summary.md"))
    return Runner(tmp_path, {**made, "PATH": f"{made['PATH']}:{bundled_binaries(18)}"})


def _steps() -> dict[str, str]:
    """What the job for GitHub runs, but for what comes from a registry."""
    steps: list[dict[str, Any]] = _GITHUB["jobs"]["parity"]["steps"]
    return {step["name"]: step["run"] for step in steps if "run" in step and step["name"] != "Install"}


def test_the_github_job_is_green_and_leaves_its_reports(runner: Runner) -> None:
    for name, script in _steps().items():
        done = runner.shell(script)
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        if name == "Compare":
            assert done.stdout.startswith("::notice ")
    assert json.loads(runner.read("parity/parity.json"))["verdict"] == "equal"
    certificate = json.loads(runner.read("parity/certificate.json"))
    assert certificate["verdict"] == "equal"
    assert certificate["migrations"][0]["self_test"] > 0
    assert "equal" in runner.read("summary.md")
    assert runner.read("parity/parity.html").startswith("<!doctype html>")
    assert ET.fromstring(runner.read("parity/junit.xml")).findall(".//failure") == []  # noqa: S314 - our own


def test_the_github_job_is_red_where_a_row_differs_and_says_so_everywhere(runner: Runner, database: Database) -> None:
    steps = _steps()
    for name in ("Load the legacy tables", "Migrate"):
        assert runner.shell(steps[name]).returncode == 0
    Legacy(database.url).execute("UPDATE runs SET lane = 'x' WHERE run_id = %s", uuid(2))
    done = runner.shell(steps["Compare"])
    assert done.returncode == 1
    assert done.stdout.startswith("::error ")
    assert uuid(2) in runner.read("summary.md")
    assert len(ET.fromstring(runner.read("parity/junit.xml")).findall(".//failure")) == 1  # noqa: S314 - our own
    assert not (runner.folder / "parity" / "certificate.json").exists()
    tested = runner.shell(steps["Test"])
    assert tested.returncode == 1
    assert f"{uuid(2)} lane" in tested.stdout
    assert "1 failed, 1 passed" in tested.stdout


def test_the_gitlab_job_is_green_and_its_certificate_verifies(runner: Runner) -> None:
    job = _GITLAB["parity"]
    done = runner.shell("\n".join(job["script"]))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert runner.read(job["artifacts"]["reports"]["junit"]).startswith("<?xml")
    (commands,) = _blocks("sh")
    verified = runner.shell(commands)
    assert verified.returncode == 0, verified.stderr
    assert "The certificate holds: both sides are as they were certified." in verified.stdout
    assert json.loads(runner.read("verified.json"))["outcome"] == "holds"


def test_the_jobs_name_the_database_that_their_service_is() -> None:
    parity = _GITHUB["jobs"]["parity"]
    assert parity["services"]["postgres"]["ports"] == ["5432:5432"]
    assert "@localhost:5432/" in parity["env"]["SPINE_DATABASE_URL"]
    (service,) = _GITLAB["parity"]["services"]
    assert f"@{service['alias']}:5432/" in _GITLAB["parity"]["variables"]["SPINE_DATABASE_URL"]


def test_what_a_job_writes_is_kept_when_it_is_red() -> None:
    written = {"parity/"}
    upload = _GITHUB["jobs"]["parity"]["steps"][-1]
    assert (upload["if"], {upload["with"]["path"]}) == ("always()", written)
    artifacts = _GITLAB["parity"]["artifacts"]
    assert (artifacts["when"], set(artifacts["paths"])) == ("always", written)
    for script in (_steps()["Compare"], "\n".join(_GITLAB["parity"]["script"])):
        files = re.findall(r"(?:=|--certificate )(parity/\S+)", script)
        assert len(files) == 4
