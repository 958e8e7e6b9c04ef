"""Repair: what differs is made right from the legacy rows, what cannot be is left and named, and the counts add up."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from spine_migrate.backfill import repair as repairing
from spine_migrate.backfill.repaired import Options, Outcome, Repaired
from spine_migrate.db.connect import connect
from spine_migrate.errors import Refused
from spine_migrate.mapping.load import load
from spine_migrate.parity.compare import compare
from spine_migrate.parity.model import Report, Verdict
from tests.legacy import Legacy, arranged, uuid

EXECUTIONS, EVENTS = "capture-spine/executions", "capture-spine/execution_events"


@arranged
def moved(legacy: Legacy) -> None:
    """Twenty executions with two events each, the second ten children of the first, moved."""
    legacy.execute(
        """INSERT INTO executions (execution_id, pipeline_name, status, feed_id, params, error, parent_execution_id)
           SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'ingest', 'completed',
                  'f0000000-0000-4000-8000-000000000001', '{"a": 1}', 'trailing',
                  CASE WHEN n > 10 THEN ('00000000-0000-4000-8000-' || lpad((n - 10)::text, 12, '0'))::uuid END
             FROM generate_series(1, 20) n"""
    )
    legacy.two_events_each(20)
    legacy.move("executions")
    legacy.move("execution_events")


def compared(url: str) -> Report:
    with connect(url) as connection:
        return compare(connection)


def repair(legacy: Legacy, *names: str, stop: threading.Event | None = None, **options: Any) -> Outcome:
    return repairing.repair(
        legacy.url,
        mappings=[load(name) for name in names],
        options=Options(**options),
        stop=stop or threading.Event(),
        report=options.pop("report", lambda _: None),
    )


def of(outcome: Outcome, name: str = EXECUTIONS) -> Repaired:
    (found,) = [one for one in outcome.migrations if one.mapping == name]
    return found


def spoil(legacy: Legacy) -> None:
    """A difference of every kind that can be repaired."""
    legacy.execute("UPDATE runs SET error = 'trailing ' WHERE run_id = %s", uuid(1))
    legacy.execute("UPDATE runs SET name = 'x', attempt = 7 WHERE run_id IN (%s, %s)", uuid(2), uuid(3))
    legacy.execute('UPDATE runs SET metadata = metadata || \'{"by": "hand"}\' WHERE run_id = %s', uuid(4))
    legacy.execute("UPDATE runs SET parent_run_id = NULL WHERE run_id = %s", uuid(15))
    legacy.execute("UPDATE executions SET lane = 'vip' WHERE execution_id = %s", uuid(6))
    legacy.execute("UPDATE run_events SET timestamp = timestamp + interval '1 microsecond' WHERE run_id = %s", uuid(7))
    # Gone from the target: a run with its events, that a child points to no longer.
    legacy.execute("DELETE FROM run_events WHERE run_id = %s", uuid(18))
    legacy.execute("DELETE FROM runs WHERE run_id = %s", uuid(18))
    # Gone from the legacy tables.
    legacy.execute("DELETE FROM execution_events WHERE execution_id IN (%s, %s)", uuid(19), uuid(20))
    legacy.execute("DELETE FROM executions WHERE execution_id IN (%s, %s)", uuid(19), uuid(20))


def test_every_kind_is_repaired_and_the_comparison_is_equal(moved: Legacy) -> None:
    spoil(moved)
    assert compared(moved.url).verdict is Verdict.DIFFERENT
    before = moved.rows("SELECT * FROM executions ORDER BY 1"), moved.rows("SELECT * FROM execution_events ORDER BY 1")
    outcome = repair(moved)
    executions, events = of(outcome), of(outcome, EVENTS)
    assert executions.rows == {"differing": 6, "missing": 1, "extra": 2}
    assert (executions.recounted, events.recounted) == (-1, -2)
    assert executions.fields == {"error": 1, "name": 2, "attempt": 2, "metadata": 1, "parent_run_id": 1, "lane": 1}
    assert events.rows == {"differing": 2, "missing": 2, "extra": 4}
    assert not executions.kept
    assert not events.kept
    report = compared(moved.url)
    assert report.verdict is Verdict.EQUAL, [one.reasons for one in report.comparisons]
    moved.prove("executions", "execution_events")
    after = moved.rows("SELECT * FROM executions ORDER BY 1"), moved.rows("SELECT * FROM execution_events ORDER BY 1")
    assert after == before


def test_it_changes_only_the_columns_that_differ(moved: Legacy) -> None:
    """Columns that no rule writes keep what the application put there, in a row that is repaired too."""
    moved.execute("UPDATE runs SET executor_name = 'celery', error = 'x' WHERE run_id = %s", uuid(1))
    written: list[Any] = []
    moved.execute("CREATE TABLE written (columns text[])")
    moved.execute(
        """CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.written VALUES
           (ARRAY(SELECT key FROM jsonb_each(to_jsonb(OLD)) o JOIN jsonb_each(to_jsonb(NEW)) n USING (key)
                   WHERE o.value <> n.value)); RETURN NEW; END $$"""
    )
    moved.execute("CREATE TRIGGER note AFTER UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION note()")
    repair(moved, EXECUTIONS)
    written = moved.rows("SELECT columns FROM written")
    assert written == [(["error"],)]
    assert moved.rows("SELECT error, executor_name FROM runs WHERE run_id = %s", uuid(1)) == [("trailing", "celery")]


def test_each_row_is_on_record_as_it_was(moved: Legacy) -> None:
    spoil(moved)
    repair(moved)
    recorded = moved.rows(
        "SELECT kind, count(*), count(before), count(DISTINCT who) FROM spine_migrate.repair GROUP BY 1 ORDER BY 1"
    )
    assert recorded == [("differing", 8, 8, 1), ("extra", 6, 6, 1), ("missing", 3, 0, 1)]
    fields, before = moved.rows(
        "SELECT fields, before FROM spine_migrate.repair WHERE kind = 'differing' AND target_key = %s", uuid(2)
    )[0]
    assert (sorted(fields), before["name"], before["attempt"]) == (["attempt", "name"], "x", 7)
    actions = moved.rows("SELECT detail -> 'rows' FROM spine_migrate.audit WHERE action = 'repaired' ORDER BY audit_id")
    assert actions == [({"extra": 2, "missing": 1, "differing": 6},), ({"extra": 4, "missing": 2, "differing": 2},)]


def test_a_second_repair_has_nothing_to_do(moved: Legacy) -> None:
    spoil(moved)
    repair(moved)
    again = repair(moved)
    assert [(one.found, one.rows, one.kept) for one in again.migrations] == [({}, {}, {}), ({}, {}, {})]


def test_only_and_max_rows_limit_what_is_done(moved: Legacy) -> None:
    spoil(moved)
    only = of(repair(moved, EXECUTIONS, only=("differing",), max_rows=4, batch_size=3))
    assert only.rows == {"differing": 4}
    assert of(repair(moved, EXECUTIONS, only=("missing",))).rows == {"missing": 1}
    counts = [one.counts for one in compared(moved.url).comparisons if one.mapping == EXECUTIONS]
    assert counts[0] is not None
    assert (counts[0].missing, counts[0].extra, counts[0].differing) == (0, 2, 2)


def test_a_plan_changes_nothing(moved: Legacy) -> None:
    spoil(moved)
    before = moved.rows("SELECT * FROM runs ORDER BY 1"), moved.rows("SELECT * FROM spine_migrate.audit ORDER BY 1")
    executions, events = repairing.plan(moved.url)
    assert executions.found == {"differing": 6, "missing": 1, "extra": 2}
    assert events.found == {"differing": 2, "missing": 2, "extra": 4}
    after = moved.rows("SELECT * FROM runs ORDER BY 1"), moved.rows("SELECT * FROM spine_migrate.audit ORDER BY 1")
    assert after == before


def test_what_the_rules_refuse_is_left_and_named(moved: Legacy) -> None:
    """A legacy row that was changed into something no rule carries: its target row stays as it is."""
    moved.execute("UPDATE executions SET status = 'limbo', error = 'new' WHERE execution_id = %s", uuid(1))
    moved.execute("DELETE FROM run_events WHERE run_id = %s", uuid(18))
    moved.execute("DELETE FROM runs WHERE run_id = %s", uuid(18))
    moved.execute("UPDATE executions SET status = 'limbo' WHERE execution_id = %s", uuid(18))
    result = of(repair(moved, EXECUTIONS))
    assert result.rows == {"quarantined": 1}
    assert result.kept == {"refused": 1}
    (example,) = result.examples
    assert (example.key, example.detail) == (uuid(1), "unknown_value: status, error")
    assert moved.rows("SELECT status, error FROM runs WHERE run_id = %s", uuid(1)) == [("completed", "trailing")]
    assert moved.quarantine() == [(uuid(18), "unknown_value", "status", None, None)]


def test_a_row_that_something_points_to_stays(moved: Legacy) -> None:
    """An extra run with an event that the application wrote; one that goes, but only after the child that names it."""
    moved.execute("DELETE FROM execution_events; DELETE FROM run_events")
    moved.execute("DELETE FROM executions WHERE execution_id IN (%s, %s, %s)", uuid(1), uuid(11), uuid(2))
    moved.execute("UPDATE executions SET parent_execution_id = NULL WHERE execution_id = %s", uuid(12))
    moved.execute("INSERT INTO run_events (run_id, event_type) VALUES (%s, 'noted')", uuid(2))
    result = of(repair(moved, EXECUTIONS))
    assert result.rows == {"extra": 2, "differing": 1}
    assert result.kept == {"referenced": 1}
    assert [(one.key, one.detail) for one in result.examples] == [(f"target {uuid(2)}", '"public"."run_events".run_id')]


def test_what_has_no_right_answer_is_left_and_named(moved: Legacy) -> None:
    moved.execute("UPDATE runs SET metadata = metadata - 'migrated_from', error = 'mine' WHERE run_id = %s", uuid(1))
    moved.execute(
        "INSERT INTO spine_migrate.quarantine (migration_id, source_key, source_row, reason, detail)"
        " SELECT migration_id, key, '{}', 'by_hand', 'x' FROM spine_migrate.migration, unnest(%s::text[]) key"
        " WHERE mapping = %s",
        [uuid(2), uuid(99)],
        EXECUTIONS,
    )
    result = of(repair(moved, EXECUTIONS))
    assert not result.rows
    assert result.kept == {"key_taken": 1, "doubled": 1}
    assert result.found["gone"] == 1
    assert moved.value("SELECT error FROM runs WHERE run_id = %s", uuid(1)) == "mine"


def test_a_link_to_a_row_that_is_not_there_is_recorded(moved: Legacy) -> None:
    moved.execute("UPDATE executions SET parent_execution_id = %s WHERE execution_id = %s", uuid(77), uuid(11))
    moved.execute("UPDATE executions SET parent_execution_id = %s WHERE execution_id = %s", uuid(3), uuid(12))
    result = of(repair(moved, EXECUTIONS))
    assert result.rows == {"differing": 2}
    links = moved.rows("SELECT run_id, parent_run_id FROM runs WHERE run_id IN (%s, %s)", uuid(11), uuid(12))
    assert {(str(key), value and str(value)) for key, value in links} == {(uuid(11), None), (uuid(12), uuid(3))}
    assert moved.rows("SELECT target_key, wanted, state FROM spine_migrate.link") == [(uuid(11), uuid(77), "broken")]
    assert compared(moved.url).verdict is Verdict.EQUAL


def test_one_row_that_the_server_refuses_does_not_keep_the_others(moved: Legacy) -> None:
    moved.execute("UPDATE runs SET error = 'x'")
    moved.execute("ALTER TABLE runs ADD CONSTRAINT no_way CHECK (error <> 'trailing' OR run_id <> '" + uuid(5) + "')")
    result = of(repair(moved, EXECUTIONS, batch_size=8))
    assert result.rows == {"differing": 19}
    assert result.kept == {"server_refused": 1}
    assert [(one.key, one.detail) for one in result.examples] == [(uuid(5), "23514 no_way")]


def test_a_trigger_that_keeps_rows_is_told(moved: Legacy) -> None:
    moved.execute("UPDATE runs SET error = 'x' WHERE run_id = %s", uuid(1))
    moved.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
        "CREATE TRIGGER keep BEFORE UPDATE ON runs FOR EACH ROW EXECUTE FUNCTION keep()"
    )
    with pytest.raises(Refused) as refused:
        repair(moved, EXECUTIONS)
    assert refused.value.precondition == "rows-kept"
    assert moved.rows("SELECT * FROM spine_migrate.repair") == []


@pytest.mark.parametrize(
    ("state", "precondition"),
    [
        ("UPDATE spine_migrate.migration SET step = 'backfill'", "unfinished"),
        ("UPDATE spine_migrate.migration SET step = 'undoing'", "unfinished"),
        ("UPDATE spine_migrate.migration SET mapping_digest = 'other'", "mapping-changed"),
        ("DROP TABLE spine_migrate.repair", "ledger-outdated"),
    ],
)
def test_what_is_not_ready_is_refused_by_name(moved: Legacy, state: Any, precondition: str) -> None:
    spoil(moved)
    moved.execute(state)
    before = moved.rows("SELECT * FROM runs ORDER BY 1")
    with pytest.raises(Refused) as refused:
        repair(moved)
    assert refused.value.precondition == precondition
    assert moved.rows("SELECT * FROM runs ORDER BY 1") == before


def test_two_at_once_are_refused(moved: Legacy) -> None:
    with moved.connect() as other:
        other.execute(
            "SELECT pg_advisory_lock(hashtextextended(mapping || '|' || source_table || '|' || target_table, 7741))"
            " FROM spine_migrate.migration WHERE mapping = %s",
            [EXECUTIONS],
        )
        with pytest.raises(Refused) as refused:
            repair(moved)
    assert refused.value.precondition == "already-running"
