"""A comparison as the message of a failed test: what differs, in full lines, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from spine_migrate.parity.model import Comparison, Difference, Report, Verdict
from spine_migrate.report import wording
from spine_migrate.report.value import escaped

_VALUE_WIDTH = 200


def message(report: Report) -> str:
    """The verdict, then every migration that is not equal with its reasons and its listed differences."""
    lines = [wording.verdict(report), *(reason.sentence for reason in report.reasons)]
    for one in report.comparisons:
        if one.verdict is not Verdict.EQUAL:
            lines.extend(_comparison(one))
    return "\n".join(escaped(line) for line in lines)


def _comparison(one: Comparison) -> Iterator[str]:
    yield f"{one.mapping}: {one.verdict.value}"
    yield from (f"  {reason.sentence}" for reason in one.reasons)
    for difference in one.differences:
        yield from _difference(difference)
    if hidden := wording.left_out(one):
        yield f"  {hidden}"


def _difference(difference: Difference) -> Iterator[str]:
    key, field, old, new, rule = wording.row(difference, _VALUE_WIDTH)
    if difference.kind != "field":
        yield f"  {' '.join(part for part in (key, field, old, new) if part)}"
        return
    yield f"  {key} {field}"
    yield f"    old  {old}"
    yield f"    new  {new}"
    if rule:
        yield f"    rule {rule}"
