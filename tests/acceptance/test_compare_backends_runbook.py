"""runbooks/compare-backends.md, from its first line to its last, with a real worker."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from psycopg.types.json import Jsonb

from spine_migrate.db import schema
from tests.acceptance.terminal import Terminal, Typed
from tests.command import environment
from tests.database import Database

_RUNBOOK = (Path(__file__).parents[2] / "runbooks" / "compare-backends.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return [str(found) for found in re.findall(rf"^```{language}\n(.*?)^```", _RUNBOOK, re.MULTILINE | re.DOTALL)]


@pytest.fixture
def terminal(tmp_path: Path, database: Database, redis_url: str) -> Iterator[Terminal]:
    database.arrange(schema.upgrade)
    (application,), (rules,) = _blocks("python"), _blocks("toml")
    (tmp_path / "shop.py").write_text(application, encoding="utf-8")
    (tmp_path / "rules.toml").write_text(rules, encoding="utf-8")
    with Terminal(tmp_path, environment(database.url, BROKER_URL=redis_url)) as made:
        yield made


def _table(typed: Typed) -> dict[str, list[str]]:
    """The cells of a report's first table, by the first one."""
    rows = [re.split(r" {2,}", line.strip()) for line in typed.told.splitlines()]
    assert rows[0] == ["Backend", "Duration", "Status", "Notes"]
    return {row[0]: row[1:] for row in rows[1 : rows.index([""])]}


def _shape(report: str) -> list[str]:
    """Without numbers of seconds, which are others every time."""
    seconds = r"[+-]?[0-9][0-9.,]*(?:us|ms|s)\b"
    without = re.sub(rf" ?\({seconds} to {seconds}\)|{seconds}(?: \([+-][0-9]+%\))?", "", report)
    return [" ".join(line.split()) for line in without.splitlines()]


def test_from_the_first_line_to_the_last(terminal: Terminal, database: Database, tmp_path: Path) -> None:
    backends, rules, old_body, production, in_ci = _blocks("sh")
    (shown,) = _blocks("text")

    here, _, through_workers = terminal.types(backends)
    assert set(_table(here)) == {"memory", "local"}
    table = _table(through_workers)
    assert {name: row[1] for name, row in table.items()} == dict.fromkeys(("memory", "local", "celery"), "completed")
    assert _shape(through_workers.told) == _shape(shown)
    with database.connect() as connection:
        runs = connection.execute("SELECT name, status, trigger_source, executor_name FROM runs").fetchall()
    assert runs == [("ingest_otc", "completed", "compare-backends", "celery")] * 5

    (with_rules,) = terminal.types(rules)
    assert "rules.toml:1 $.loaded_at: 1 difference forgiven (the time of the run)" in with_rules.told
    assert "rules.toml:5 $.rows: not used" in with_rules.told

    (legacy,) = terminal.types(old_body)
    assert _table(legacy)["memory"][1] == "completed"
    assert "result equal; events not compared" in legacy.told
    assert "$.rows[*].price: 1 difference forgiven" in legacy.told
    # What the rules forgive, they alone forgive.
    (bare,) = terminal.types(old_body.replace("--rules rules.toml ", ""), codes=(1,))
    assert "result differs at $.loaded_at and 6 more" in bare.told

    _shadowed(database, matches=299, paths=[])
    summed, gate = terminal.types(production)
    assert re.search(r"shop\.tasks\.ingest +299 +299 +0 +0% +0\.997%", summed.told)
    assert json.loads(gate.told)["verdict"] == "equal"

    terminal.types(in_ci)
    assert {suite.get("failures") for suite in ET.parse(tmp_path / "outputs.xml").getroot()} == {"0"}  # noqa: S314 - our own


def _shadowed(database: Database, *, matches: int, paths: list[str]) -> None:
    """As the shims write it."""
    events: list[dict[str, Any]] = [{"equal": True, "paths": []}] * matches
    events += [{"equal": False, "paths": [path]} for path in paths]
    with database.connect() as connection:
        for data in events:
            connection.execute(
                "WITH run AS (INSERT INTO runs (kind, name, metadata)"
                " VALUES ('pipeline', 'ingest_otc', %s) RETURNING run_id)"
                " INSERT INTO run_events (run_id, event_type, data, source)"
                " SELECT run_id, 'shadow_compared', %s, 'spine_shims' FROM run",
                (Jsonb({"celery_task": "shop.tasks.ingest"}), Jsonb(data)),
            )
