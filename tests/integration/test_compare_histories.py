"""Event parity: what is told of histories, what is inherited from the legacy tables, and what cannot be told."""

from __future__ import annotations

from pathlib import Path
from typing import LiteralString

import pytest

from spine_migrate.db import schema
from spine_migrate.demo.generate import generate
from spine_migrate.mapping.load import find
from spine_migrate.parity.histories import LAWS
from spine_migrate.parity.model import Verdict
from tests.database import Database
from tests.histories import Event, Life
from tests.legacy import Legacy, build, uuid
from tests.lives import EVENTS, EXECUTIONS, INHERITED, LIVES, Moved, broken, compared, fill

BETWEEN_RUNS = {"attempts", "parents", "idempotency", "one-active"}


def test_a_moved_history_is_equal_and_what_the_legacy_tables_have_wrong_is_told(moved_lives: Moved) -> None:
    report = compared(moved_lives.legacy.url)
    (found,) = report.histories
    assert (report.verdict, found.verdict, found.reasons) == (Verdict.EQUAL, Verdict.EQUAL, [])
    assert (found.mapping, found.events, found.runs) == (EXECUTIONS, EVENTS, len(LIVES))
    assert [check.code for check in found.checks] == list(LAWS)
    assert broken(found) == {}
    told = {check.code: {int(one.run[-12:]) for one in check.examples} for check in found.checks if check.runs}
    assert told == INHERITED
    assert {check.code: check.inherited for check in found.checks if check.runs} == {
        code: len(runs) for code, runs in INHERITED.items()
    }


def test_examples_show_both_histories_and_say_what_is_wrong(moved_lives: Moved) -> None:
    found = moved_lives.after("DELETE FROM run_events WHERE event_id = event(2, 2)")
    examples = {check.code: check.examples[0] for check in found.checks if check.runs}
    one = examples["count"]
    assert (one.run, one.legacy_key, one.note) == (uuid(2), uuid(2), "3 events, now 2")
    assert (one.old, one.new) == ("created, started, failed", "created, started")
    assert examples["gaps"].note == "status failed without the event of an end"
    assert examples["times-agree"].note.endswith("(as in the legacy tables)")
    old = examples["timestamps"].old
    assert old is not None
    assert old.startswith("created 2024-02-29 12:00:00+00, started 2024-02-29 12:01:00+00, failed")


def test_more_runs_than_are_named_are_counted(moved_lives: Moved) -> None:
    found = moved_lives.after("UPDATE run_events SET timestamp = timestamp + interval '1 day'", named=3)
    (check,) = [check for check in found.checks if check.code == "timestamps"]
    assert (check.runs, check.inherited, len(check.examples)) == (len(LIVES) - 1, 0, 3)


def test_a_difference_in_histories_alone_makes_the_report_different(database: Database) -> None:
    legacy = build(database)
    fill(legacy)
    for entity in ("executions", "execution_events"):
        legacy.move(entity)
    legacy.execute("INSERT INTO run_events (run_id, event_type) VALUES (%s, 'heartbeat')", uuid(1))
    report = compared(database.url)
    assert [one.verdict for one in report.comparisons] == [Verdict.EQUAL] * 2
    assert (report.verdict, broken(report.histories[0])) == (Verdict.DIFFERENT, {"terminal": {1}})
    without = compared(database.url, events=False)
    assert (without.verdict, without.histories) == (Verdict.EQUAL, [])
    assert without.not_checked[-1] == without.events != report.events


def test_runs_without_events_are_held_to_the_laws_between_runs_alone(database: Database) -> None:
    legacy = build(database)
    fill(legacy)
    legacy.add("jobs", {"job_id": 1, "job_type": "ocr", "status": "done"})
    for entity in ("executions", "jobs"):
        legacy.move(entity)
    report = compared(database.url)
    assert report.verdict is Verdict.EQUAL
    assert [(one.mapping, one.events, one.runs) for one in report.histories] == [
        (EXECUTIONS, None, len(LIVES)),
        ("capture-spine/jobs", None, 1),
    ]
    for one in report.histories:
        assert {check.code for check in one.checks} == BETWEEN_RUNS
    assert {check.code: check.runs for check in report.histories[0].checks if check.runs} == {
        "attempts": 1,
        "parents": 2,
    }


def test_only_what_is_named_is_looked_at(moved_lives: Moved) -> None:
    (found,) = compared(moved_lives.legacy.url, EXECUTIONS).histories
    assert (found.events, {check.code for check in found.checks}) == (None, BETWEEN_RUNS)
    assert compared(moved_lives.legacy.url, EVENTS).histories == []


@pytest.mark.parametrize(
    ("change", "code", "checks"),
    [
        ("UPDATE spine_migrate.migration SET step = 'backfill' WHERE mapping = %s", "unfinished", BETWEEN_RUNS),
        ("UPDATE spine_migrate.migration SET mapping_digest = 'x' WHERE mapping = %s", "mapping-changed", BETWEEN_RUNS),
    ],
)
@pytest.mark.parametrize("mapping", [EXECUTIONS, EVENTS])
def test_what_cannot_be_looked_at_is_not_told(
    database: Database, mapping: str, change: LiteralString, code: str, checks: set[str]
) -> None:
    legacy = build(database)
    fill(legacy)
    for entity in ("executions", "execution_events"):
        legacy.move(entity)
    legacy.execute(change, mapping)
    (found,) = compared(database.url).histories
    assert (found.verdict, [reason.code for reason in found.reasons]) == (Verdict.UNKNOWN, [code])
    assert {check.code for check in found.checks} == (checks if mapping == EVENTS else set())


