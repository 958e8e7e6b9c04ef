"""The sentences of a comparison of backends that every rendering for people shares."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from spine_migrate.parity.model import Verdict
from spine_migrate.parity.outputs.json_diff import Kind
from spine_migrate.parity.outputs.model import Applied, Found, Measured, Outputs
from spine_migrate.report.value import excerpts

HEADINGS = ("Backend", "Duration", "Status", "Notes")
DIFFERENCES = ("backend", "path", "baseline", "here", "runs")
_ABSENT = "(absent)"
_COMPARABLE = 10
#: From which seconds on, once they are rounded; by what they are multiplied; and what they are called then.
_UNITS = ((0.9995, 1, "s"), (0.9995e-3, 1e3, "ms"), (0.0, 1e6, "us"))
_LONG = 999.5


def verdict(outputs: Outputs) -> str:
    others = [one.name for one in outputs.backends[1:]]
    match outputs.verdict:
        case Verdict.EQUAL if not outputs.baseline.observations[0].completed:
            return f"Equal: {', '.join(others)} fail as {outputs.baseline.name} does."
        case Verdict.EQUAL:
            return f"Equal: {', '.join(others)} give what {outputs.baseline.name} gives."
        case Verdict.DIFFERENT:
            differing = [one.name for one in outputs.backends if one.verdict is Verdict.DIFFERENT]
            return f"Different: {', '.join(differing)} from {outputs.baseline.name}."
        case _:
            return "Could not tell."


def rows(outputs: Outputs) -> Iterator[tuple[str, str, str, str]]:
    """A row of ``HEADINGS`` per backend."""
    for one in outputs.backends:
        yield one.name, duration(one), ", ".join(one.statuses), "; ".join(notes(outputs, one))


def duration(one: Measured) -> str:
    """The median, and from which to which the runs were."""
    if one.median_seconds is None:
        return ""
    spread = f" ({seconds(min(one.seconds))} to {seconds(max(one.seconds))})" if len(one.seconds) > 1 else ""
    return f"{seconds(one.median_seconds)}{spread}"


def notes(outputs: Outputs, one: Measured) -> Iterator[str]:
    if one is outputs.baseline:
        yield "baseline"
    elif (overhead := outputs.overhead(one)) is not None:
        yield _overhead(overhead, outputs.baseline.median_seconds)
    if one is not outputs.baseline and one.median_waited:
        yield f"{seconds(one.median_waited)} until a worker began"
    if one is not outputs.baseline:
        yield from _compared(one)
    if one.noisy:
        yield f"not steady at {_many(len(one.noisy), 'path')}"


def differences(outputs: Outputs, width: int) -> Iterator[tuple[str, str, str, str, str]]:
    """A row of ``DIFFERENCES`` each, the values cut to ``width`` characters."""
    for one in outputs.backends:
        for found in one.differences:
            times = f"{found.times} of {len(one.seconds)}{', not steady here' if found.unsteady else ''}"
            yield one.name, found.path, *excerpts(*values(found), width), times


def values(found: Found) -> tuple[str, str]:
    """Of the baseline, and of the backend."""
    old = _ABSENT if found.kind is Kind.EXTRA else _json(found.old)
    new = _ABSENT if found.kind is Kind.MISSING else _json(found.new)
    return old, new


def noise(outputs: Outputs) -> list[str]:
    if outputs.noise is None:
        return ["noise was not looked for: the baseline ran once, --repeat 2 or more compares it with itself"]
    return [
        f"noise at {one.path}: the baseline differs from itself at {_many(one.paths, 'place')}, which explains"
        f" {_many(one.masked, 'difference')}"
        for one in outputs.noise
    ]


def rules(outputs: Outputs) -> list[str]:
    return [
        f"rule {place(outputs, one)} {one.rule.pattern.text}: "
        + (f"{_many(one.forgiven, 'difference')} forgiven{_because(one)}" if one.forgiven else "not used")
        for one in outputs.rules
    ]


def place(outputs: Outputs, one: Applied) -> str:
    return f"{outputs.rules_file}:{one.rule.line}" if one.rule.line else str(outputs.rules_file)


def seconds(given: float) -> str:
    """With three digits that count: 45.1s, 3.04ms."""
    factor, unit = next((factor, unit) for at_least, factor, unit in _UNITS if abs(given) >= at_least)
    return f"{given * factor:.3g}{unit}" if abs(given) < _LONG else f"{given:,.0f}s"


def _overhead(overhead: float, base: float | None) -> str:
    # Beyond that it is no overhead of anything, but of another kind.
    part = f" ({overhead / base:+.0%})" if base and overhead < _COMPARABLE * base else ""
    return f"{'-' if overhead < 0 else '+'}{seconds(abs(overhead))}{part}"


def _compared(one: Measured) -> Iterator[str]:
    if any(run.gave_up for run in one.observations):
        yield "not ended in time"
    if one.verdict is Verdict.UNKNOWN:
        return
    yield _part("result", one.of_result())
    yield _part("events", one.of_events()) if one.events_compared else "events not compared"


def _part(name: str, found: Sequence[Found]) -> str:
    if not found:
        return f"{name} equal"
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{name} differ{'' if name == 'events' else 's'} at {found[0].path}{more}"


def _because(one: Applied) -> str:
    return f" ({one.rule.because})" if one.rule.because else ""


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
