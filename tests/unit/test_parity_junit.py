"""The JUnit report: a case per table and check, XML that every parser takes, errors where nothing could be told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

from xmlschema import XMLSchema10

from spine_migrate.parity.evidence import SelfTest
from spine_migrate.parity.model import Counts, Reason, Report, Verdict
from spine_migrate.report import parity_junit
from tests.parity_reports import for_any_report, whole

_SCHEMA = XMLSchema10(str(Path(__file__).parents[1] / "schemas" / "junit.xsd"))


def _parsed(report: Report) -> ET.Element:
    return ET.fromstring(parity_junit.render(report))  # noqa: S314 - our own text


def _ended(root: ET.Element, outcome: str) -> list[str]:
    return [case.attrib["name"] for case in root.iter("testcase") if case.find(outcome) is not None]


@for_any_report
def test_whatever_the_report_its_xml_keeps_the_schema(report: Report) -> None:
    text = parity_junit.render(report)
    _SCHEMA.validate(text)
    assert all(letter.isprintable() or letter == "\n" for letter in text)


@for_any_report
def test_the_counts_are_those_of_the_cases(report: Report) -> None:
    root = _parsed(report)
    for suite in root:
        assert suite.attrib["tests"] == str(len(suite.findall("testcase")))
    for total, outcome in (("failures", "failure"), ("errors", "error")):
        assert root.attrib[total] == str(len(_ended(root, outcome)))


@for_any_report
def test_what_is_different_or_could_not_be_told_is_never_green(report: Report) -> None:
    root = _parsed(report)
    if report.verdict is Verdict.UNKNOWN:
        assert _ended(root, "error")
    if report.verdict is Verdict.DIFFERENT:
        assert _ended(root, "error") + _ended(root, "failure")


def test_there_is_a_case_per_table_and_check() -> None:
    root = _parsed(whole())
    suites = {suite.attrib["name"]: suite for suite in root}
    assert list(suites) == ["app/runs", "app/runs (histories)", "spine-migrate compare"]
    assert [case.attrib["name"] for case in suites["app/runs"].iter("testcase")] == [
        "missing", "extra", "fields", "keys", "quarantine", "counts: source", "counts: checkpoints",
        "self-test: one microsecond in created_at", "self-test: missing",
    ]  # fmt: skip
    law = "order: Events under one timestamp keep their order."
    assert _ended(root, "failure") == ["missing", "extra", "fields", "counts: checkpoints", law]
    assert _ended(root, "error") == ["self-test: missing"]
    facts = {case.attrib["name"]: case.findtext("failure") or "" for case in root.iter("testcase")}
    assert "k2 | " in facts["missing"]
    assert "2 rows | error | app/runs.toml:12" in facts["fields"]
    assert "k3 | error | NULL | 'x' | app/runs.toml:12 explains it (refused by the rule)" in facts["fields"]
    assert "k1 | order | l1 | completed before it was started" in facts[law]


def test_what_the_comparison_rests_on_stands_in_the_properties() -> None:
    report = whole()
    found = {(one.attrib["name"], one.attrib["value"]) for one in _parsed(report).iter("property")}
    assert ("forgiven", "5 | longer than 100 characters, shortened | error (app/runs.toml:12)") in found
    assert ("not compared", "executions.owner (dropped: nobody reads it)") in found
    assert ("Equality (value)", report.equality) in found
    assert {("not checked", line) for line in report.not_checked} <= found


def test_what_could_not_be_compared_is_an_error() -> None:
    report = whole()
    untold = replace(report.comparisons[0], verdict=Verdict.UNKNOWN, counts=None, self_test=None)
    root = _parsed(replace(report, verdict=Verdict.UNKNOWN, comparisons=[untold], histories=[]))
    assert _ended(root, "error") == ["comparable", "verdict"]
    nothing = replace(report, comparisons=[], histories=[], reasons=[Reason("no-migration", "The ledger has none.")])
    (error,) = _parsed(nothing).iter("error")
    assert error.attrib == {"message": "The ledger has none.", "type": "no-migration"}


def test_a_self_test_that_was_left_out_is_skipped_and_says_why() -> None:
    report = whole()
    skipped = SelfTest(0, skipped=Reason("no-temp", "The role may not create temporary tables."))
    quiet = replace(report.comparisons[0], self_test=skipped, counts=Counts(*[0] * 12))
    (found,) = _parsed(replace(report, comparisons=[quiet], histories=[])).iter("skipped")
    assert found.attrib == {"message": "The role may not create temporary tables.", "type": "no-temp"}
