"""The first run of the README does what it says, in ten lines."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from spine_migrate.db import schema
from tests.command import environment, run
from tests.database import Database

README = Path(__file__).parents[2] / "README.md"


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_the_first_run(database: Database, tmp_path: Path) -> None:
    script, _ = blocks()
    assert len([line for line in script.splitlines() if line]) == 10
    database.arrange(schema.upgrade)
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(database.url),
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    shown = run(database.url, "runs", "show", ended.stdout.strip(), "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["run"]["result"] == {"said": "Hello, Ada"}


def test_dispatch_as_the_readme_says(tmp_path: Path) -> None:
    """With nothing but the handler."""
    script, _ = blocks()
    handler = script[script.index("@register_pipeline") : script.index("with ConnectionPool")]
    told = re.search(r"`(dispatch_sync\(.*?\))`", README.read_text(encoding="utf-8"))
    assert told is not None
    program = (
        f"from spine_migrate.execution import dispatch_sync, register_pipeline\n{handler}\n"
        f"run = {told[1]}\nprint(run.status, run.result)"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(None, ORCHESTRATOR_BACKEND="simple"),
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "completed {'said': 'Hello, Ada'}\n", "")
