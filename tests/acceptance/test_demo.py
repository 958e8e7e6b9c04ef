"""The demonstration: one command, an account that ends as the README shows it, and reports to look at."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.command import run

README = Path(__file__).parents[2] / "README.md"


def test_the_demo_ends_as_the_readme_shows(tmp_path: Path) -> None:
    ended = run(None, "demo", "--rows", "1500", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    shown = README.read_text(encoding="utf-8").partition("The account:\n")[2].partition("```")[0].splitlines()
    account = ended.stdout.partition("The account:\n")[2].splitlines()[: len(shown)]
    assert [re.sub(r"[ ]+[\d,]+| \(.*\)", "", line) for line in account] == [
        re.sub(r"[ ]+[\d,]+| \(.*\)", "", line) for line in shown
    ]
    document = json.loads((tmp_path / "spine-migrate-demo.json").read_text(encoding="utf-8"))
    page = (tmp_path / "spine-migrate-demo.html").read_text(encoding="utf-8")
    assert document["verdict"] == "equal"
    assert "<h1>Equal</h1>" in page
    assert page.count("<svg ") == len(document["comparisons"]) == 3
