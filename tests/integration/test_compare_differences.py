"""Differences of every kind, injected into a moved history: each is found with its key, field, values and rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString

import pytest

from spine_migrate.db.connect import connect
from spine_migrate.mapping.load import load
from spine_migrate.parity.compare import compare
from spine_migrate.parity.evidence import Equality
from spine_migrate.parity.model import Comparison, Difference, Report, Verdict
from spine_migrate.parity.options import Options
from spine_migrate.parity.scope import EXACT
from tests.comparing import both_methods, by_method
from tests.legacy import Legacy, arranged, uuid

pytestmark = both_methods

EXECUTIONS, EVENTS = "capture-spine/executions", "capture-spine/execution_events"


def compared(url: str, *names: str, max_differences: int = 100, exact: bool = False) -> Report:
    equality = Equality.EXACT if exact else Equality.VALUE
    with connect(url) as connection:
        return compare(connection, names, by_method(Options(equality=equality, max_differences=max_differences)))


def one(url: str, name: str = EXECUTIONS) -> Comparison:
    (comparison,) = compared(url, name).comparisons
    return comparison


@arranged
def moved(legacy: Legacy) -> None:
    """Twenty executions with two events each, moved."""
    legacy.execute(
        """INSERT INTO executions (execution_id, pipeline_name, status, feed_id, params, error, error_type, created_at,
                                   started_at, completed_at, parent_execution_id, max_retries)
           SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, 'ingest', 'completed',
                  'f0000000-0000-4000-8000-000000000001', '{"a": {"b": [1, {"c": "deep"}]}, "n": 1.0}', 'trailing',
                  CASE WHEN n = 7 THEN repeat('e', 120) END, '2024-01-01 00:00:00.000001+00',
                  CASE n WHEN 1 THEN '-infinity' WHEN 2 THEN '4713-01-01 BC'::timestamptz ELSE now() END, 'infinity',
                  CASE WHEN n > 10 THEN ('00000000-0000-4000-8000-' || lpad((n - 10)::text, 12, '0'))::uuid END, n
             FROM generate_series(1, 20) n"""
    )
    legacy.two_events_each(20)
    legacy.move("executions")
    legacy.move("execution_events")


def test_a_moved_history_is_equal(moved: Legacy) -> None:
    report = compared(moved.url)
    assert report.verdict is Verdict.EQUAL
    assert [(each.mapping, each.verdict, each.reasons) for each in report.comparisons] == [
        (EXECUTIONS, Verdict.EQUAL, []),
        (EVENTS, Verdict.EQUAL, []),
    ]
    executions, events = (each.counts for each in report.comparisons)
    assert executions is not None
    assert events is not None
    assert (executions.source_rows, executions.target_rows, executions.matching) == (20, 20, 20)
    assert (events.source_rows, events.target_rows, events.matching) == (40, 40, 40)
    assert all(equation.holds for each in report.comparisons for equation in each.equations)


@dataclass(frozen=True)
class Injected:
    """``sql`` changes one row; what must be reported for it. ``rule`` is the rule's name in the mapping."""

    name: str
    sql: LiteralString
    field: str
    old: str | None
    new: str | None
    rule: str | None = None
    mapping: str = EXECUTIONS
    key: str = uuid(3)
    note: str | None = None


def run_change(assignment: LiteralString) -> LiteralString:
    return "UPDATE runs SET " + assignment + " WHERE run_id = '00000000-0000-4000-8000-000000000003'"  # noqa: S608 - literals


def event_change(assignment: LiteralString) -> LiteralString:
    return "UPDATE run_events SET " + assignment + " WHERE event_id = 'e0000000-0000-4000-8000-000000000031'"  # noqa: S608


EVENT = "e0000000-0000-4000-8000-000000000031"
FEED = "f0000000-0000-4000-8000-000000000001"

