"""A comparison as JUnit XML: one test case per table and check, the facts in the body of the failure.

What could not be told is an error, which no runner takes for a pass. What the comparison rests on stands among the
properties of each suite.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from xml.etree import ElementTree as ET

from spine_migrate.parity.evidence import Histories, SelfTest
from spine_migrate.parity.model import Comparison, Report, Verdict
from spine_migrate.report import parity_evidence, wording
from spine_migrate.report.value import escaped

_VALUE_WIDTH = 400
_ROW_CHECKS = {
    "missing": {"missing"},
    "extra": {"extra"},
    "fields": {"field"},
    "keys": {"doubled", "duplicate"},
    "quarantine": {"gone"},
}
_OUTCOMES = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def render(report: Report) -> str:
    suites = [_suite(one.mapping, [*_cases(one), *_self_test(one)], _facts(one)) for one in report.comparisons]
    for histories in report.histories:
        name = f"{histories.mapping} (histories)"
        facts = (("fact", line) for line in parity_evidence.histories_facts(histories))
        suites.append(_suite(name, [*_laws(histories, name)], facts))
    shown = any(suite.attrib["failures"] != "0" for suite in suites)
    suites.append(_suite("spine-migrate compare", [_told(report, shown=shown)], _basis(report)))
    root = ET.Element("testsuites", name="spine-migrate compare")
    for total in ("tests", "failures", "errors"):
        root.set(total, str(sum(int(suite.attrib[total]) for suite in suites)))
    root.extend(suites)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(name: str, cases: list[ET.Element], properties: Iterable[tuple[str, str]]) -> ET.Element:
    suite = ET.Element("testsuite", name=escaped(name), tests=str(len(cases)))
    for total, outcome in _OUTCOMES.items():
        suite.set(total, str(sum(1 for case in cases if case.find(outcome) is not None)))
    facts = ET.SubElement(suite, "properties")
    for key, value in properties:
        ET.SubElement(facts, "property", name=escaped(key), value=escaped(value))
    suite.extend(cases)
    return suite


def _basis(report: Report) -> Iterator[tuple[str, str]]:
    yield from parity_evidence.basis(report).items()
    yield from (("not checked", line) for line in report.not_checked)


def _facts(one: Comparison) -> Iterator[tuple[str, str]]:
    yield from (("fact", line) for line in wording.facts(one))
    yield from (("forgiven", " | ".join(row)) for row in parity_evidence.forgiven(one))
    yield from (("not compared", place) for place in one.not_compared)


def _told(report: Report, *, shown: bool) -> ET.Element:
    """Whether the whole could be told; what is different is ``shown`` by the other suites, as a rule."""
    case = _case("spine-migrate compare", "verdict")
    if report.verdict is Verdict.UNKNOWN or report.reasons:
        sentences = " ".join(reason.sentence for reason in report.reasons) or wording.verdict(report)
        _outcome(case, "error", sentences, report.reasons[0].code if report.reasons else "could-not-tell")
    elif report.verdict is Verdict.DIFFERENT and not shown:
        _outcome(case, "failure", wording.verdict(report), "different")
    return case


def _cases(one: Comparison) -> Iterator[ET.Element]:
    if one.verdict is Verdict.UNKNOWN:
        case = _case(one.mapping, "comparable")
        _outcome(case, "error", " ".join(reason.sentence for reason in one.reasons), one.reasons[0].code)
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
        case = _case(one.mapping, name)
        if number:
            listed = (each for each in one.differences if each.kind in _ROW_CHECKS[name])
            rows = [wording.HEADINGS, *(wording.row(each, _VALUE_WIDTH) for each in listed)]
            counts = [(f"{f.rows} rows", f.field, str(f.rule or "(no rule)")) for f in one.fields if name == "fields"]
            _outcome(case, "failure", f"differences: {number}", name, [*counts, *rows])
        yield case
    for equation in one.equations:
        case = _case(one.mapping, f"counts: {equation.name}")
        if not equation.holds:
            _outcome(case, "failure", str(equation), "counts")
        yield case


def _self_test(one: Comparison) -> Iterator[ET.Element]:
    """A case per kind of difference that was injected; one that was not found is an error, nothing is proved then."""
    test = one.self_test
    if test is None:
        return
    if test.skipped or not test.injections:
        yield _skipped(one, test)
    for injection, row in zip(test.injections, parity_evidence.injections(test.injections), strict=True):
        kind, field, *numbers, told = row
        case = _case(one.mapping, f"self-test: {kind}{f' in {field}' if field else ''}")
        if not injection.passed:
            words = ", ".join(map(" ".join, zip(("injected", "found", "invented"), numbers, strict=True)))
            _outcome(case, "error", f"{told}: {words}", "self-test")
        yield case


def _skipped(one: Comparison, test: SelfTest) -> ET.Element:
    case = _case(one.mapping, "self-test")
    if test.skipped:
        ET.SubElement(case, "skipped", message=escaped(test.skipped.sentence), type=escaped(test.skipped.code))
    else:
        _outcome(case, "error", parity_evidence.self_test(test), "self-test")
    return case


def _laws(histories: Histories, name: str) -> Iterator[ET.Element]:
    if histories.verdict is Verdict.UNKNOWN:
        case = _case(name, "comparable")
        code = histories.reasons[0].code if histories.reasons else "could-not-tell"
        _outcome(case, "error", " ".join(reason.sentence for reason in histories.reasons), code)
        yield case
    for check in histories.checks:
        case = _case(name, f"{check.code}: {check.law}")
        if check.broken > 0:
            rows = [parity_evidence.EXAMPLE_HEADINGS, *parity_evidence.examples([check])]
            told = f"runs that break it: {check.broken}, and as many as the legacy tables have: {check.inherited}"
            _outcome(case, "failure", told, check.code, rows)
        yield case


def _case(group: str, name: str) -> ET.Element:
    return ET.Element("testcase", classname=escaped(group), name=escaped(name))


def _outcome(case: ET.Element, outcome: str, message: str, code: str, rows: Iterable[Iterable[str]] = ()) -> None:
    body = ET.SubElement(case, outcome, message=escaped(message), type=escaped(code))
    body.text = "\n".join(" | ".join(map(escaped, row)) for row in rows)
