"""What the mode shadow has compared, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.text import Text

from spine_migrate.parity.model import Verdict
from spine_migrate.parity.outputs.shadows import Summary
from spine_migrate.report.tables import console_for, table
from spine_migrate.report.value import escaped

FORMAT = 1

#: Of more places only the number is shown; the JSON has them all.
_PLACES = 10


def document(summaries: Sequence[Summary], verdict: Verdict | None) -> dict[str, Any]:
    """``rate_below`` is the upper bound on ``rate`` with ``confidence``; verdicts are null without a gate."""
    return {
        "format": FORMAT,
        "verdict": None if verdict is None else verdict.value,
        "tasks": [_task(one) for one in summaries],
    }


def render(summaries: Sequence[Summary], file: TextIO) -> None:
    console, boxes = console_for(file), file.isatty()
    numbers = ("compared", "matches", "mismatches", "rate", "below", "not comparable")
    shown = table("task", *numbers, "first", "last", boxes=boxes, right=numbers)
    for one in summaries:
        counts = (f"{number:,}" for number in (one.samples, one.of.matches, one.of.mismatches))
        rates = (_percent(one.rate), _percent(one.bound))
        times = (_time(one.of.first_seen), _time(one.of.last_seen))
        shown.add_row(Text(escaped(one.of.task)), *counts, *rates, f"{one.of.unknown:,}", *times)
    console.print(shown)
    for line in (line for one in summaries for line in _lines(one)):
        console.print(Text(escaped(line)))


def _lines(one: Summary) -> Iterator[str]:
    for place in one.of.places[:_PLACES]:
        yield f"{one.of.task} differs at {place.path}: {place.count:,} of {one.samples:,}"
    if len(one.of.places) > _PLACES:
        yield f"{one.of.task} differs at {len(one.of.places) - _PLACES} more places; --json has all"
    if one.verdict is None:
        return
    most = f"{_percent(one.max_rate)} at a confidence of {one.confidence:.4g}"
    match one.verdict:
        case Verdict.EQUAL:
            yield f"{one.of.task}: the mismatch rate is below {most}."
        case Verdict.DIFFERENT:
            yield f"{one.of.task}: the mismatch rate is {_percent(one.rate)}, above {_percent(one.max_rate)}."
        case Verdict.UNKNOWN:
            enough = f"{one.needed:,} comparisons" if one.needed is not None else "more comparisons than there can be"
            yield (
                f"{one.of.task}: could not tell; for {most} it takes {enough} with {one.of.mismatches:,} mismatches,"
                f" and there are {one.samples:,}."
            )


def _task(one: Summary) -> dict[str, Any]:
    of = one.of
    return {
        "task": of.task,
        "compared": one.samples,
        "matches": of.matches,
        "mismatches": of.mismatches,
        "not_comparable": of.unknown,
        "rate": one.rate,
        "rate_below": one.bound,
        "confidence": one.confidence,
        "max_rate": one.max_rate,
        "verdict": None if one.verdict is None else one.verdict.value,
        "comparisons_needed": one.needed,
        "places": [asdict(place) for place in of.places],
        "first_seen": of.first_seen.isoformat(),
        "last_seen": of.last_seen.isoformat(),
    }


def _percent(rate: float | None) -> str:
    return "" if rate is None else f"{100 * rate:.3g}%"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