INJECTED = [
    Injected(
        "one microsecond",
        run_change("created_at = created_at + interval '1 microsecond'"),
        "created_at",
        "2024-01-01 00:00:00.000001+00",
        "2024-01-01 00:00:00.000002+00",
        "created_at",
    ),
    Injected("NULL for a value", run_change("error = NULL"), "error", "trailing", None, "error"),
    Injected("empty for NULL", run_change("external_ref = ''"), "external_ref", None, "", "external_ref"),
    Injected("a trailing space", run_change("error = 'trailing '"), "error", "trailing", "trailing ", "error"),
    Injected("letter case", run_change("name = 'Ingest'"), "name", "ingest", "Ingest", "name"),
    Injected(
        "deep inside JSON",
        run_change("""params = jsonb_set(params, '{a,b,1,c}', '"Deep"')"""),
        "params",
        '{"a": {"b": [1, {"c": "deep"}]}, "n": 1.0}',
        '{"a": {"b": [1, {"c": "Deep"}]}, "n": 1.0}',
        "params",
    ),
    Injected("JSON null for NULL", run_change("result = 'null'"), "result", None, "null", "result"),
    Injected("a number", run_change("attempt = 2"), "attempt", "1", "2", "attempt"),
    Injected("a status", run_change("status = 'failed'"), "status", "completed", "failed", "status"),
    Injected("a constant", run_change("kind = 'task'"), "kind", "pipeline", "task", "kind"),
    Injected("a constant object", run_change("""tags = '{"x": 1}'"""), "tags", "{}", '{"x": 1}', "tags"),
    Injected(
        "infinity for a time", run_change("completed_at = '-infinity'"), "completed_at", "infinity", "-infinity",
        "completed_at",
    ),
    Injected(
        "a path in metadata",
        run_change("""metadata = jsonb_set(metadata, '{entity_id}', '"other"')"""),
        "metadata.entity_id", f'"{FEED}"', '"other"', "metadata.entity_id",
    ),
    Injected(
        "a path gone", run_change("metadata = metadata - 'entity_type'"), "metadata.entity_type", '"feed"', None,
        "metadata.entity_type",
    ),
    Injected(
        "a path that is JSON null", run_change("metadata = metadata || '{\"feed_id\": null}'"), "metadata.feed_id",
        f'"{FEED}"', "null", "metadata.feed_id",
    ),
    Injected(
        "a key that no rule writes", run_change("metadata = metadata || '{\"by\": \"hand\"}'"), "metadata.by", None,
        '"hand"', note="no rule writes this",
    ),
    Injected(
        "a nested key that no rule writes", run_change("metadata = metadata || '{\"legacy\": {\"by\": 1}}'"),
        "metadata.legacy", None, '{"by": 1}', note="no rule writes this",
    ),
    Injected(
        "a kept value",
        "UPDATE runs SET metadata = jsonb_set(metadata, '{legacy,error_type}', '\"short\"') "
        "WHERE run_id = '00000000-0000-4000-8000-000000000007'",
        "metadata.legacy.error_type", f'"{"e" * 120}"', '"short"', "error_type", key=uuid(7),
    ),
    Injected(
        "a link gone",
        "UPDATE runs SET parent_run_id = NULL WHERE run_id = '00000000-0000-4000-8000-000000000013'",
        "parent_run_id", uuid(3), None, "parent_run_id", key=uuid(13),
    ),
    Injected(
        "the legacy row, since", "UPDATE executions SET lane = 'vip' WHERE execution_id = "
        "'00000000-0000-4000-8000-000000000003'", "lane", "vip", "normal", "lane",
    ),
    Injected(
        "an event's type", event_change("event_type = 'failed'"),
        "event_type", "started", "failed", "event_type", EVENTS,
        EVENT,
    ),
    Injected(
        "an event's run", event_change("run_id = '00000000-0000-4000-8000-000000000004'"), "run_id", uuid(3), uuid(4),
        "run_id", EVENTS, EVENT,
    ),
]  # fmt: skip


