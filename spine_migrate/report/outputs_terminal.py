"""A comparison of backends for people: tables on a terminal, the same without colours and boxes elsewhere."""

from __future__ import annotations

from typing import TextIO

from rich.text import Text

from spine_migrate.parity.model import Verdict
from spine_migrate.parity.outputs.model import Outputs
from spine_migrate.report import outputs_wording as wording
from spine_migrate.report.tables import console_for, table
from spine_migrate.report.value import escaped

_STYLES = {Verdict.EQUAL: "bold green", Verdict.DIFFERENT: "bold red", Verdict.UNKNOWN: "bold yellow"}
_VALUE_WIDTH = 48
_LISTED = 40


def render(outputs: Outputs, file: TextIO) -> None:
    """The JSON report has the differences that are too many to be listed."""
    console, boxes = console_for(file), file.isatty()
    shown = table(*wording.HEADINGS, boxes=boxes)
    for row in wording.rows(outputs):
        shown.add_row(*(Text(escaped(part)) for part in row))
    console.print(shown)
    differing = list(wording.differences(outputs, _VALUE_WIDTH))
    if differing:
        listed = table(*wording.DIFFERENCES, boxes=boxes)
        for difference in differing[:_LISTED]:
            listed.add_row(*(Text(escaped(part)) for part in difference))
        console.print()
        console.print(listed)
        if len(differing) > _LISTED:
            console.print(Text(f"listed differences: {_LISTED} of {len(differing)}; --format json has all"))
    console.print()
    dry = ["executed with the params that the handler's dry_run makes"] if outputs.dry_run else []
    for line in (*dry, *wording.noise(outputs), *wording.rules(outputs)):
        console.print(Text(escaped(line), style="dim"))
    for reason in outputs.reasons:
        console.print(Text(escaped(reason.sentence)))
    console.print(Text(escaped(wording.verdict(outputs)), style=_STYLES[outputs.verdict]))
