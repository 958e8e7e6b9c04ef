"""Annotations and SARIF: what is wrong stands on the line of the mapping that somebody can mend."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from spine_migrate.parity.evidence import SelfTest
from spine_migrate.parity.model import FieldCount, Reason, Report, Verdict
from spine_migrate.report import parity_github, parity_sarif
from spine_migrate.report.parity_place import in_repository
from tests.parity_reports import HOSTILE, RULE, for_any_report, whole

_SARIF = Path(__file__).parents[1] / "schemas" / "sarif.schema.json"
_VALIDATOR = Draft202012Validator(json.loads(_SARIF.read_text(encoding="utf-8")))


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    """A mapping file inside a repository."""
    (tmp_path / ".git").mkdir()
    return tmp_path / "my mappings" / "app" / "runs.toml"


def _at(mapping: Path) -> Report:
    report = whole()
    return replace(report, comparisons=[replace(report.comparisons[0], path=str(mapping))])


def test_a_file_is_named_from_the_root_of_its_repository_and_only_there(mapping: Path) -> None:
    assert in_repository(str(mapping)) == "my mappings/app/runs.toml"
    installed = mapping.parents[2] / ".venv" / "lib" / "site-packages" / "spine_migrate" / "runs.toml"
    assert in_repository(str(installed)) is None
    assert in_repository("/no/such/repository/runs.toml") is None
    assert in_repository("runs.toml") is None
    assert in_repository(None) is None


def test_annotations_point_at_the_rule(mapping: Path) -> None:
    lines = parity_github.render(_at(mapping)).splitlines()
    place = "::error file=my mappings/app/runs.toml,"
    missing = "Legacy rows that are neither on the target nor in quarantine: 1."
    order = "Events under one timestamp keep their order. Runs that break it, and did not in the legacy tables: 2."
    self_test = "The self-test injected 1 differences of the kind missing; found: 0, invented: 0."
    assert lines == [
        f"{place}line=12,title=app/runs%3A error::rows that differ in error: 2",
        f"{place}title=app/runs%3A metadata.*::rows that differ in metadata.*: 1",
        f"{place}title=app/runs::{missing}",
        f"{place}title=app/runs%3A order::{order}",
        f"{place}title=app/runs::{self_test}",
    ]


def test_outside_of_a_repository_the_rule_is_named_in_the_message() -> None:
    first = parity_github.render(whole()).splitlines()[0]
    assert first == "::error title=app/runs%3A error::rows that differ in error: 2 (app/runs.toml:12)"


def test_there_are_at_most_ten_and_they_are_escaped(mapping: Path) -> None:
    report = _at(mapping)
    many = replace(report.comparisons[0], fields=[FieldCount(f"f{n},%:\n", RULE, n) for n in range(30)])
    lines = parity_github.render(replace(report, comparisons=[many])).splitlines()
    assert len(lines) == 10
    assert lines[-1] == "::error title=spine-migrate compare::further findings: 24; see the JSON report"
    assert lines[0].endswith("title=app/runs%3A f0%2C%25%3A\\n::rows that differ in f0,%25:\\n: 0")


_COMMAND = re.compile(r"::(error|notice) ((file|line|title)=[^,:\r\n]*(,(?!:)|(?=::)))+::[^\r\n]*")


@for_any_report
def test_whatever_the_report_each_line_is_one_command(report: Report) -> None:
    lines = parity_github.render(report).split("\n")
    assert lines.pop() == ""
    assert 1 <= len(lines) <= 10
    for line in lines:
        assert _COMMAND.fullmatch(line), line
        assert not re.search(r"%(?!25|3A|2C|0A|0D)", line), line
        assert line.isprintable()


def test_only_equal_is_a_notice() -> None:
    equal = replace(whole(), verdict=Verdict.EQUAL, comparisons=[], histories=[])
    assert parity_github.render(equal) == (
        "::notice title=spine-migrate compare::Equal: legacy rows compared field by field: 0.\n"
    )
    assert parity_github.render(replace(equal, verdict=Verdict.UNKNOWN)).startswith("::error ")


@for_any_report
def test_whatever_the_report_its_sarif_is_as_the_standard_says(report: Report) -> None:
    text = parity_sarif.render(report)
    _VALIDATOR.validate(document := json.loads(text))
    (run,) = document["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(set(rules)) == len(rules)
    assert all(rules[result["ruleIndex"]] == result["ruleId"] for result in run["results"])
    assert run["invocations"][0]["executionSuccessful"] is (report.verdict is not Verdict.UNKNOWN)
    assert text == parity_sarif.render(report)


def test_sarif_results_point_at_the_rule_and_hold_the_values(mapping: Path) -> None:
    (run,) = parity_sarif.document(_at(mapping))["runs"]
    first, *others = run["results"]
    assert first["ruleId"] == "app/runs#error"
    assert first["occurrenceCount"] == 2
    assert first["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "my%20mappings/app/runs.toml", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 12},
    }
    assert [one["old"] for one in first["properties"]["differences"]] == [HOSTILE, None]
    assert "k3 error: NULL by the mapping, 'x' on the target" in first["message"]["text"]
    assert [one["ruleId"] for one in others] == ["field", "missing", "history-order", "self-test"]
    assert [one["level"] for one in others] == ["error", "error", "error", "warning"]
    assert [one["target_key"] for one in others[1]["properties"]["differences"]] == ["k2"]
    assert run["tool"]["driver"]["rules"][0]["properties"]["forgiven"] == [
        {"rows": 5, "what": "longer than 100 characters, shortened"}
    ]


def test_sarif_names_a_file_outside_of_a_repository_in_full() -> None:
    (run,) = parity_sarif.document(whole())["runs"]
    place = run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]
    assert place == {"uri": "file:///srv/app/mappings/app/runs.toml"}


def test_an_alert_is_the_same_while_its_rows_change() -> None:
    """Else code scanning would close and open one with every run."""
    report = whole()
    other = replace(report.comparisons[0], fields=[FieldCount("error", RULE, 77)], differences=[])
    prints = [
        parity_sarif.document(one)["runs"][0]["results"][0]["partialFingerprints"]
        for one in (report, replace(report, comparisons=[other]))
    ]
    assert prints[0] == prints[1]


def test_what_could_not_be_told_is_no_success_and_no_empty_list() -> None:
    report = whole()
    untold = replace(
        report.comparisons[0], verdict=Verdict.UNKNOWN, reasons=[Reason("x", "Why.")], self_test=SelfTest(0)
    )
    (run,) = parity_sarif.document(replace(report, verdict=Verdict.UNKNOWN, comparisons=[untold], histories=[]))["runs"]
    assert run["invocations"][0]["executionSuccessful"] is False
    assert [one["level"] for one in run["results"]] == ["warning"]
    assert run["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"] == "app/runs: Why."
