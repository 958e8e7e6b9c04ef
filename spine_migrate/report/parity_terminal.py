"""A comparison for people: tables on a terminal, the same without colours and boxes elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spine_migrate.parity.evidence import Histories
from spine_migrate.parity.model import Comparison, Report, Verdict
from spine_migrate.report import parity_evidence, wording
from spine_migrate.report.value import escaped

_STYLES = {Verdict.EQUAL: "bold green", Verdict.DIFFERENT: "bold red", Verdict.UNKNOWN: "bold yellow"}
_VALUE_WIDTH = 48
# Lines of a file or a pipe are not wrapped.
_UNWRAPPED = 100_000


def render(report: Report, file: TextIO) -> None:
    terminal = file.isatty()
    console = Console(file=file, highlight=False, markup=False, emoji=False, width=None if terminal else _UNWRAPPED)
    for one in report.comparisons:
        _comparison(console, one, boxes=terminal)
    for histories in report.histories:
        _histories(console, histories, boxes=terminal)
    for name, words in parity_evidence.basis(report).items():
        console.print(Text(f"{name}: {escaped(words)}", style="dim"))
    for line in report.not_checked:
        console.print(Text(f"Not checked: {escaped(line)}", style="dim"))
    for reason in report.reasons:
        console.print(Text(escaped(reason.sentence)))
    console.print(Text(wording.verdict(report), style=_STYLES[report.verdict]))


def _comparison(console: Console, one: Comparison, *, boxes: bool) -> None:
    head = Text(escaped(one.mapping), style="bold")
    if one.source_table:
        head.append(escaped(f"  {one.source_table} -> {one.target_table}"), style="not bold")
    head.append(f"  {one.verdict.value}", style=_STYLES[one.verdict])
    console.print(head)
    for line in [*wording.facts(one), *(reason.sentence for reason in one.reasons)]:
        console.print(Text(f"  {escaped(line)}"))
    if one.fields:
        counts = ((str(count.rows), count.field, str(count.rule or "(no rule)")) for count in one.fields)
        console.print(_table(("rows", "field", "rule"), counts, boxes=boxes))
    if one.differences:
        listed = (wording.row(difference, _VALUE_WIDTH) for difference in one.differences)
        console.print(_table(wording.HEADINGS, listed, boxes=boxes))
    if hidden := wording.left_out(one):
        console.print(Text(f"  {hidden}"))
    if one.forgiven:
        console.print(_table(parity_evidence.FORGIVEN_HEADINGS, parity_evidence.forgiven(one), boxes=boxes))
    if one.self_test and one.self_test.failed:
        rows = parity_evidence.injections(one.self_test.failed)
        console.print(_table(parity_evidence.INJECTION_HEADINGS, rows, boxes=boxes))
    for place in one.not_compared:
        console.print(Text(f"  not compared: {escaped(place)}", style="dim"))
    console.print()


def _histories(console: Console, histories: Histories, *, boxes: bool) -> None:
    head = Text(escaped(parity_evidence.histories_title(histories)), style="bold")
    head.append(f"  {histories.verdict.value}", style=_STYLES[histories.verdict])
    console.print(head)
    for line in parity_evidence.histories_facts(histories):
        console.print(Text(f"  {escaped(line)}"))
    if histories.checks:
        laws = parity_evidence.checks(histories.checks)
        console.print(_table(parity_evidence.CHECK_HEADINGS, laws, boxes=boxes))
    if examples := list(parity_evidence.examples(histories.checks)):
        console.print(_table(parity_evidence.EXAMPLE_HEADINGS, examples, boxes=boxes))
    console.print()


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, boxes: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD if boxes else None, pad_edge=True, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading in wording.NUMBERS else "left")
    for row in rows:
        table.add_row(*(Text(escaped(cell)) for cell in row))
    return table
