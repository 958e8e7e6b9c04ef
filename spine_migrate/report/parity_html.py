"""A comparison as one HTML page for people: nothing is loaded, nothing is executed, everything that varies is escaped.

Jinja2 escapes by default, marks what is escaped by its type, and refuses names that it does not know; it brings nothing
with it but MarkupSafe, which Alembic has brought already. The templates lie in ``templates``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import takewhile

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spine_migrate.parity.model import Comparison, Difference, Report, Verdict
from spine_migrate.report import parity_evidence, parity_svg, wording
from spine_migrate.report.value import escaped

_VALUE_WIDTH = 400
_CLASSES = {Verdict.EQUAL: "equal", Verdict.DIFFERENT: "different", Verdict.UNKNOWN: "unknown"}


def render(report: Report) -> str:
    page = _environment().get_template("parity.html.jinja")
    return page.render(report=report, lead=_lead(report), untold=list(_untold(report))) + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("spine_migrate.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # What does not print is written as an escape, so that no value can turn a line around or hide in it.
        finalize=lambda value: value if isinstance(value, Markup) else escaped(str(value)),
    )
    environment.filters |= {"number": _number, "share": _share, "tone": _CLASSES.__getitem__}
    environment.globals |= {
        "evidence": parity_evidence,
        "svg": parity_svg,
        "wording": wording,
        "row": _row,
        "largest": _largest,
    }
    return environment


def _lead(report: Report) -> str:
    """The verdict's facts in one line."""
    if report.verdict is Verdict.UNKNOWN:
        return "Neither equality nor a difference is proved."
    counts = [one.counts for one in report.comparisons if one.counts]
    if report.verdict is Verdict.EQUAL:
        held = sum(each.quarantined + each.doubled for each in counts)
        quarantine = f" In quarantine: {held:,}." if held else ""
        return f"Rows that agree field by field: {sum(each.matching for each in counts):,}.{quarantine}"
    total = sum(one.differences_total for one in report.comparisons)
    if not total:
        return wording.verdict(report).partition(": ")[2].capitalize()
    differing = sum(1 for one in report.comparisons if one.verdict is Verdict.DIFFERENT)
    broken = parity_evidence.broken(report)
    histories = f" Laws that histories break: {broken:,}." if broken else ""
    return f"Differences: {total:,}, in {differing} of {len(report.comparisons)} mappings.{histories}"


def _untold(report: Report) -> Iterator[str]:
    """Why something could not be told, up where nobody can miss it."""
    yield from (reason.sentence for reason in report.reasons)
    for one in report.comparisons:
        if one.verdict is Verdict.UNKNOWN:
            yield from (f"{one.mapping}: {reason.sentence}" for reason in one.reasons)
        if one.self_test and one.self_test.failed:
            yield f"{one.mapping}: self-test {parity_evidence.self_test(one.self_test)}."


def _number(value: int | str) -> str:
    """With thousands apart; a text that is no number as it is."""
    return f"{int(value):,}" if isinstance(value, int) or value.isdecimal() else value


def _share(part: int, whole: int) -> str:
    """A share as per cent for a width; one row of many is still to be seen."""
    return f"{max(0.5, 100 * part / whole) if part else 0:.2f}"


def _largest(one: Comparison) -> int:
    return max((count.rows for count in one.fields), default=0)


def _row(difference: Difference) -> dict[str, object]:
    """A difference with both values cut in three: what they begin with alike, what is not alike, how they end alike."""
    key, field, old, new, rule = wording.row(difference, _VALUE_WIDTH)
    if difference.kind != "field":
        return {"key": key, "field": field, "kind": old.strip("()"), "note": new, "rule": rule}
    head = _alike(old, new)
    shorter = min(len(old), len(new)) - head
    tail = min(shorter, _alike(old[::-1], new[::-1]))
    parts = [(text[:head], text[head : len(text) - tail], text[len(text) - tail :]) for text in (old, new)]
    return {"key": key, "field": field, "old": parts[0], "new": parts[1], "rule": rule, "kind": None}


def _alike(left: str, right: str) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
