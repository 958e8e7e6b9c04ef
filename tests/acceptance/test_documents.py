"""What the README and the main runbook tell a user to type does what they say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from spine_migrate.demo.generate import generate
from tests.command import environment, run
from tests.database import Database

REPOSITORY = Path(__file__).parents[2]


def commands(document: str) -> list[str]:
    """The lines of all ``sh`` blocks, in order."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize(
    ("document", "count"), [("README.md", 8), ("runbooks/executions-to-runs.md", 11)], ids=["readme", "runbook"]
)
def test_commands_run_in_order(database: Database, tmp_path: Path, document: str, count: int) -> None:
    """Line by line on a fresh capture-spine database; 1 is the exit code of quarantined rows, and there are some."""
    with database.connect() as connection:
        generate(connection, executions=2000, jobs=200, seed=11)
        connection.commit()
    lines = commands(document)
    assert len(lines) == count
    env = environment(database.url)
    codes: dict[str, int] = {}
    for line in lines:
        if line.startswith("export SPINE_DATABASE_URL="):
            continue
        typed = line.replace("--role you", f"--role {database.owner.name}")
        done = subprocess.run(
            ["/bin/sh", "-c", typed], check=False, capture_output=True, text=True, cwd=tmp_path, env=env, timeout=240
        )
        assert done.returncode in (0, 1), f"{line}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, line
        codes[line.split("#")[0].strip()] = done.returncode
    assert codes["spine-migrate executions-to-runs"] == 1
    assert codes["spine-migrate compare"] == 0


def test_the_readme_shows_the_present_help_and_exit_codes() -> None:
    """The table of exit codes in the README is the one in the help."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    help_text = run(None, "--help").stdout
    table = dict(re.findall(r"^\| (\d) \| (.*) \|$", readme, re.MULTILINE))
    assert sorted(table) == list("012345")
    for code, meaning in table.items():
        assert meaning.split(";")[0].split(",")[0] in " ".join(help_text.split()), code
