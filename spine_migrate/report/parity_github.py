"""A comparison as GitHub workflow commands: annotations on the mapping rules behind the differences.

GitHub shows at most ten errors per step, so there is one per rule, the most frequent first, not one per row.
"""

from __future__ import annotations

from collections.abc import Iterator

from spine_migrate.parity.model import Report, Verdict
from spine_migrate.report import wording
from spine_migrate.report.value import escaped

_LIMIT = 10


def render(report: Report) -> str:
    found = list(_annotations(report))
    if len(found) > _LIMIT:
        more = len(found) - (_LIMIT - 1)
        found = [
            *found[: _LIMIT - 1],
            f"::error title=spine-migrate compare::further findings: {more}; see the JSON report",
        ]
    if not found:
        found = [f"::notice title=spine-migrate compare::{_data(wording.verdict(report))}"]
    return "".join(f"{line}\n" for line in found)


def _annotations(report: Report) -> Iterator[str]:
    for reason in report.reasons:
        yield f"::error title=spine-migrate compare::{_data(reason.sentence)}"
    for one in report.comparisons:
        if one.verdict is Verdict.EQUAL:
            continue
        for reason in one.reasons:
            yield f"::error title={_property(one.mapping)}::{_data(reason.sentence)}"
        for count in one.fields:
            place = ""
            if count.rule is not None:
                line = f",line={count.rule.line}" if count.rule.line else ""
                place = f" file=mappings/{_property(count.rule.file)}{line},"
            title = f"{place or ' '}title={_property(f'{one.mapping}: {count.field}')}"
            yield f"::error{title}::rows that differ in {_data(count.field)}: {count.rows}"


def _data(text: str) -> str:
    return escaped(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
