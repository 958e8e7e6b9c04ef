"""The Markdown report keeps its tables and its limit, and says what it leaves out."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from spine_migrate.parity.model import Difference, FieldCount, Report
from spine_migrate.report import parity_markdown
from tests.parity_reports import RULE, for_any_report, whole

_STEP_SUMMARY_BYTES = 1_048_576


def _cells(line: str) -> list[str]:
    """As GitHub splits a row: at bars without a backslash before them, in code spans too."""
    return re.split(r"(?<!\\)\|", line)[1:-1]


@for_any_report
def test_whatever_the_values_every_row_has_the_cells_of_its_table(report: Report) -> None:
    text = parity_markdown.render(report)
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    for table in tables:
        assert len({len(_cells(line)) for line in table.splitlines()}) == 1, table


def test_it_shows_what_the_comparison_rests_on() -> None:
    lines = parity_markdown.render(whole()).splitlines()
    assert lines[2] == "Different: 9 found, laws that histories break: 2."
    for line in (
        "- method join: both tables are on one server and fit in its memory.",
        "- self-test: failed, 1 of 2 kinds of difference found, injected into a copy of 100 rows",
        "| `5` | `longer than 100 characters, shortened` | `error (app/runs.toml:12)` |",
        "| `missing` |  | `1` | `0` | `0` | `NOT found` |",
        "| `k3` | `error` | `NULL` | `'x'` | `app/runs.toml:12 explains it (refused by the rule)` |",
        "### Histories of app/runs with app/events: different",
        "| `2` | `1` | `order: Events under one timestamp keep their order.` |",
        "- not compared: executions.owner (dropped: nobody reads it)",
        "- Database: d, PostgreSQL 18.0",
    ):
        assert line in lines, line


@pytest.mark.parametrize("letter", ["x", "|", "`", "\U0001f600", "\x00", "&"])
def test_it_stays_under_the_limit_and_says_what_is_missing(letter: str) -> None:
    """Four bytes of UTF-8, or an escape of ten, for one letter: bytes count, not letters."""
    report = whole()
    long = Difference("field", "k", "k", "error", "text", letter * 130, f"{letter * 125}.", RULE)
    many = replace(report.comparisons[0], differences=[long] * 12_000)
    text = parity_markdown.render(replace(report, comparisons=[many]))
    assert 0.9 * _STEP_SUMMARY_BYTES < len(text.encode()) < _STEP_SUMMARY_BYTES
    told = re.search(r"Cut to stay under 1 MB: (\d+) of 12000 listed differences of app/runs are left out here", text)
    assert told is not None
    assert int(told[1]) + len(re.findall(r"^\| `k` \|", text, re.MULTILINE)) == 12_000
    assert "### Not checked" in text
    assert "### Histories of app/runs with app/events: different" in text


def test_a_text_that_is_too_long_leaves_whole_sections_out() -> None:
    report = whole()
    one = replace(report.comparisons[0], fields=[FieldCount("f" * 5000, None, 1)] * 3)
    text = parity_markdown.render(replace(report, comparisons=[one] * 2000))
    assert len(text.encode()) < _STEP_SUMMARY_BYTES
    assert re.search(r"Cut to stay under 1 MB: \d+ of \d+ sections are left out here", text)
