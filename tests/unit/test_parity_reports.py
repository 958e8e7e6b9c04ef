"""How a comparison is rendered: told apart, escaped for where it goes, cut for people and whole for machines."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import click
import pytest

from spine_migrate.cli import compare as command
from spine_migrate.parity import scope
from spine_migrate.parity.model import (
    Comparison,
    Counts,
    Difference,
    Equation,
    FieldCount,
    Reason,
    Report,
    Rule,
    Snapshot,
    Verdict,
    overall,
)
from spine_migrate.report import parity_json, parity_terminal
from spine_migrate.report.value import MARK, excerpts, shown
from tests.parity_reports import for_any_report, whole

_RULE = Rule("error", "app/runs.toml", 12, "error")
_HOSTILE = "a|b`c`\x1b[31m\r\n::error::100%<&>\u202e\x00é"


def _report(*differences: Difference, verdict: Verdict = Verdict.DIFFERENT) -> Report:
    counts = Counts(10, 9, 1, 6, 2, 1, 0, 1, 0, 1, 0)
    comparison = Comparison(
        "app/runs", "app/runs.toml", "d1", 1, "done", '"public"."a"', '"public"."b"', verdict,
        [Reason("missing", "1 legacy rows are neither on the target nor in quarantine.")],
        counts=counts,
        equations=[Equation("source", {"source rows": 10}, {"matching": 6, "differing": 2, "missing": 1, "held": 1}),
                   Equation("checkpoints", {"moved": 8}, {"target rows": 9})],
        fields=[FieldCount("error", _RULE, 2)],
        differences_total=len(differences) + 5,
        differences=list(differences),
    )  # fmt: skip
    taken = Snapshot("1:1:", "0/1", standby=False, database="d", server_version="18.0", taken_at=datetime.now(UTC))
    return Report(verdict, [], taken, [comparison], scope.EQUALITY, scope.NOT_CHECKED, scope.EVENTS, "0")


def _field(old: str | None, new: str | None, kind: str = "text") -> Difference:
    return Difference("field", "k1", "k1", "error", kind, old, new, _RULE)


def test_null_the_empty_string_json_null_and_the_word_are_shown_differently() -> None:
    found = {shown(None, "text"), shown("", "text"), shown("null", "jsonb"), shown("NULL", "text"), shown("", "jsonb")}
    assert found == {"NULL", "''", "null", "'NULL'", ""}


@pytest.mark.parametrize(
    ("old", "new"), [("x" * 500 + "A", "x" * 500 + "B"), ("A" + "x" * 500, "B" + "x" * 500), ("x" * 500, "x" * 499)]
)
def test_long_values_are_cut_where_they_differ(old: str, new: str) -> None:
    left, right = excerpts(old, new, 40)
    assert left != right
    assert max(len(left), len(right)) <= 40
    assert MARK in left


def test_short_values_are_not_cut() -> None:
    assert excerpts("abc", "abd", 40) == ("abc", "abd")


def test_json_is_whole_and_exact() -> None:
    long = "é" * 100_000 + _HOSTILE
    document = json.loads(parity_json.render(_report(_field(long, None))))
    (comparison,) = document["comparisons"]
    (difference,) = comparison["differences"]
    assert document["format"] == 1
    assert (difference["old"], difference["new"]) == (long, None)
    assert difference["rule"] == {
        "field": "error", "file": "app/runs.toml", "line": 12, "source_column": "error", "place": "app/runs.toml:12",
    }  # fmt: skip
    assert [equation["holds"] for equation in comparison["equations"]] == [True, False]
    assert (comparison["differences_total"], comparison["differences_listed"]) == (6, 1)


def test_the_plain_table_has_no_control_characters_and_one_line_per_difference() -> None:
    out = io.StringIO()
    parity_terminal.render(_report(_field(_HOSTILE, "x"), _field(None, "")), out)
    text = out.getvalue()
    assert "\x1b" not in text
    assert "\x00" not in text
    assert "\u202e" not in text
    rows = [line for line in text.splitlines() if line.strip().startswith("k1")]
    assert len(rows) == 2
    assert rows[1].split() == ["k1", "error", "NULL", "''", "app/runs.toml:12"]
    assert "listed differences: 2 of 7" in text
    assert "8 moved is not 9 target rows" in text


def test_the_plain_table_shows_what_the_comparison_rests_on() -> None:
    out = io.StringIO()
    parity_terminal.render(whole(), out)
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert "method join: both tables are on one server and fit in its memory." in lines
    assert (
        "compared: a sample of 1.0000% of the keys of rows since 2026-11-20T12:00:00+00:00 of 1 keys, not all rows"
        in lines
    )
    assert "self-test: failed, 1 of 2 kinds of difference found, injected into a copy of 100 rows" in lines
    assert "missing 1 0 0 NOT found" in lines
    assert "5 longer than 100 characters, shortened error (app/runs.toml:12)" in lines
    assert "k3 error NULL 'x' app/runs.toml:12 explains it (refused by the rule)" in lines
    assert "Histories of app/runs with app/events different" in lines
    assert "2 1 order: Events under one timestamp keep their order." in lines
    assert any(line.startswith("k1 order l1 completed before it was started") for line in lines)
    assert {f"Not checked: {line}" for line in scope.NOT_CHECKED} <= set(lines)
    assert "Different: 9 found, laws that histories break: 2." in lines


@for_any_report
def test_the_plain_table_is_harmless_whatever_the_report(report: Report) -> None:
    out = io.StringIO()
    parity_terminal.render(report, out)
    assert all(letter.isprintable() or letter == "\n" for letter in out.getvalue())


def test_one_difference_outweighs_everything_and_nothing_is_not_equal() -> None:
    assert overall([Verdict.EQUAL, Verdict.UNKNOWN, Verdict.DIFFERENT]) is Verdict.DIFFERENT
    assert overall([Verdict.EQUAL, Verdict.UNKNOWN]) is Verdict.UNKNOWN
    assert overall([Verdict.EQUAL]) is Verdict.EQUAL
    assert overall([]) is Verdict.UNKNOWN


def test_help_names_the_equality_and_each_blind_spot() -> None:
    """--help must not load the driver, so it says in its own words what the report says."""
    text = " ".join(command.compare.get_help(click.Context(command.compare)).split()).lower()
    assert "is distinct from" in text
    blind = ("mapping is right", "mark", "no rule writes", "dropped", "after the snapshot", "json was spelled")
    for words in (*blind, "char(n)", "quarantine", "no event says"):
        assert words in text, words
    # One line of the help stands for each of the report, two of which it puts together.
    assert text.count(" - ") == len(scope.NOT_CHECKED) - 1
    assert "3 could not tell" in text
