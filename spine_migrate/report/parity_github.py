"""A comparison as GitHub workflow commands: annotations on the mapping rules behind the differences.

GitHub shows at most ten errors per step, so there is one per rule, not one per row.
"""

from __future__ import annotations

from spine_migrate.parity.model import Report, Verdict
from spine_migrate.report import wording
from spine_migrate.report.parity_findings import Finding, findings
from spine_migrate.report.parity_place import in_repository
from spine_migrate.report.value import cut, escaped

_LIMIT = 10
_WIDTH = 2000


def render(report: Report) -> str:
    found = [_annotation(one) for one in findings(report)]
    if len(found) > _LIMIT:
        more = f"further findings: {len(found) - (_LIMIT - 1)}; see the JSON report"
        found = [*found[: _LIMIT - 1], _command("error", more)]
    if not found:
        found = [_command("notice" if report.verdict is Verdict.EQUAL else "error", wording.verdict(report))]
    return "".join(f"{line}\n" for line in found)


def _annotation(finding: Finding) -> str:
    """On the mapping's line where its file is part of a repository; elsewhere the rule is named in the message."""
    file = in_repository(finding.path)
    message = finding.sentence
    if finding.rule is not None and file is None:
        message = f"{message} ({finding.rule})"
    return _command("error", message, file=file, line=finding.line, title=finding.title)


def _command(
    name: str,
    message: str,
    *,
    file: str | None = None,
    line: int | None = None,
    title: str = "spine-migrate compare",
) -> str:
    place = {"file": file, "line": str(line) if file and line else None, "title": cut(title, _WIDTH)}
    properties = ",".join(f"{key}={_property(escaped(value))}" for key, value in place.items() if value is not None)
    return f"::{name} {properties}::{_data(escaped(cut(message, _WIDTH)))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
