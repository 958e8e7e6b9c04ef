"""The application and the requests of runbooks/api.md do what it says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from spine_migrate.db import schema
from tests.command import environment
from tests.database import Database

_RUNBOOK = Path(__file__).parents[2] / "runbooks" / "api.md"

_LINE = re.compile(r"(GET|POST) (\S+)(?: (\{.*\}))? +# (\d+).*")

#: Sends the requests of argv[1], and waits for the first run, which is executed meanwhile, before it goes on.
_CLIENT = """
import json, sys, time
from fastapi.testclient import TestClient
from app import app

run_id, answers = "", []
with TestClient(app) as client:
    for method, path, body in json.loads(sys.argv[1]):
        answer = client.request(method, path.replace("RUN", run_id), json=body)
        answers.append((answer.status_code, answer.json()))
        if not run_id:
            run_id = answer.json()["run_id"]
            end = time.monotonic() + 60
            while client.get(f"/runs/{run_id}").json()["status"] != "completed" and time.monotonic() < end:
                time.sleep(0.02)
print(json.dumps(answers))
"""


def _block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", _RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_application_answers_as_the_runbook_says(database: Database, tmp_path: Path) -> None:
    database.arrange(schema.upgrade)
    (tmp_path / "app.py").write_text(_block("python"), encoding="utf-8")
    lines = [_LINE.fullmatch(line) for line in _block("http").splitlines()]
    asked = [(line[1], line[2], json.loads(line[3]) if line[3] else None) for line in lines if line is not None]
    assert len(asked) == len(lines) == 16
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _CLIENT, json.dumps(asked)],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment(database.url),
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    answers = json.loads(done.stdout)
    assert [status for status, _ in answers] == [int(line[4]) for line in lines if line is not None], answers
    first, again, found = (body for _, body in answers[:3])
    assert again["run_id"] == first["run_id"]
    assert found["result"] == {"greeting": "Hello, Ada."}
    assert [run["run_id"] for run in answers[5][1]["runs"]] == [first["run_id"]]
    assert [run["execution_id"] for run in answers[13][1]] == [first["run_id"]]
