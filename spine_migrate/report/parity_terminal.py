"""A comparison for people: tables on a terminal, the same without colours and boxes elsewhere."""

from __future__ import annotations

from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from spine_migrate.parity.model import Comparison, Report, Verdict
from spine_migrate.report import wording
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
    for reason in report.reasons:
        console.print(Text(reason.sentence))
    console.print(Text(wording.verdict(report), style=_STYLES[report.verdict]))
    snapshot = report.snapshot
    where = f" at {snapshot.lsn}" if snapshot.lsn else ""
    console.print(Text(f"Snapshot {snapshot.snapshot}{where}, PostgreSQL {snapshot.server_version}, {report.equality}"))


def _comparison(console: Console, one: Comparison, *, boxes: bool) -> None:
    head = Text(one.mapping, style="bold")
    if one.source_table:
        head.append(escaped(f"  {one.source_table} -> {one.target_table}"), style="not bold")
    head.append(f"  {one.verdict.value}", style=_STYLES[one.verdict])
    console.print(head)
    for line in [*wording.facts(one), *(reason.sentence for reason in one.reasons)]:
        console.print(Text(f"  {escaped(line)}"))
    if one.fields:
        console.print(_fields(one, boxes=boxes))
    if one.differences:
        console.print(_differences(one, boxes=boxes))
    if hidden := wording.left_out(one):
        console.print(Text(f"  {hidden}"))
    for place in one.not_compared:
        console.print(Text(f"  not compared: {escaped(place)}", style="dim"))
    console.print()


def _table(*headings: str, boxes: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD if boxes else None, pad_edge=True, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold", justify="right" if heading == "rows" else "left")
    return table


def _fields(one: Comparison, *, boxes: bool) -> Table:
    table = _table("rows", "field", "rule", boxes=boxes)
    for count in one.fields:
        table.add_row(Text(str(count.rows)), Text(escaped(count.field)), Text(str(count.rule or "(no rule)")))
    return table


def _differences(one: Comparison, *, boxes: bool) -> Table:
    table = _table(*wording.HEADINGS, boxes=boxes)
    for difference in one.differences:
        table.add_row(*(Text(escaped(part)) for part in wording.row(difference, _VALUE_WIDTH)))
    return table
