"""A comparison as JUnit XML: one test case per table and check, the facts in the body of the failure."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree as ET

from spine_migrate.parity.model import Comparison, Difference, Report, Verdict
from spine_migrate.report import wording
from spine_migrate.report.value import escaped

_VALUE_WIDTH = 400
_ROW_CHECKS = {
    "missing": {"missing"},
    "extra": {"extra"},
    "fields": {"field"},
    "keys": {"doubled", "duplicate"},
    "quarantine": {"gone"},
}


def render(report: Report) -> str:
    suites = ET.Element("testsuites", name="spine-migrate compare")
    for one in report.comparisons:
        suites.append(_suite(one))
    if not report.comparisons:
        suite = ET.SubElement(suites, "testsuite", name="ledger", tests="1", failures="0", errors="1")
        case = ET.SubElement(suite, "testcase", classname="ledger", name="migrations")
        for reason in report.reasons:
            ET.SubElement(case, "error", message=escaped(reason.sentence), type=reason.code)
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _suite(one: Comparison) -> ET.Element:
    cases = list(_cases(one))
    failures, errors = (sum(1 for case in cases if case.find(kind) is not None) for kind in ("failure", "error"))
    suite = ET.Element("testsuite", name=one.mapping, tests=str(len(cases)), failures=str(failures), errors=str(errors))
    suite.extend(cases)
    return suite


def _cases(one: Comparison) -> Iterator[ET.Element]:
    """What could not be told is an error, which no runner takes for a pass."""
    if one.verdict is Verdict.UNKNOWN:
        case = ET.Element("testcase", classname=one.mapping, name="comparable")
        sentences = " ".join(escaped(reason.sentence) for reason in one.reasons)
        ET.SubElement(case, "error", message=sentences, type=one.reasons[0].code)
        yield case
    if one.counts is None:
        return
    numbers = {
        "missing": one.counts.missing,
        "extra": one.counts.extra,
        "fields": sum(count.rows for count in one.fields),
        "keys": one.counts.doubled + one.counts.duplicate_keys,
        "quarantine": one.counts.gone,
    }
    for name, number in numbers.items():
        listed = [difference for difference in one.differences if difference.kind in _ROW_CHECKS[name]]
        yield _case(one, name, f"differences: {number}" if number else None, listed)
    for equation in one.equations:
        yield _case(one, f"counts: {equation.name}", None if equation.holds else str(equation), [])


def _case(one: Comparison, name: str, failure: str | None, listed: list[Difference]) -> ET.Element:
    case = ET.Element("testcase", classname=one.mapping, name=name)
    if failure is not None:
        body = ET.SubElement(case, "failure", message=failure, type=name)
        body.text = "\n".join(" | ".join(map(escaped, wording.row(each, _VALUE_WIDTH))) for each in listed)
    return case
