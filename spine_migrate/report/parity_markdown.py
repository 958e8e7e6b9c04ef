"""A comparison as Markdown, for a step summary or a ticket.

What the reader cannot do without comes into the text first: verdicts, counts, what was not checked. The rows of the
tables take what room is left, and where they do not fit the text says how many of which are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from spine_migrate.parity.evidence import Histories
from spine_migrate.parity.model import Comparison, Report
from spine_migrate.report import parity_evidence, wording
from spine_migrate.report.value import cut, escaped

# GitHub refuses a step summary over 1 MiB; some room is left for what else the step writes there.
LIMIT_BYTES = 1_000_000
_VALUE_WIDTH = 120
_TEXT_WIDTH = 1000
_CUT_BYTES = 400
"""What the sentence about a cut takes at most."""


@dataclass(frozen=True)
class _Block:
    """A text that stands, then rows that may be cut; ``what`` names them in the sentence that says so."""

    text: str
    rows: list[str] = field(default_factory=list)
    what: str = ""


def render(report: Report) -> str:
    """At most ``LIMIT_BYTES`` of UTF-8, whatever the values are."""
    blocks = list(_blocks(report))
    kept: list[_Block] = []
    left = LIMIT_BYTES - _CUT_BYTES
    for block in blocks:
        needed = _size(block.text) + (_CUT_BYTES if block.rows else 0)
        if needed > left:
            break
        left -= needed
        kept.append(block)
    parts: list[str] = []
    for block in kept:
        rows = list(_fitting(block.rows, left))
        left -= sum(map(_size, rows))
        parts.extend((block.text, *rows))
        if missing := len(block.rows) - len(rows):
            parts.append(_cut_sentence(f"{missing} of {len(block.rows)} {block.what}"))
    if missing := len(blocks) - len(kept):
        parts.append(_cut_sentence(f"{missing} of {len(blocks)} sections"))
    return "".join(parts)


def _size(text: str) -> int:
    return len(text.encode())


def _fitting(rows: list[str], room: int) -> Iterator[str]:
    for row in rows:
        room -= _size(row)
        if room < 0:
            return
        yield row


def _cut_sentence(what: str) -> str:
    return f"\n**Cut to stay under 1 MB: {what} are left out here; the JSON report is whole.**\n"


def _blocks(report: Report) -> Iterator[_Block]:
    reasons = "".join(f"\n{_text(reason.sentence)}\n" for reason in report.reasons)
    yield _Block(f"## Comparison: {report.verdict.value}\n\n{_text(wording.verdict(report))}\n{reasons}")
    for one in report.comparisons:
        yield from _comparison(one)
    for histories in report.histories:
        yield from _histories(histories)
    basis = parity_evidence.basis(report).items()
    yield _Block("\n### What it rests on\n\n" + _bullets(f"{name}: {words}" for name, words in basis))
    yield _Block("\n### Not checked\n\n" + _bullets(report.not_checked))


def _comparison(one: Comparison) -> Iterator[_Block]:
    facts = _bullets([*wording.facts(one), *(reason.sentence for reason in one.reasons)])
    yield _Block(f"\n### {_text(one.mapping)}: {one.verdict.value}\n\n{facts}")
    name = _text(one.mapping)
    if one.fields:
        counts = [(str(f.rows), f.field, str(f.rule or "(no rule)")) for f in one.fields]
        yield _table(("rows", "field", "rule"), counts, f"fields that differ in {name}")
    if one.differences:
        listed = [wording.row(each, _VALUE_WIDTH) for each in one.differences]
        yield _table(wording.HEADINGS, listed, f"listed differences of {name}")
    if hidden := wording.left_out(one):
        yield _Block(f"\n{hidden}\n")
    if one.forgiven:
        yield _table(parity_evidence.FORGIVEN_HEADINGS, parity_evidence.forgiven(one), f"forgiving rules of {name}")
    if one.self_test and one.self_test.injections:
        rows = parity_evidence.injections(one.self_test.injections)
        yield _table(parity_evidence.INJECTION_HEADINGS, rows, f"injections of the self-test of {name}")
    if one.not_compared:
        yield _Block(
            "\n", [f"- not compared: {_text(place)}\n" for place in one.not_compared], f"blind spots of {name}"
        )


def _histories(histories: Histories) -> Iterator[_Block]:
    title = _text(parity_evidence.histories_title(histories))
    facts = _bullets(parity_evidence.histories_facts(histories))
    yield _Block(f"\n### {title}: {histories.verdict.value}\n\n{facts}")
    if histories.checks:
        yield _table(parity_evidence.CHECK_HEADINGS, parity_evidence.checks(histories.checks), "laws of histories")
    if examples := list(parity_evidence.examples(histories.checks)):
        yield _table(parity_evidence.EXAMPLE_HEADINGS, examples, "examples of histories that break a law")


def _bullets(lines: Iterable[str]) -> str:
    return "".join(f"- {_text(line)}\n" for line in lines)


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], what: str) -> _Block:
    rule = "|".join("--:" if heading in wording.NUMBERS else "---" for heading in headings)
    head = f"\n| {' | '.join(headings)} |\n|{rule}|\n"
    return _Block(head, [f"| {' | '.join(_code(cut(cell, _TEXT_WIDTH)) for cell in row)} |\n" for row in rows], what)


def _text(text: str) -> str:
    shown = escaped(cut(text, _TEXT_WIDTH))
    return "".join(f"\\{letter}" if letter in r"\`*_[]<>|#&~" else letter for letter in shown)


def _code(text: str) -> str:
    """In backquotes that the text does not contain; a bar would end the cell even there."""
    shown = escaped(text)
    if not shown.strip():
        return shown
    fence = "`"
    while fence in shown:
        fence += "`"
    pad = " " if "`" in shown else ""
    return f"{fence}{pad}{shown.replace('|', chr(92) + '|')}{pad}{fence}"
