"""A comparison of backends as Markdown, for a step summary or a ticket."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spine_migrate.parity.outputs.model import Outputs
from spine_migrate.report import outputs_wording as wording
from spine_migrate.report.value import escaped

_VALUE_WIDTH = 120
#: Far below the 1 MiB that GitHub takes for a step summary.
_LISTED = 500


def render(outputs: Outputs) -> str:
    return "".join(_parts(outputs))


def _parts(outputs: Outputs) -> Iterator[str]:
    yield f"## {_text(f'{outputs.kind} {outputs.name}')}: {outputs.verdict.value}\n"
    yield f"\n{_text(wording.verdict(outputs))}\n"
    yield from (f"\n{_text(reason.sentence)}\n" for reason in outputs.reasons)
    yield _table(wording.HEADINGS, [[_text(part) for part in row] for row in wording.rows(outputs)])
    differing = list(wording.differences(outputs, _VALUE_WIDTH))
    if differing:
        yield _table(wording.DIFFERENCES, [[_text(part) for part in row] for row in differing[:_LISTED]])
    if len(differing) > _LISTED:
        yield f"\nListed differences: {_LISTED} of {len(differing)}; the JSON report has all.\n"
    yield "\n"
    yield from (f"- {_text(line)}\n" for line in (*wording.noise(outputs), *wording.rules(outputs)))
    yield from ("\nNot checked:\n\n", *(f"- {_text(line)}\n" for line in outputs.not_checked))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n" + "\n".join(lines) + "\n"


def _text(text: str) -> str:
    return "".join(f"\\{letter}" if letter in r"\`*_[]<>|#$" else letter for letter in escaped(text))
