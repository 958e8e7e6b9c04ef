"""``spine-migrate shims`` as it is installed: the report, the gate's exit codes, and modes that are set."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from spine_migrate.db import schema
from tests.command import run
from tests.database import Database
from tests.shim_calls import BILL, SEND, add_call, add_worker, days


@pytest.fixture
def shims(database: Database) -> Database:
    database.arrange(schema.upgrade)
    return database


#: These rows are as old as they are by the server's clock, which the command goes by.
NOW = datetime.now(UTC)


def _json(ended: subprocess.CompletedProcess[str], code: int = 0) -> Any:
    assert ended.returncode == code, ended.stderr
    return json.loads(ended.stdout)


def test_the_report_lists_who_calls(shims: Database) -> None:
    add_call(shims, NOW - days(1), host="web-2", count=1200, first_seen=NOW - days(30))
    for number in range(4):
        add_call(shims, NOW - days(2), caller="beat: every night", host=f"pod-{number}", side="dispatch")
    add_call(shims, NOW - days(9), task=SEND, caller="\x1b[31mred [bold]")
    shown = run(shims.url, "shims", "report")
    head, first, second, third = shown.stdout.splitlines()
    columns = ["task", "caller", "hosts", "version", "mode", "became", "count", "first seen", "last seen"]
    assert re.split(r" {2,}| (?=count)", head.strip()) == columns
    assert re.split(r" {2,}", first)[:7] == [BILL, "shop/views.py:7 pay", "web-2", "1.0", "legacy", "legacy", "1,200"]
    assert "pod-0, pod-1, pod-2 and 1 more" in second
    assert "\\x1b[31mred [bold]" in third

    calls = _json(run(shims.url, "shims", "report", "--since", "7d", "--json"))["calls"]
    assert [one["hosts"] for one in calls] == [["web-2"], ["pod-0", "pod-1", "pod-2", "pod-3"]]
    assert set(calls[0]) == {
        "task", "caller", "hosts", "version", "mode", "side", "count", "first_seen", "last_seen"
    }  # fmt: skip
    assert datetime.fromisoformat(calls[0]["last_seen"]) == NOW - days(1)
    of_send = _json(run(shims.url, "shims", "report", "--task", SEND, "--json"))
    assert [one["task"] for one in of_send["calls"]] == [SEND]


def test_an_empty_report_says_so(shims: Database) -> None:
    ended = run(shims.url, "shims", "report")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "No call was counted.\n")
    assert _json(run(shims.url, "shims", "report", "--json")) == {"format": 1, "calls": []}


def test_the_gate_has_three_ends(shims: Database) -> None:
    gate = ("shims", "report", "--silent-for", "14d", "--task", BILL)
    unknown = run(shims.url, *gate)
    assert unknown.returncode == 3
    assert unknown.stdout.startswith("Could not tell of 1 task whether there were calls since")
    assert f"No worker has announced the task {BILL}" in unknown.stdout
    assert _json(run(shims.url, *gate, "--json"), 3)["verdict"] == "unknown"

    # Not as of when this module was read, which may be long ago.
    add_worker(shims, NOW - days(20), datetime.now(UTC))
    add_call(shims, NOW - days(15))
    silent = run(shims.url, *gate)
    assert (silent.returncode, silent.stderr) == (0, "")
    assert silent.stdout.startswith("Silent: no call of 1 task since")
    told = _json(run(shims.url, *gate, "--json"))
    assert (told["verdict"], told["tasks"], told["calls"], told["reasons"]) == ("silent", [BILL], [], [])

    add_call(shims, NOW - days(13), caller="shop/api.py:3 post")
    called = run(shims.url, *gate)
    assert called.returncode == 1
    assert called.stdout.startswith("Not silent: 1 of 1 task called since")
    assert "shop/api.py:3 post" in called.stdout
    assert "shop/views.py:7" not in called.stdout
    told = _json(run(shims.url, *gate, "--json"), 1)
    assert [one["caller"] for one in told["calls"]] == ["shop/api.py:3 post"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("report", "--since", "1d", "--silent-for", "1d"), "--since and --silent-for exclude each other"),
        (("report", "--silent-for", "soon"), "neither a duration"),
        (("report", "--silent-for", "2999-01-01"), "a time to come"),
        (("mode", BILL, "canary"), "'canary' is no mode of a task; it is legacy, dispatch, shadow or canary=N%"),
        (("mode", "--clear"), "--clear goes with a TASK"),
        (("mode", BILL, "legacy", "--clear"), "--clear goes with a TASK"),
        (("mode", "", "legacy"), "TASK is empty"),
    ],
)
def test_mistakes_end_with_2(words: tuple[str, ...], sentence: str, shims: Database) -> None:
    ended = run(shims.url, "shims", *words)
    assert ended.returncode == 2
    assert sentence in ended.stderr


def test_modes_are_set_shown_cleared_and_audited(shims: Database) -> None:
    empty = run(shims.url, "shims", "mode")
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", "No mode is set.\n")
    first = run(shims.url, "shims", "mode", BILL, "canary=10%")
    assert "No worker has announced" in first.stderr
    add_worker(shims, NOW - days(1), datetime.now(UTC))
    second = run(shims.url, "shims", "mode", BILL, "dispatch")
    assert (second.returncode, second.stderr) == (0, "")
    assert run(shims.url, "shims", "mode", "*", "legacy").stderr == ""
    modes = _json(run(shims.url, "shims", "mode", "--json"))["modes"]
    assert [(one["task"], one["mode"], one["set_by"]) for one in modes] == [
        ("*", "legacy", shims.owner.name),
        (BILL, "dispatch", shims.owner.name),
    ]
    assert re.search(rf"{BILL} +dispatch +{shims.owner.name} +20", run(shims.url, "shims", "mode", BILL).stdout)
    cleared = run(shims.url, "shims", "mode", BILL, "--clear")
    assert (cleared.returncode, cleared.stdout, cleared.stderr) == (0, "", f"No mode is set for {BILL}.\n")
    with shims.connect() as connection:
        told = connection.execute("SELECT who, detail FROM spine_migrate.audit WHERE action = 'shim mode'").fetchall()
    assert told == [
        (shims.owner.name, {"task": BILL, "mode": "canary=10%", "before": None}),
        (shims.owner.name, {"task": BILL, "mode": "dispatch", "before": "canary=10%"}),
        (shims.owner.name, {"task": "*", "mode": "legacy", "before": None}),
        (shims.owner.name, {"task": BILL, "mode": None, "before": "dispatch"}),
    ]


def test_a_database_without_the_tables_is_refused(database: Database) -> None:
    for words in (("report",), ("report", "--silent-for", "1d"), ("mode",)):
        ended = run(database.url, "shims", *words)
        assert ended.returncode == 3
        assert "spine-migrate db upgrade" in ended.stderr


def test_the_help_is_fast_and_has_examples() -> None:
    script = """
import contextlib, io, sys
from spine_migrate.cli import main
for name in ("report", "mode"):
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        main(["shims", name, "--help"], prog_name="spine-migrate")
    assert f"  spine-migrate shims {name}" in shown.getvalue().partition("Examples:")[2], name
print(*sorted({module.partition(".")[0] for module in sys.modules}))
"""
    ended = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert {"psycopg", "sqlalchemy", "alembic", "rich", "spine_shims"}.isdisjoint(ended.stdout.split())
