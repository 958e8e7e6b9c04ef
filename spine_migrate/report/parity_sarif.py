"""A comparison as SARIF 2.1.0 (OASIS), for code scanning: results point at the lines of the mapping.

There is one result per rule that rows differ in, not one per row, so that an alert opens when a rule's first row
differs and closes when the last one agrees. Its ``occurrenceCount`` is the number of rows; the listed differences are
whole in its property bag.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from spine_migrate.parity.model import Difference, Report, Verdict
from spine_migrate.report import parity_evidence, wording
from spine_migrate.report.parity_findings import Finding, findings
from spine_migrate.report.parity_place import in_repository, uri
from spine_migrate.report.value import escaped

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_VALUE_WIDTH = 80
_EXAMPLES = 3


def render(report: Report) -> str:
    return json.dumps(document(report), indent=2, ensure_ascii=False) + "\n"


def document(report: Report) -> dict[str, Any]:
    """One run; section numbers in the comments are those of the standard."""
    found = list(findings(report))
    rules = _rules(report, found)
    numbers = {rule["id"]: number for number, rule in enumerate(rules)}
    results = [_result(finding, numbers[_rule_id(finding)]) for finding in found]
    untold = [one["message"] for one, finding in zip(results, found, strict=True) if not finding.certain]
    run = {
        "tool": {"driver": {"name": "spine-migrate compare", "version": report.tool_version, "rules": rules}},
        # 3.17: one analysis among several of the same commit; the slash says that there is no run's own id after it.
        "automationDetails": {"id": "spine-migrate-compare/"},
        "invocations": [
            {
                "executionSuccessful": report.verdict is not Verdict.UNKNOWN,
                "toolExecutionNotifications": [{"level": "error", "message": message} for message in untold],
            }
        ],
        "originalUriBaseIds": {"%SRCROOT%": {"description": {"text": "The root of the repository."}}},
        "results": results,
        "properties": {
            "verdict": report.verdict.value,
            "basis": parity_evidence.basis(report),
            "notChecked": report.not_checked,
        },
    }
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule_id(finding: Finding) -> str:
    """``mapping#field`` for a rule of a mapping, the code of the check for everything else."""
    return _mapping_rule(finding.mapping, finding.rule.field) if finding.rule else finding.code


def _mapping_rule(mapping: str | None, field: str) -> str:
    return f"{mapping}#{field}"


def _rules(report: Report, found: list[Finding]) -> list[dict[str, Any]]:
    """Those that results name, and those that have forgiven rows something."""
    rules: dict[str, dict[str, Any]] = {}
    for finding in found:
        name = f"The rule of {finding.rule.field}" if finding.rule else f"The check {finding.code}"
        rules.setdefault(_rule_id(finding), _rule(_rule_id(finding), name))
    for one in report.comparisons:
        for each in one.forgiven:
            if each.rule is not None:
                id_ = _mapping_rule(one.mapping, each.rule.field)
                rule = rules.setdefault(id_, _rule(id_, f"The rule of {each.rule.field}"))
                rule["properties"]["forgiven"].append({"rows": each.rows, "what": each.what})
    return list(rules.values())


def _rule(id_: str, name: str) -> dict[str, Any]:
    return {"id": id_, "shortDescription": {"text": name}, "properties": {"forgiven": []}}


def _result(finding: Finding, number: int) -> dict[str, Any]:
    rule = _rule_id(finding)
    result: dict[str, Any] = {
        "ruleId": rule,
        "ruleIndex": number,
        "kind": "fail",
        "level": "error" if finding.certain else "warning",
        "message": {"text": _message(finding)},
        "locations": [{"physicalLocation": place}] if (place := _place(finding)) else [],
        "partialFingerprints": {"finding/v1": _digest(finding.mapping or "", finding.code, rule, finding.title)},
        "properties": {"differences": [_difference(each) for each in finding.differences]},
    }
    if finding.rows:
        result["occurrenceCount"] = finding.rows
    return result


def _message(finding: Finding) -> str:
    lines = [f"{finding.title}: {escaped(finding.sentence)}"]
    for each in finding.differences[:_EXAMPLES]:
        key, field, old, new, _ = wording.row(each, _VALUE_WIDTH)
        lines.append(f"{key} {field}: {old} by the mapping, {new} on the target" if each.kind == "field" else key)
    return "\n".join(lines)


def _difference(each: Difference) -> dict[str, Any]:
    return {**asdict(each), "rule": str(each.rule) if each.rule else None}


def _place(finding: Finding) -> dict[str, Any] | None:
    if finding.path is None:
        return None
    region = {"startLine": finding.line or 1}
    inside = in_repository(finding.path)
    if inside is not None:
        return {"artifactLocation": {"uri": quote(inside), "uriBaseId": "%SRCROOT%"}, "region": region}
    return {"artifactLocation": {"uri": uri(finding.path)}, "region": region}


def _digest(*parts: str) -> str:
    """The same for the same finding in every run, whatever rows it is about."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