@pytest.mark.parametrize("injected", INJECTED, ids=lambda injected: injected.name)
def test_a_changed_field_is_found_with_its_rule(moved: Legacy, injected: Injected) -> None:
    moved.execute(injected.sql)
    comparison = one(moved.url, injected.mapping)
    assert comparison.verdict is Verdict.DIFFERENT
    assert comparison.differences_total == 1
    (found,) = comparison.differences
    assert (found.kind, found.key, found.target_key) == ("field", injected.key, injected.key)
    assert (found.field, found.old, found.new) == (injected.field, injected.old, injected.new)
    assert found.note == injected.note
    _assert_rule(found, injected)
    (count,) = comparison.fields
    assert (count.rows, count.rule) == (1, found.rule)
    assert comparison.counts is not None
    assert comparison.counts.differing == 1


def _assert_rule(found: Difference, injected: Injected) -> None:
    """The line a rule is said to stand on is read in the file itself."""
    if injected.rule is None:
        assert found.rule is None
        return
    assert found.rule is not None
    assert found.rule.field == injected.rule
    file = load(injected.mapping).file
    assert found.rule.line is not None
    header = file.read_text(encoding="utf-8").splitlines()[found.rule.line - 1]
    assert header in (f"[fields.{injected.rule}]", f'[fields."{injected.rule}"]')
    assert str(found.rule) == f"{injected.mapping}.toml:{found.rule.line}"


def test_swapped_events_are_two_differences_each(moved: Legacy) -> None:
    moved.execute(
        """UPDATE run_events SET timestamp = '2024-01-01'::timestamptz + CASE event_type WHEN 'started'
           THEN interval '2 minutes' ELSE interval '1 minute' END
            WHERE run_id = '00000000-0000-4000-8000-000000000003'"""
    )
    comparison = one(moved.url, EVENTS)
    assert [(each.key, each.field, each.old, each.new) for each in comparison.differences] == [
        (
            f"e0000000-0000-4000-8000-0000000000{n}",
            "timestamp",
            f"2024-01-01 00:0{a}:00+00",
            f"2024-01-01 00:0{b}:00+00",
        )
        for n, a, b in ((31, 1, 2), (32, 2, 1))
    ]


@pytest.mark.parametrize(
    ("change", "kind", "key", "target_key"),
    [
        ("DELETE FROM run_events WHERE event_id = %s", "missing", EVENT, EVENT),
        ("DELETE FROM execution_events WHERE event_id = %s", "extra", None, EVENT),
    ],
)
def test_a_row_on_one_side_only_is_found(
    moved: Legacy, change: LiteralString, kind: str, key: str | None, target_key: str
) -> None:
    moved.execute(change, EVENT)
    comparison = one(moved.url, EVENTS)
    assert [(each.kind, each.key, each.target_key) for each in comparison.differences] == [(kind, key, target_key)]
    assert comparison.verdict is Verdict.DIFFERENT
    assert {reason.code for reason in comparison.reasons} == {
        "missing": {"missing"},
        "extra": {"extra"},
    }[kind]


def test_a_row_that_lost_its_mark_is_missing_and_said_to_be_there(moved: Legacy) -> None:
    moved.execute("UPDATE run_events SET source = 'dispatcher' WHERE event_id = %s", EVENT)
    comparison = one(moved.url, EVENTS)
    (found,) = comparison.differences
    assert (found.kind, found.key) == ("missing", EVENT)
    assert found.note == "a row with this key is on the target, but without the mark of this mapping"
    assert comparison.counts is not None
    assert comparison.counts.target_others == 1


def test_equal_forms_of_one_json_value_are_equal(moved: Legacy) -> None:
    """The stated equality: numbers by value, keys in any order."""
    moved.execute(run_change("""params = '{"n": 1.00, "a": {"b": [1, {"c": "deep"}]}}'"""))
    assert one(moved.url).verdict is Verdict.EQUAL


def test_equal_forms_of_one_number_are_not_exactly_equal(moved: Legacy) -> None:
    """Inside the JSON that one rule writes, and below a key that no rule writes."""
    moved.execute(run_change("""params = '{"n": 1.00, "a": {"b": [1, {"c": "deep"}]}}'"""))
    (comparison,) = compared(moved.url, EXECUTIONS, exact=True).comparisons
    assert [(each.field, each.old, each.new) for each in comparison.differences] == [
        ("params", '{"a": {"b": [1, {"c": "deep"}]}, "n": 1.0}', '{"a": {"b": [1, {"c": "deep"}]}, "n": 1.00}')
    ]
    moved.execute(run_change("""params = '{"n": 1.0, "a": {"b": [1, {"c": "deep"}]}}'"""))
    assert compared(moved.url, EXECUTIONS, exact=True).verdict is Verdict.EQUAL


