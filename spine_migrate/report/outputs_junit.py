"""A comparison of backends as JUnit XML: a suite per backend beside the baseline, a case each for its ending in time,
its result and its events. What could not be told is an error, which no runner takes for a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree as ET

from spine_migrate.parity.model import Verdict
from spine_migrate.parity.outputs.model import Found, Measured, Outputs
from spine_migrate.report import outputs_wording as wording
from spine_migrate.report.value import escaped, excerpts

_VALUE_WIDTH = 400


def render(outputs: Outputs) -> str:
    suites = [_suite(outputs, one) for one in outputs.backends]
    root = ET.Element("testsuites", name="spine-migrate compare-backends")
    for total in ("tests", "failures", "errors"):
        root.set(total, str(sum(int(suite.attrib[total]) for suite in suites)))
    root.extend(suites)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _suite(outputs: Outputs, one: Measured) -> ET.Element:
    cases = list(_cases(outputs, one))
    failures, errors = (sum(1 for case in cases if case.find(kind) is not None) for kind in ("failure", "error"))
    name = escaped(f"{outputs.kind} {outputs.name} on {one.name}")
    suite = ET.Element("testsuite", name=name, tests=str(len(cases)), failures=str(failures), errors=str(errors))
    suite.extend(cases)
    return suite


def _cases(outputs: Outputs, one: Measured) -> Iterator[ET.Element]:
    classname = escaped(f"{outputs.kind}.{outputs.name}.{one.name}")
    told = ET.Element("testcase", classname=classname, name="comparable", time=f"{sum(one.seconds):.6f}")
    for reason in one.reasons[:1]:
        message = " ".join(escaped(each.sentence) for each in one.reasons)
        ET.SubElement(told, "error", message=message, type=reason.code)
    yield told
    if one is outputs.baseline:
        return
    parts = {"result": one.of_result(), "events": one.of_events()}
    for name, found in parts.items():
        # What was not compared is no case that passes.
        if found or (one.verdict is not Verdict.UNKNOWN and (name == "result" or one.events_compared)):
            yield _case(classname, name, found)


def _case(classname: str, name: str, found: Sequence[Found]) -> ET.Element:
    case = ET.Element("testcase", classname=classname, name=name)
    if found:
        body = ET.SubElement(case, "failure", message=f"differences: {len(found)}", type=name)
        body.text = "\n".join(_line(each) for each in found)
    return case


def _line(found: Found) -> str:
    return " | ".join(map(escaped, (found.path, *excerpts(*wording.values(found), _VALUE_WIDTH))))
