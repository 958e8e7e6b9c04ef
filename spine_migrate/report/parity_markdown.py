"""A comparison as Markdown, for a step summary or a ticket."""

from __future__ import annotations

from collections.abc import Iterator

from spine_migrate.parity.model import Comparison, Report
from spine_migrate.report import wording
from spine_migrate.report.value import escaped

# GitHub refuses a step summary over 1 MiB.
_LIMIT_BYTES = 1_000_000
_VALUE_WIDTH = 120


def render(report: Report) -> str:
    """At most 1 MB; the differences that would make it longer are left out, and the text says so."""
    parts = [f"## Comparison: {report.verdict.value}\n\n{wording.verdict(report)}\n"]
    parts.extend(f"\n{_text(reason.sentence)}\n" for reason in report.reasons)
    for one in report.comparisons:
        parts.extend(_comparison(one))
    parts.extend(("\n### Not checked\n\n", *(f"- {line}\n" for line in report.not_checked)))
    parts.append(f"\nEquality is {report.equality} {report.events}\n")
    text, used = "", 0
    for part in parts:
        used += len(part.encode())
        if used > _LIMIT_BYTES:
            return f"{text}\nCut at 1 MB; the JSON report is whole.\n"
        text += part
    return text


def _comparison(one: Comparison) -> Iterator[str]:
    yield f"\n### {_text(one.mapping)}: {one.verdict.value}\n\n"
    yield from (f"- {_text(line)}\n" for line in [*wording.facts(one), *(r.sentence for r in one.reasons)])
    if one.fields:
        yield "\n| rows | field | rule |\n|--:|---|---|\n"
        yield from (f"| {f.rows} | {_code(f.field)} | {_code(str(f.rule or '(no rule)'))} |\n" for f in one.fields)
    if one.differences:
        yield f"\n| {' | '.join(wording.HEADINGS)} |\n|{'---|' * len(wording.HEADINGS)}\n"
        for difference in one.differences:
            yield f"| {' | '.join(_code(part) for part in wording.row(difference, _VALUE_WIDTH))} |\n"
    if hidden := wording.left_out(one):
        yield f"\n{hidden}\n"
    yield from (f"\nNot compared: {_text(place)}\n" for place in one.not_compared)


def _text(text: str) -> str:
    return "".join(f"\\{letter}" if letter in r"\`*_[]<>|#" else letter for letter in escaped(text))


def _code(text: str) -> str:
    """In backquotes that the text does not contain; a bar would end the cell even there."""
    if not text:
        return ""
    fence = "`"
    while fence in text:
        fence += "`"
    return f"{fence} {escaped(text).replace('|', '&#124;')} {fence}" if "`" in text else f"`{_bars(text)}`"


def _bars(text: str) -> str:
    return escaped(text).replace("|", "\\|")