def test_keys_that_are_made_anew_lose_the_order_of_one_moment(database: Database, tmp_path: Path) -> None:
    """The legacy key counted the events; the uuid made of it does not."""
    legacy = build(database)
    legacy.execute("DROP TABLE execution_events")
    legacy.execute(
        """CREATE TABLE execution_events (event_id bigint PRIMARY KEY, execution_id uuid, event_type text,
                                          timestamp timestamptz)"""
    )
    text = (
        find(EVENTS).read_text(encoding="utf-8").replace('event_id = { type = "uuid"', 'event_id = { type = "bigint"')
    )
    file = tmp_path / "capture-spine" / "execution_events.toml"
    file.parent.mkdir()
    rule = 'copy = "event_id"\nuuid = "capture-spine/events"\nkeep = "data.legacy_id"'
    text = text.replace('copy = "data"', 'copy = "data"\ndefault = {}\nlossy = "there is none"')
    file.write_text(text.replace('copy = "event_id"', rule), encoding="utf-8")
    legacy.executions(*range(1, 41))
    legacy.execute(
        """INSERT INTO execution_events
           SELECT n * 10 + k, ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid,
                  (ARRAY['progress', 'heartbeat'])[k], '2024-02-29 12:00Z'::timestamptz + n % 2 * k * interval '1 s'
             FROM generate_series(1, 40) n, generate_series(1, 2) k"""
    )
    legacy.move("executions")
    legacy.move(mapping=str(file))
    report = compared(database.url, EXECUTIONS, str(file))
    lost = {row[0] for row in legacy.rows(
        """SELECT e.run_id::text FROM run_events e JOIN run_events f USING (run_id, timestamp)
            WHERE e.event_type = 'progress' AND f.event_type = 'heartbeat' AND e.event_id > f.event_id"""
    )}  # fmt: skip
    assert [one.verdict for one in report.comparisons] == [Verdict.EQUAL] * 2
    assert broken(report.histories[0]) == {"sequence": {int(run[-12:]) for run in lost}} != {"sequence": set()}


def test_the_demonstration_data_keeps_the_laws_but_for_its_awkward_rows(database: Database) -> None:
    """The legacy histories are read by themselves, and judged in Python."""
    with database.connect() as connection:
        generate(connection, executions=1500, events_per_execution=4, jobs=50, seed=7, awkward=3)
    database.arrange(schema.upgrade)
    legacy = Legacy(database.url)
    for entity in ("executions", "execution_events", "jobs"):
        legacy.move(entity)
    report = compared(database.url)
    assert [(one.verdict, broken(one)) for one in report.histories] == [(Verdict.EQUAL, {})] * 2
    held = {row[0] for row in legacy.rows("SELECT source_key FROM spine_migrate.quarantine")}
    # As ranks, since Python has no infinity and no year before 1.
    events: dict[str, list[Event]] = {}
    for event, run, kind, at in legacy.rows(
        """SELECT coalesce(event_id::text, ''), execution_id::text, event_type,
                  CASE WHEN timestamp IS NOT NULL
                       THEN '2000-01-01Z'::timestamptz + dense_rank() OVER (ORDER BY timestamp) * interval '1 s' END
             FROM (SELECT event_id, execution_id, event_type, timestamp FROM execution_events
                   UNION ALL SELECT NULL, execution_id, 'started_at', started_at FROM executions
                   UNION ALL SELECT NULL, execution_id, 'completed_at', completed_at FROM executions) AS t"""
    ):
        if event not in held and run not in held:
            events.setdefault(run, []).append(Event(event, kind, at))
    expected: dict[str, set[str]] = {}
    for run, status in legacy.rows("SELECT execution_id::text, status FROM executions"):
        if run not in held:
            times = {one.type: one.at for one in events[run] if not one.key}
            happened = [one for one in events[run] if one.key]
            life = Life(status, times["started_at"], times["completed_at"], happened)
            for code in life.breaks():
                expected.setdefault(code, set()).add(run)
    told = {check.code: check.inherited for check in report.histories[0].checks if check.inherited}
    assert {code: number for code, number in told.items() if code not in BETWEEN_RUNS} == {
        code: len(runs) for code, runs in expected.items()
    }
    assert expected.keys() >= {"terminal", "gaps", "started-first"}
    awkward = {row[0] for row in legacy.rows("SELECT source_key FROM spine_demo.awkward_row")} | {
        row[0]
        for row in legacy.rows(
            """SELECT execution_id::text FROM spine_demo.awkward_row
                 JOIN execution_events ON event_id::text = source_key WHERE entity = 'execution_events'"""
        )
    }
    assert set().union(*expected.values()) <= awkward
    circles = legacy.value(
        """SELECT count(*) FROM spine_demo.awkward_row JOIN runs ON run_id::text = source_key
            WHERE awkward_row.kind IN ('self_parent', 'parent_cycle')"""
    )
    assert told["parents"] == circles > 0
