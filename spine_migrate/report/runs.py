"""Runs and their events, as tables and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, TextIO

from rich.table import Table
from rich.text import Text

from spine_migrate.execution.events import RunEvent
from spine_migrate.execution.runs import RunRecord, RunSummary
from spine_migrate.report.tables import console_for, table
from spine_migrate.report.value import escaped

FORMAT = 1

_STYLES = {
    "completed": "green", "failed": "red", "dead_lettered": "bold red", "running": "cyan", "cancelled": "yellow"
}  # fmt: skip
_NONE = "-"
_FACTS = (
    "lane", "priority", "trigger_source", "idempotency_key", "correlation_id", "parent_run_id", "retry_of_run_id",
    "executor_name", "external_ref", "error_type", "error",
)  # fmt: skip
_VALUES = ("params", "metadata", "tags", "result")


def list_json(found: Sequence[RunSummary]) -> dict[str, Any]:
    """``{"format": 1, "runs": [...]}``; a run has the fields of ``RunSummary``, times in ISO 8601."""
    return {"format": FORMAT, "runs": [run.to_dict() for run in found]}


def render_list(found: Sequence[RunSummary], file: TextIO) -> None:
    console = console_for(file)
    shown = table("run", "status", "kind", "name", "lane", "attempt", "created", "took", "error", boxes=file.isatty())
    for run in found:
        shown.add_row(
            run.run_id,
            Text(run.status, style=_STYLES.get(run.status, "")),
            *(Text(escaped(part)) for part in (run.kind, run.name, run.lane)),
            str(run.attempt),
            _time(run.created_at),
            _took(run.started_at, run.completed_at),
            Text(escaped(run.error_type or "")),
        )
    console.print(shown)


def run_json(run: RunRecord, events: Sequence[RunEvent]) -> dict[str, Any]:
    """``{"format": 1, "run": {...}, "events": [...]}``; an event has ``seconds_since_previous``, None for the first."""
    gaps = [None, *(seconds for seconds in _gaps(events))]
    told = [{**event.to_dict(), "seconds_since_previous": gap} for event, gap in zip(events, gaps, strict=False)]
    return {"format": FORMAT, "run": run.to_dict(), "events": told}


def render_run(run: RunRecord, events: Sequence[RunEvent], file: TextIO) -> None:
    console = console_for(file)
    head = Text(f"{run.run_id}  {run.spec.kind} {escaped(run.spec.name)}: ")
    head.append(run.status, style=_STYLES.get(run.status, "bold"))
    console.print(head)
    facts = run.to_dict()
    values = {name: json.dumps(facts[name], ensure_ascii=False) for name in _VALUES if facts[name]}
    told = {
        "attempt": f"{run.attempt}, at most {run.spec.max_retries} retries",
        **{name: facts[name] for name in _FACTS if facts[name] is not None},
        "created": _time(run.created_at),
        "started": run.started_at and _time(run.started_at),
        "completed": run.completed_at and f"{_time(run.completed_at)}, took {_took(run.started_at, run.completed_at)}",
        **values,
    }
    width = max(map(len, told))
    for name, value in told.items():
        if value:
            console.print(Text(f"  {name:<{width}}  {escaped(str(value))}"))
    console.print()
    console.print(_timeline(events, boxes=file.isatty()) if events else "no events")


def _timeline(events: Sequence[RunEvent], *, boxes: bool) -> Table:
    shown = table("time", "after", "event", "source", "data", boxes=boxes)
    after = ["", *(f"+{span(seconds)}" for seconds in _gaps(events))]
    for event, gap in zip(events, after, strict=True):
        data = json.dumps(event.data, ensure_ascii=False) if event.data else ""
        parts = (event.event_type, event.source, data)
        shown.add_row(_time(event.timestamp), gap, *(Text(escaped(str(part))) for part in parts))
    return shown


def span(seconds: float) -> str:
    """A time between two events, to read: its two largest units."""
    if seconds < 0:
        return f"-{span(-seconds)}"
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.3f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _gaps(events: Sequence[RunEvent]) -> list[float]:
    """One fewer than events."""
    return [(late.timestamp - early.timestamp).total_seconds() for early, late in pairwise(events)]


def _took(started: datetime | None, completed: datetime | None) -> str:
    return _NONE if started is None or completed is None else span((completed - started).total_seconds())


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03}Z"