@pytest.mark.parametrize("injected", INJECTED, ids=lambda injected: injected.name)
def test_a_changed_field_is_found_exactly(moved: Legacy, injected: Injected) -> None:
    moved.execute(injected.sql)
    report = compared(moved.url, injected.mapping, exact=True)
    (found,) = report.comparisons[0].differences
    assert (found.field, found.old, found.new) == (injected.field, injected.old, injected.new)
    assert (report.mode, report.equality) == (Equality.EXACT, EXACT)


def test_a_row_in_quarantine_that_is_on_the_target_is_found(moved: Legacy) -> None:
    moved.execute(
        """INSERT INTO spine_migrate.quarantine (migration_id, source_key, source_row, reason, detail)
           SELECT migration_id, %s, '{}', 'too_long', 'by hand' FROM spine_migrate.migration WHERE mapping = %s""",
        uuid(3),
        EXECUTIONS,
    )
    comparison = one(moved.url)
    (found,) = comparison.differences
    assert (found.kind, found.key, found.target_key) == ("doubled", uuid(3), uuid(3))
    assert all(equation.holds for equation in comparison.equations)


def test_a_value_that_can_no_longer_be_carried_is_found(moved: Legacy) -> None:
    """``attempt`` is nullable: the NULL that such a value would become must not pass for the target's NULL."""
    moved.execute(run_change("attempt = NULL"))
    moved.execute("UPDATE executions SET retry_count = 2147483647 WHERE execution_id = %s", uuid(3))
    found = {each.field: each for each in one(moved.url).differences}
    assert found["attempt"].note == "the rule cannot carry the legacy value any more"
    assert [name for name, one in found.items() if one.explained] == ["attempt"]
    assert (found["attempt"].key, found["attempt"].old, found["attempt"].new) == (uuid(3), None, None)


def test_rows_that_came_and_went_on_both_sides_are_told_and_no_difference(moved: Legacy) -> None:
    """An application that writes both tables alike is not the tool's to count."""
    moved.execute("DELETE FROM run_events WHERE event_id = %s", EVENT)
    moved.execute("DELETE FROM execution_events WHERE event_id = %s", EVENT)
    comparison = one(moved.url, EVENTS)
    assert comparison.verdict is Verdict.EQUAL
    (told,) = [each for each in comparison.equations if each.name == "checkpoints"]
    assert told.right["gone since"] == 1
    assert told.left["come since, by others"] == 0


def test_the_list_is_limited_and_every_kind_of_difference_is_in_it(moved: Legacy) -> None:
    moved.execute("UPDATE runs SET lane = 'changed'")
    moved.execute(run_change("lane = 'normal', error = 'rare'"))
    (comparison,) = compared(moved.url, EXECUTIONS, max_differences=2).comparisons
    assert comparison.differences_total == 20
    assert {(count.field, count.rows) for count in comparison.fields} == {("lane", 19), ("error", 1)}
    assert {each.field for each in comparison.differences} == {"lane", "error"}
    (unlisted,) = compared(moved.url, EXECUTIONS, max_differences=0).comparisons
    assert (unlisted.differences_total, unlisted.differences) == (20, [])


@pytest.mark.parametrize("junk", ["[1, 2]", '"text"', "null", "7", "{}", '{"error_type": [1]}'])
def test_metadata_of_another_shape_is_a_difference_not_an_error(moved: Legacy, junk: str) -> None:
    moved.execute(
        "UPDATE runs SET metadata = metadata || jsonb_build_object('legacy', %s::jsonb) WHERE run_id = %s",
        junk,
        uuid(7),
    )
    comparison = one(moved.url)
    assert comparison.verdict is Verdict.DIFFERENT
    assert {each.key for each in comparison.differences} == {uuid(7)}
    assert {(each.field or "").split(".")[1] for each in comparison.differences} == {"legacy"}
