"""Hooks, metrics, the log and the screen of the installed command line, and the runbook about them."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from spine_migrate.observe.facts import EVENTS, IN_ENVIRONMENT
from spine_migrate.observe.metrics import Metrics
from tests.closed_schema import closed_schema
from tests.command import PROGRAM, environment, run, start
from tests.conftest import StartServer
from tests.database import Database
from tests.generated import generated
from tests.legacy import build
from tests.observers import executable, listening

_RUNBOOK = (Path(__file__).parents[2] / "runbooks" / "monitoring.md").read_text(encoding="utf-8")


@pytest.fixture
def filled(database: Database) -> Database:
    generated(database, executions=500, jobs=100, seed=8)
    return database


def log_of(stderr: str) -> list[dict[str, Any]]:
    """Every line of it, each by the schema."""
    schema = json.loads(files("spine_migrate.observe").joinpath("log.schema.json").read_text(encoding="utf-8"))
    validator = Draft202012Validator(closed_schema(schema))
    lines = [json.loads(line) for line in stderr.splitlines()]
    for line in lines:
        validator.validate(line)
    return lines


def test_a_move_that_is_watched_in_every_way(filled: Database, tmp_path: Path) -> None:
    """What hooks, metrics and the log say is what the outcome on stdout says."""
    for event in EVENTS:
        executable(tmp_path / "hooks", event, f"cat >> {tmp_path}/called; echo >> {tmp_path}/called; echo on stdout")
    watched = (
        "--hooks",
        str(tmp_path / "hooks"),
        "--metrics-file",
        str(tmp_path / "runs.prom"),
        "--log-format",
        "json",
    )
    done = run(filled.url, "executions-to-runs", "--json", *watched)
    assert done.returncode == 1, "rows are in quarantine"
    migrations = json.loads(done.stdout)["migrations"]
    quarantined = {one["mapping"]: one["quarantined"] for one in migrations}

    called = [json.loads(line) for line in (tmp_path / "called").read_text().splitlines()]
    order = [told["event"] for told in called if told["event"] != "on-quarantine"]
    assert order == ["before-backfill", "on-transition", "on-transition", "after-backfill"] * 2 + ["on-end"]
    assert (called[-1]["command"], called[-1]["exit_code"], called[-1]["code"]) == ("executions-to-runs", 1, None)

    log = log_of(done.stderr)
    assert [line["event"] for line in log if line["event"] in ("before-backfill", "transition", "end")] == [
        *(["before-backfill", "transition", "transition"] * 2),
        "end",
    ]
    for told in (called, log):
        for mapping, reasons in quarantined.items():
            found = [one for one in told if one["event"].endswith("quarantine") and one["mapping"] == mapping]
            assert {name: sum(one["reasons"].get(name, 0) for one in found) for name in reasons} == reasons

    families = {one.name: one for one in text_string_to_metric_families((tmp_path / "runs.prom").read_text())}
    moved = {
        sample.labels["mapping"]: sample.value
        for sample in families["spine_migrate_rows_moved"].samples
        if sample.name.endswith("_total")
    }
    assert moved == {one["mapping"]: one["moved"] for one in migrations}
    steps = families["spine_migrate_step"].samples
    assert {one.labels["spine_migrate_step"] for one in steps if one.value} == {"done"}


def test_a_veto_is_a_refusal(filled: Database, tmp_path: Path) -> None:
    """Exit code 3, one sentence, as text and in the log; nothing begun. Without the hook it goes."""
    file = executable(tmp_path / "hooks", "before-backfill", "echo not today >&2; exit 9")
    watched = ("executions-to-runs", "--hooks", str(tmp_path / "hooks"))
    done = run(filled.url, *watched)
    sentence = f"The hook before-backfill ({file}) vetoes: exit code 9: not today; nothing was changed."
    assert (done.returncode, done.stdout, done.stderr) == (3, "", f"spine-migrate: {sentence}\n")
    assert run(filled.url, "status").stdout == "No migration has been started in this database.\n"
    done = run(filled.url, *watched, "--log-format", "json")
    before, end, error = log_of(done.stderr)
    assert before["event"] == "before-backfill"
    assert (end["event"], end["exit_code"], end["code"]) == ("end", 3, "hook-veto")
    assert (error["event"], error["level"], error["message"]) == ("error", "error", sentence)


def test_a_hook_that_fails_is_told_and_nothing_more(filled: Database, tmp_path: Path) -> None:
    file = executable(tmp_path / "hooks", "after-backfill", "echo broken >&2; exit 1")
    done = run(filled.url, "jobs-to-runs", "--quiet", "--hooks", str(tmp_path / "hooks"))
    assert done.returncode in (0, 1)
    assert done.stderr == f"The hook after-backfill ({file}) failed: exit code 1: broken; the command goes on.\n"


def test_what_is_stopped_mended_and_undone_is_told(filled: Database, tmp_path: Path) -> None:
    """Each stage asks before it begins and tells when it has ended; on-transition is for changes of the step alone."""
    hooks = tmp_path / "hooks"
    for event in EVENTS:
        executable(hooks, event, f'echo "{event} $SPINE_MAPPING $SPINE_FROM_STEP $SPINE_STEP" >> told')
    mapping = ("--mapping", "capture-spine/jobs")
    lines: list[str] = []
    for words, events in (
        (("jobs-to-runs",), ["before-backfill", "on-transition", "on-transition", "after-backfill"]),
        (("sync", "start", *mapping), ["before-sync-start", "after-sync-start"]),
        (("sync", "stop", "--yes", *mapping), ["before-sync-stop", "after-sync-stop"]),
        (("repair", "--yes", "capture-spine/jobs"), ["before-repair", "after-repair", "on-verdict"]),
        (("undo", "--yes", *mapping), ["before-undo", "on-transition", "on-transition", "after-undo"]),
    ):
        done = run(filled.url, *words, "--hooks", str(hooks), "--metrics-file", "m.prom", cwd=tmp_path)
        assert done.returncode in (0, 1), done.stderr
        if words[0] == "repair":
            # Not of the undo, which ends what it would look at.
            assert "spine_migrate_lock_waits{" in (tmp_path / "m.prom").read_text(encoding="utf-8")
        lines = (tmp_path / "told").read_text(encoding="utf-8").splitlines()
        (tmp_path / "told").unlink()
        told = [line.split()[0] for line in lines if not line.startswith("on-quarantine")]
        assert told == [*events, "on-end"], lines
    assert "on-transition capture-spine/jobs undoing undone" in lines
    executable(hooks, "before-backfill", "exit 0")
    assert run(filled.url, "jobs-to-runs", cwd=tmp_path).returncode in (0, 1)
    executable(hooks, "before-undo", "exit 1")
    assert run(filled.url, "undo", "--yes", *mapping, "--hooks", str(hooks), cwd=tmp_path).returncode == 3


def test_a_comparison_posts_its_verdict(filled: Database) -> None:
    run(filled.url, "jobs-to-runs", "--quiet")
    with filled.connect(autocommit=True) as connection:
        connection.execute("UPDATE runs SET name = 'a secret' WHERE run_id = (SELECT run_id FROM runs LIMIT 1)")
    with listening() as there:
        done = run(filled.url, "compare", "--hook", f"on-verdict={there.url}/x", "--log-format", "json")
    assert done.returncode == 1
    ((_, told),) = there.posted
    (one,) = told["migrations"]
    assert (told["verdict"], told["differences"], one["mapping"]) == ("different", 1, "capture-spine/jobs")
    assert "a secret" not in json.dumps(told) + done.stderr
    assert [line["event"] for line in log_of(done.stderr)] == ["message", "verdict", "end"]


def test_a_stop_is_in_the_log(filled: Database) -> None:
    """Ctrl-C stops after the batch, and the last line says so with the exit code; metrics are served until then."""
    slow = ("--batch-size", "10", "--max-rows-per-second", "20", "--metrics-port", "0", "--log-format", "json")
    moving = start(filled.url, "executions-to-runs", *slow)
    assert moving.stderr is not None
    seen: list[str] = []
    while '"progress"' not in (line := moving.stderr.readline()):
        assert line, seen
        seen.append(line)
    moving.send_signal(signal.SIGINT)
    out, err = moving.communicate(timeout=60)
    log = log_of("".join([*seen, line, err]))
    events = [one["event"] for one in log]
    assert moving.returncode == 4, out
    assert events[0] == "metrics"
    assert "stopping" in events
    assert (events[-1], log[-1]["exit_code"]) == ("end", 4)


def test_the_applier_is_watched_likewise(filled: Database, tmp_path: Path) -> None:
    """Its lag in the log and in the metrics, and what was applied."""
    run(filled.url, "jobs-to-runs", "--quiet")
    assert run(filled.url, "sync", "start").returncode == 0
    with filled.connect(autocommit=True) as connection:
        changed = connection.execute("UPDATE jobs SET result = '{}' WHERE job_id IN (SELECT min(job_id) FROM jobs)")
        assert changed.rowcount == 1
    watched = ("--metrics-file", str(tmp_path / "sync.prom"), "--log-format", "json")
    done = run(filled.url, "sync", "run", "--once", *watched)
    assert done.returncode == 0
    log = log_of(done.stderr)
    assert (log[-1]["event"], log[-1]["command"]) == ("end", "sync run")
    (lag, *_) = [line for line in log if line["event"] == "lag"]
    assert lag["mapping"] == "capture-spine/jobs"
    families = {one.name: one for one in text_string_to_metric_families((tmp_path / "sync.prom").read_text())}
    (rows,) = families["spine_migrate_lag_rows"].samples
    applied = [one for one in families["spine_migrate_changes_applied"].samples if one.name.endswith("_total")]
    assert (rows.labels["direction"], rows.value) == ("forward", 0)
    assert [one.value for one in applied] == [1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--hooks", "/nowhere"), "/nowhere is not a folder"),
        (("--hook", "on-nothing=http://x"), "--hook takes EVENT=URL"),
        (("--metrics-file", "/nowhere/runs.prom"), "Metrics cannot be written to /nowhere/runs.prom"),
        (("--metrics-host", "203.0.113.1", "--metrics-port", "0"), "Metrics cannot be served on 203.0.113.1"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_begins(options: tuple[str, ...], sentence: str) -> None:
    """Without asking the server, which is not there."""
    done = run("postgresql://127.0.0.1:1/none", "executions-to-runs", *options)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"spine-migrate: {sentence}")
    assert done.stderr.count("\n") == 1


def test_watch_prints_lines_until_ctrl_c(filled: Database) -> None:
    run(filled.url, "jobs-to-runs", "--quiet")
    watching = start(filled.url, "watch", "--every", "0.2", "--json")
    assert watching.stdout is not None
    first, second = (json.loads(watching.stdout.readline()) for _ in range(2))
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=30)
    assert (watching.returncode, err) == (0, "")
    assert [one["step"] for look in (first, second) for one in look["migrations"]] == ["done", "done"]


def test_watch_draws_a_screen_on_a_terminal(filled: Database) -> None:
    """Everything on it at each look; Ctrl-C ends it and gives the terminal back."""
    run(filled.url, "jobs-to-runs", "--quiet")
    ours, theirs = pty.openpty()
    watching = subprocess.Popen(
        [PROGRAM, "watch", "--every", "0.2"],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=environment(filled.url, TERM="xterm", LINES="40", COLUMNS="120"),
    )
    os.close(theirs)
    drawn = b""
    while drawn.count(b"application writes") < 2:
        drawn += os.read(ours, 65536)
    watching.send_signal(signal.SIGINT)
    with suppress(OSError):  # on Linux, the end of a terminal
        while more := os.read(ours, 65536):
            drawn += more
    os.close(ours)
    _, err = watching.communicate(timeout=30)
    assert (watching.returncode, err) == (0, b"")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn.decode())
    for part in (
        "migration 1  capture-spine/jobs",
        "done 100.0%",
        "in quarantine",
        "waiting for locks",
        "Ctrl-C to end",
    ):
        assert part in text
    assert drawn.index(b"\x1b[?1049h") < drawn.index(b"\x1b[?1049l"), "the alternate screen"


def test_watch_waits_for_a_server_that_goes_away(start_server: StartServer) -> None:
    """It says so, once for each look, and goes on when the server is back."""
    server = start_server()
    legacy = build(server.url())
    legacy.move()
    watching = start(server.url(), "watch", "--every", "0.2", "--json")
    assert watching.stdout is not None
    assert watching.stderr is not None
    try:
        watching.stdout.readline()
        server.stop("immediate")
        assert "The server failed" in watching.stderr.readline()
        # As long as it is shutting down, it says so itself.
        while "No server answers" not in (said := watching.stderr.readline()):
            assert "is shutting down" in said, said
        server.start()
        legacy.execute("UPDATE spine_migrate.migration SET tool_version = 'another'")
        while json.loads(watching.stdout.readline())["migrations"][0]["tool_version"] != "another":
            continue
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=30)
    assert watching.returncode == 0


@pytest.fixture
def typed(filled: Database, tmp_path: Path) -> dict[str, str]:
    """What each block of the runbook has printed, by its first line; typed in order, in one folder."""
    told = {}
    with listening() as there:
        for block in re.findall(r"^```sh\n(.*?)^```", _RUNBOOK, re.MULTILINE | re.DOTALL):
            lines = block.replace("https://alerts.example", there.url).replace(
                "--metrics-port 9187", "--metrics-port 0"
            )
            done = subprocess.run(
                ["/bin/bash", "-c", lines],
                check=False,
                capture_output=True,
                text=True,
                cwd=tmp_path,
                env=environment(filled.url),
                timeout=240,
            )
            assert done.returncode in (0, 1), f"{lines}\n{done.stdout}\n{done.stderr}"
            assert "Traceback" not in done.stderr
            assert "failed:" not in done.stderr
            told[block.splitlines()[0]] = done.stdout + done.stderr
    assert [path for path, _ in there.posted] == ["/parity"]
    return told


def test_the_commands_of_the_runbook(typed: dict[str, str], filled: Database, tmp_path: Path) -> None:
    """And what it says of a veto: the freeze of its example stops the next run."""
    assert len(typed) == 4
    assert "more rows in quarantine" in (tmp_path / "alerts").read_text()
    assert "spine_migrate_rows_moved_total" in (tmp_path / "runs.prom").read_text()
    assert (
        "Metrics are at http://127.0.0.1:"
        in typed["spine-migrate jobs-to-runs --metrics-port 9187 --metrics-file runs.prom"]
    )
    assert len(log_of((tmp_path / "move.log").read_text())) > 2
    (tmp_path / "freeze").write_text("Monday")
    done = run(filled.url, "executions-to-runs", "--hooks", "hooks", cwd=tmp_path)
    assert done.returncode == 3
    assert "exit code 1: frozen until Monday" in done.stderr


def test_the_runbook_names_every_event_fact_and_metric() -> None:
    """And none that is not there."""
    hooks, log = (_RUNBOOK.partition(f"\n## {name}\n")[2].partition("\n## ")[0] for name in ("Hooks", "The log"))
    rows = [line.split("|")[1] for line in hooks.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`([a-z-]+)`", " ".join(rows))) == sorted(EVENTS)
    assert set(re.findall(r"`SPINE_([A-Z_]+)`", hooks)) == {name.upper() for name in IN_ENVIRONMENT}
    exported = {
        f"{family.name}_total" if family.type == "counter" else family.name for family in Metrics().registry.collect()
    }
    assert set(re.findall(r"spine_migrate_[a-z_]+", _RUNBOOK)) - {"spine_migrate_observe"} == exported
    schema = json.loads(files("spine_migrate.observe").joinpath("log.schema.json").read_text(encoding="utf-8"))
    rows = [line.split("|")[1] for line in log.splitlines() if line.startswith("| `")]
    assert sorted(re.findall(r"`([a-z-]+)`", " ".join(rows))) == sorted(schema["properties"]["event"]["enum"])


def test_the_alerts_of_the_runbook_are_yaml() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```", _RUNBOOK, re.MULTILINE | re.DOTALL)
    (group,) = yaml.safe_load(block)["groups"]
    assert [set(rule) for rule in group["rules"]] == [{"alert", "expr"}] * 3
