"""The sentences of a comparison that every rendering for people shares."""

from __future__ import annotations

from spine_migrate.parity.model import Comparison, Difference, Report, Verdict
from spine_migrate.report import parity_evidence
from spine_migrate.report.value import excerpts, shown

_KINDS = {
    "missing": "missing on the target",
    "extra": "no legacy row",
    "doubled": "in quarantine and on the target",
    "duplicate": "duplicate key",
    "gone": "in quarantine, legacy row gone",
}
NUMBERS = frozenset({"rows", "injected", "found", "invented", "broken", "inherited"})
"""The headings over numbers, in all tables of a comparison."""
HEADINGS = ("key", "field", "old", "new", "rule")


def verdict(report: Report) -> str:
    told = [one for one in report.comparisons if one.verdict is not Verdict.UNKNOWN]
    rows = sum(one.counts.source_rows for one in told if one.counts)
    held = sum(one.counts.quarantined + one.counts.doubled for one in told if one.counts)
    total = sum(one.differences_total for one in report.comparisons)
    match report.verdict:
        case Verdict.EQUAL:
            quarantine = f", of which in quarantine: {held}" if held else ""
            return f"Equal: legacy rows compared field by field: {rows}{quarantine}."
        case Verdict.DIFFERENT:
            parts = [f"{total} found"] if total else []
            if broken := parity_evidence.broken(report):
                parts.append(f"laws that histories break: {broken}")
            return f"Different: {', '.join(parts) or 'the counts do not add up'}."
        case _:
            return "Could not tell."


def facts(one: Comparison) -> list[str]:
    """The numbers of one comparison and how they were found, a line each."""
    lines = [*(str(equation) for equation in one.equations), *parity_evidence.ways(one)]
    if one.quarantine:
        parts = [f"{h.open + h.discarded} {h.reason}{f' ({h.discarded} discarded)' if h.discarded else ''}"
                 for h in one.quarantine]  # fmt: skip
        lines.append(f"quarantine by reason: {', '.join(parts)}")
    lines.extend(f"links of {link.field}: {link.waiting} waiting, {link.broken} broken" for link in one.links)
    if one.counts and one.counts.target_others:
        lines.append(f"other target rows, not of this mapping, not compared: {one.counts.target_others}")
    return lines


def row(difference: Difference, width: int) -> tuple[str, str, str, str, str]:
    """Key, field, old, new and rule, the values cut to ``width`` characters."""
    key = difference.key if difference.key is not None else f"target {difference.target_key}"
    if difference.kind != "field":
        words = _KINDS[difference.kind]
        return key, difference.field or "", f"({words})", difference.note or "", ""
    absent = "(absent)" if difference.type == "jsonb" and difference.field and "." in difference.field else "NULL"
    old, new = (shown(value, difference.type, absent=absent) for value in (difference.old, difference.new))
    rule = str(difference.rule) if difference.rule else ""
    if difference.explained and rule:
        rule = f"{rule} explains it"
    if difference.note:
        rule = f"{rule} ({difference.note})" if rule else f"({difference.note})"
    return key, difference.field or "", *excerpts(old, new, width), rule


def left_out(one: Comparison) -> str | None:
    """How many differences are not listed."""
    hidden = one.differences_total - len(one.differences)
    if hidden <= 0:
        return None
    return f"listed differences: {len(one.differences)} of {one.differences_total}; --max-differences lists more"
