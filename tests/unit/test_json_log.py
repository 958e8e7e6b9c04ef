"""The log as JSON: one object a line, by the schema that ships with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from spine_migrate.notices import (
    STAGES,
    STEPS,
    Batch,
    Before,
    Compared,
    End,
    Lag,
    Notice,
    Progress,
    Quarantined,
    Retry,
    Subject,
    Throttle,
    Transition,
    Verdict,
)
from spine_migrate.observe.log import JsonLog
from tests.closed_schema import closed_schema

SUBJECT = Subject("app/rows", 1, '"public"."a"', '"public"."b"')
NOTICES: list[tuple[Notice, str, str]] = [
    *((Before(SUBJECT, stage, None), f"before-{stage}", "info") for stage in STAGES),
    *((Transition(SUBJECT, None, step), "transition", "info") for step in STEPS),
    (Transition(SUBJECT, "backfill", "done", ends="backfill"), "transition", "info"),
    (Progress(SUBJECT, "backfill", 10, 100, 1, 2, 3.456, None), "progress", "info"),
    (Quarantined(SUBJECT, {"orphan": 1}), "quarantine", "warning"),
    (Throttle(SUBJECT, "paused"), "throttle", "warning"),
    (Throttle(SUBJECT, None, before="paused", seconds=2), "throttle", "info"),
    (Lag(SUBJECT, "forward", 3, 1.5), "lag", "info"),
    (Retry(Subject("app/rows"), "lock_timeout", 1, 0.3), "retry", "warning"),
    (Verdict("could not tell", (Compared(SUBJECT, "equal", 0),), ("unfinished",)), "verdict", "info"),
    (End("compare", 0), "end", "info"),
    (End("compare", 1), "end", "warning"),
    (End("compare", 5), "end", "error"),
]


def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files("spine_migrate.observe").joinpath("log.schema.json").read_text())
    return dict(closed_schema(loaded))


@pytest.mark.parametrize(("notice", "event", "level"), NOTICES)
def test_a_line_keeps_the_schema(notice: Notice, event: str, level: str) -> None:
    lines: list[str] = []
    JsonLog(lines.append).notice(notice)
    (line,) = lines
    assert line.endswith("}\n")
    assert line.count("\n") == 1
    told = json.loads(line)
    Draft202012Validator(schema()).validate(told)
    assert list(told)[:3] == ["ts", "level", "event"]
    assert (told["event"], told["level"]) == (event, level)
    assert told["ts"].endswith("+00:00")


def test_the_schema_refuses_what_it_does_not_know() -> None:
    line = {"ts": "2026-11-21T21:00:00.000+00:00", "level": "info", "event": "message", "message": "a"}
    validator = Draft202012Validator(schema())
    assert validator.is_valid(line)
    for wrong in ({"event": "other"}, {"level": "loud"}, {"value": 1}, {"rows": -1}):
        assert not validator.is_valid(line | wrong)


def test_a_sentence_is_a_line_too() -> None:
    lines: list[str] = []
    JsonLog(lines.append)('of "two"\nlines', event="error", level="error")
    told = json.loads(lines[0])
    Draft202012Validator(schema()).validate(told)
    assert told["message"] == 'of "two"\nlines'
    assert lines[0].count("\n") == 1


def test_progress_is_told_now_and_then_and_at_each_phase() -> None:
    """Every ten seconds of a phase; batches are told by it and not one by one."""
    now = 0.0
    lines: list[str] = []
    log = JsonLog(lines.append, clock=lambda: now)

    def at(moment: float, phase: str, mapping: str = "app/rows") -> None:
        nonlocal now
        now = moment
        log.notice(Progress(Subject(mapping), phase, 1, 1, 1, 1, 1.0, None))
        log.notice(Batch(Subject(mapping), 1, 0, 0.1))

    at(0.1, "backfill")
    at(5.0, "backfill")
    at(10.0, "backfill")
    at(10.1, "backfill")
    at(10.2, "links")
    at(10.3, "backfill", "app/events")
    at(20.2, "backfill")
    told = [(json.loads(line)["mapping"], json.loads(line)["phase"]) for line in lines]
    assert told == [
        ("app/rows", "backfill"), ("app/rows", "backfill"), ("app/rows", "links"), ("app/events", "backfill"),
        ("app/rows", "backfill"),
    ]  # fmt: skip


def test_changes_are_counted_from_line_to_line() -> None:
    """The applier tells its lag every second."""
    lines: list[str] = []
    now = [0.0]
    log = JsonLog(lines.append, clock=lambda: now[0])
    for second in range(25):
        now[0] = float(second)
        log.notice(Lag(SUBJECT, "forward", second, 0.5, applied=2))
    told = [(json.loads(line)["rows"], json.loads(line)["applied"]) for line in lines]
    assert told == [(0, 2), (10, 20), (20, 20)]


def test_lines_of_many_threads_stay_whole() -> None:
    """On a pipe, as long as they may be."""
    script = """
import threading
from spine_migrate.observe.log import JsonLog
log = JsonLog()
def say(number):
    for _ in range(200):
        log(str(number) * 9000)
threads = [threading.Thread(target=say, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    told = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert sorted(told) == sorted(str(number) * 9000 for number in range(8) for _ in range(200))


def test_a_reader_that_has_gone_ends_nothing() -> None:
    script = "from spine_migrate.observe.log import JsonLog; log = JsonLog(); log('a'); log('b'); print('goes on')"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, stderr=write, text=True)
    os.close(write)
    assert done.stdout == "goes on\n"
