"""``spine-migrate runs``: what it shows, what it asks for, and how it ends."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from spine_migrate.cli import main
from spine_migrate.db import schema
from spine_migrate.execution import RunRecord, RunStatus, SyncDispatcher, WorkSpec
from tests.command import environment
from tests.database import Database, url_for
from tests.runs import NOW, add_run, cli, dispatching, key, numbers, told

_REPOSITORY = Path(__file__).parents[2]
_UNKNOWN = str(key(999))


@pytest.fixture
def runs(database: Database) -> Database:
    database.arrange(schema.upgrade)
    return database


@dataclass(frozen=True)
class Ledger:
    """Runs of every kind of standing; ``ids`` by what each is."""

    database: Database
    dispatcher: SyncDispatcher
    ids: dict[str, str]

    def run(self, name: str) -> RunRecord:
        run = self.dispatcher.get_run(self.ids[name])
        assert run is not None
        return run


@pytest.fixture
def ledger(runs: Database) -> Iterator[Ledger]:
    with dispatching(runs.url) as dispatcher:
        names = ("pending", "queued", "running", "completed", "failed", "dead")
        ids = {name: dispatcher.submit_task(name) for name in names[1:]}
        ids["pending"] = dispatcher.submit_task("pending", connection=None, due_at=NOW + timedelta(days=1))
        for name in names[2:]:
            dispatcher.ledger.claim(ids[name], "worker", lease_seconds=600)
        dispatcher.mark_completed(ids["completed"], {"rows": 3})
        dispatcher.mark_failed(ids["failed"], "no such feed", "LookupError")
        dispatcher.ledger.fail(ids["dead"], "no luck", "RuntimeError", dead=True)
        yield Ledger(runs, dispatcher, ids)


_LISTS: list[tuple[tuple[str, ...], list[int]]] = [
    ((), [6, 5, 4, 3, 2, 1]),
    (("--status", "failed"), [3, 2]),
    (("--name", "fetch"), [5, 1]),
    (("--lane", "slow"), [6]),
    (("--kind", "workflow"), [4]),
    (("--tag", "team"), [5, 4]),
    (("--tag", "team=search"), [5]),
    (("--parent", str(key(4))), [6, 5]),
    (("--since", "3d"), [6, 5, 4]),
    (("--since", "100h", "--until", "36h"), [4, 3]),
    (("--until", (NOW - timedelta(days=4)).isoformat()), [2, 1]),
    (("--status", "failed", "--limit", "1"), [3]),
    (("--offset", "4"), [2, 1]),
    (("--name", "fetch", "--tag", "team=search", "--since", "2w"), [5]),
    (("--name", "nobody's"), []),
]


def test_lists(runs: Database) -> None:
    more: dict[int, dict[str, Any]] = {
        1: {"name": "fetch"},
        2: {"status": "failed"},
        3: {"status": "failed"},
        4: {"kind": "workflow", "tags": {"team": "ads"}},
        5: {"name": "fetch", "tags": {"team": "search"}, "parent_run_id": key(4)},
        6: {"lane": "slow", "parent_run_id": key(4)},
    }
    for number, columns in more.items():
        add_run(runs, number, days=6 - number + 0.25, **columns)
    for options, expected in _LISTS:
        ids = [str(key(number)) for number in expected]
        listed = told(cli(runs, "runs", "list", "--json", *options))
        assert [run["run_id"] for run in listed["runs"]] == ids, options
        table = cli(runs, "runs", "list", *options)
        assert re.findall(r"^[0-9a-f-]{36}", table.stdout, re.MULTILINE) == ids, options
        assert ("No run matches." in table.stderr) == (not expected)
        assert ("--offset 1 goes on" in table.stderr) == (options[-2:] == ("--limit", "1"))


def test_what_a_list_shows_is_harmless_to_a_terminal(runs: Database) -> None:
    add_run(runs, 1, name="\x1b[31mred", error_type="[bold]Error", status="failed")
    shown = cli(runs, "runs", "list").stdout
    assert "\x1b" not in shown
    assert "\\x1b[31mred" in shown
    assert "[bold]Error" in shown


def test_a_run_is_shown_with_its_events_and_the_time_between_them(ledger: Ledger) -> None:
    run_id = ledger.ids["failed"]
    with ledger.database.connect() as connection:
        for event, seconds in {"queued": 0.25, "started": 90.25, "failed": 7290.25}.items():
            at = ledger.run("failed").created_at + timedelta(seconds=seconds)
            connection.execute(
                "UPDATE run_events SET timestamp = %s WHERE run_id = %s AND event_type = %s", (at, run_id, event)
            )
    shown = told(cli(ledger.database, "runs", "show", run_id, "--json"))
    assert shown["run"] == ledger.run("failed").to_dict()
    timeline = [(event["event_type"], event["seconds_since_previous"]) for event in shown["events"]]
    assert timeline == [("created", None), ("queued", 0.25), ("started", 90.0), ("failed", 7200.0)]
    text = cli(ledger.database, "runs", "show", run_id).stdout
    assert text.splitlines()[0] == f"{run_id}  task failed: failed"
    found = re.findall(r"Z +(?:\+(\S+ \S+(?: \d+ \S+)?))? +(created|queued|started|failed) ", text)
    assert found == [("", "created"), ("0.250 s", "queued"), ("1 min 30 s", "started"), ("2 h 0 min", "failed")]
    assert "no such feed" in text


def test_cancel(ledger: Ledger) -> None:
    """At once where nobody has the run; its worker is asked where one has."""
    words = ("runs", "cancel", ledger.ids["pending"], ledger.ids["queued"], ledger.ids["running"])
    done = told(cli(ledger.database, *words, "--reason", "wrong feed", "--json"))
    assert [run["outcome"] for run in done["runs"]] == ["cancelled", "cancelled", "asked"]
    assert [ledger.run(name).status for name in ("pending", "queued", "running")] == [
        "cancelled",
        "cancelled",
        "running",
    ]
    assert ledger.dispatcher.get_events(ledger.ids["queued"])[-1].data == {"reason": "wrong feed"}
    with ledger.database.connect() as connection:
        asked = connection.execute("SELECT run_id::text FROM run_handoff WHERE cancel_requested").fetchall()
    assert asked == [(ledger.ids["running"],)]


def test_retry_leaves_a_new_run_to_the_relay(ledger: Ledger) -> None:
    (done,) = told(cli(ledger.database, "runs", "retry", ledger.ids["failed"], "--json"))["runs"]
    again = ledger.dispatcher.get_run(done["new_run_id"])
    assert again is not None
    assert (again.status, again.retry_of_run_id, again.attempt) == ("pending", ledger.ids["failed"], 2)
    published = ledger.dispatcher.ledger.publishable(10, again_in_seconds=60)
    assert [run.run_id for run in published] == [again.run_id]
    assert "for the relay to publish" in done["sentence"]


def test_reprocess_leaves_the_run_to_the_relay(ledger: Ledger) -> None:
    shown = cli(ledger.database, "runs", "reprocess", ledger.ids["dead"])
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert "pending again, attempt 2, for the relay to publish" in shown.stdout
    assert ledger.run("dead").status is RunStatus.PENDING
    published = ledger.dispatcher.ledger.publishable(10, again_in_seconds=60)
    assert [run.run_id for run in published] == [ledger.ids["dead"]]


_UNDONE = [
    ("cancel", ["completed"], 3),
    ("cancel", ["unknown"], 2),
    ("cancel", ["no uuid"], 2),
    ("cancel", ["unknown", "completed"], 2),
    ("cancel", ["completed", "unknown", "queued"], 1),
    ("retry", ["running"], 3),
    ("retry", ["completed"], 3),
    ("retry", ["unknown"], 2),
    ("reprocess", ["failed"], 3),
    ("reprocess", ["unknown"], 2),
    ("reprocess", ["failed", "dead"], 1),
]


def test_what_cannot_be_done_ends_with_a_code_and_a_sentence(ledger: Ledger) -> None:
    for action, which, code in _UNDONE:
        before = {name: ledger.run(name).status for name in ledger.ids}
        ids = [ledger.ids.get(name, _UNKNOWN if name == "unknown" else name) for name in which]
        ended = cli(ledger.database, "runs", action, *ids)
        assert ended.exit_code == code, (action, which)
        lines = ended.stderr.splitlines()
        assert len(lines) == len(which) - (code == 1)
        assert all(run_id in line for run_id, line in zip(ids, lines, strict=False))
        assert bool(ended.stdout) == (code == 1)
        changed = {name for name in before if ledger.run(name).status != before[name]}
        assert changed == ({which[-1]} if code == 1 else set())


def test_a_retry_that_another_run_stands_in_the_way_of_is_refused(runs: Database) -> None:
    entity = {"entity_type": "feed", "entity_id": "7"}
    add_run(runs, 1, status="failed", metadata=entity)
    add_run(runs, 2, status="running", metadata=entity)
    ended = cli(runs, "runs", "retry", str(key(1)))
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert str(key(2)) in ended.stderr
    assert numbers(runs) == {1, 2}


@pytest.mark.parametrize(
    "words", [("list",), ("show", _UNKNOWN), ("cancel", _UNKNOWN), ("purge", "--older-than", "1d", "--yes"),
              ("index", "create"), ("index", "status")]
)  # fmt: skip
def test_without_the_tables(database: Database, words: tuple[str, ...]) -> None:
    ended = cli(database, "runs", *words)
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert "Run spine-migrate db upgrade first." in ended.stderr


@pytest.mark.parametrize("words", [("list",), ("show", _UNKNOWN), ("retry", _UNKNOWN)])
def test_without_a_server(words: tuple[str, ...]) -> None:
    url = "postgresql://someone:secret@127.0.0.1:1/nowhere"
    ended = CliRunner().invoke(main, ["runs", *words, "--target", url])
    assert (ended.exit_code, ended.stdout) == (5, "")
    assert "No server answers for nowhere on 127.0.0.1:1 as someone" in ended.stderr
    assert "secret" not in ended.stderr


@pytest.mark.parametrize(
    "words", [("list",), ("show", str(key(1))), ("cancel", str(key(1))), ("purge", "--older-than", "1d", "--yes")]
)
def test_without_a_privilege(runs: Database, words: tuple[str, ...]) -> None:
    add_run(runs, 1)
    role = runs.add_role("nobody")
    ended = CliRunner().invoke(main, ["runs", *words, "--target", url_for(runs.server_url, runs.name, role)])
    assert (ended.exit_code, ended.stdout) == (3, "")
    assert "lacks a privilege" in ended.stderr
    assert "spine-migrate grants" in ended.stderr


def test_the_tables_are_found_where_the_upgrade_put_them(database: Database) -> None:
    with database.connect() as connection:
        connection.execute('CREATE SCHEMA "Spine Runs"')
    schema.upgrade(database.url, target_schema="Spine Runs")
    with dispatching(database.url, "Spine Runs") as dispatcher:
        dispatcher.ledger.create(RunRecord(WorkSpec("task", "there"), run_id=str(key(1))))
    assert [run["name"] for run in told(cli(database, "runs", "list", "--json"))["runs"]] == ["there"]
    assert cli(database, "runs", "cancel", str(key(1))).exit_code == 0
    assert cli(database, "runs", "index", "create", "status").exit_code == 0
    assert told(cli(database, "runs", "purge", "--older-than", "0s", "--yes", "--json"))["runs"] == {"cancelled": 1}
    other = cli(database, "runs", "list", "--target-schema", "public")
    assert other.exit_code == 3
    assert "'public'" in other.stderr


def test_the_commands_of_the_runbook_run(ledger: Ledger, tmp_path: Path) -> None:
    """Line by line; the ids that it writes are those of runs here."""
    text = (_REPOSITORY / "runbooks" / "runs.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) == 17
    names = {"RUNNING": "running", "FAILED": "failed", "DEAD": "dead"}
    for line in lines:
        typed = re.sub(r"\b(RUNNING|FAILED|DEAD)\b", lambda found: ledger.ids[names[found[0]]], line)
        done = subprocess.run(
            ["/bin/sh", "-c", typed],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(ledger.database.url),
            timeout=60,
        )
        # Indexes that are not there are what the first status is to show.
        assert done.returncode == (1 if "may exit with 1" in line else 0), f"{line}\n{done.stdout}\n{done.stderr}"
    assert ledger.run("dead").status is RunStatus.PENDING
    assert json.loads((tmp_path / "failed.json").read_text(encoding="utf-8"))["format"] == 1
