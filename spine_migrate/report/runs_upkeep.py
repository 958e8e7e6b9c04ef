"""What a purge did or would do, and how it stands with the indexes on runs, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, TextIO

from spine_migrate.db.run_indexes import State
from spine_migrate.execution.retention import Bound, Purged
from spine_migrate.report.tables import console_for, table

FORMAT = 1

_WHY = {
    "parent": "a run that stays has it as its parent",
    "retried": "a run that stays is a retry of it",
    "referenced": "a table of the application names it",
    "in_use": "locked, or brought back meanwhile",
}


def purge_json(bound: Bound, purged: Purged, state: str) -> dict[str, Any]:
    """``state``: planned, purged, interrupted. The fields of ``Bound`` and ``Purged``; a plan counts runs only."""
    return {
        "format": FORMAT,
        "state": state,
        "before": bound.before.isoformat(),
        "statuses": sorted(bound.statuses),
        "migrated": bound.migrated,
        "runs": dict(purged.runs),
        "kept": dict(purged.kept),
        "events": purged.events,
        "batches": purged.batches,
    }


def purge_text(bound: Bound, purged: Purged, state: str) -> str:
    head = "would be deleted" if state == "planned" else "deleted"
    lines = [f"Runs that ended before {bound.before:%Y-%m-%d %H:%M:%S %Z}, {head}: {purged.runs.total():,}"]
    lines += [f"  {status:<14}{count:>12,}" for status, count in sorted(purged.runs.items())]
    if state != "planned":
        lines.append(f"  {'with events':<14}{purged.events:>12,}")
    if purged.kept:
        lines.append(f"Old enough, but kept: {purged.kept.total():,}")
        lines += [f"  {reason:<14}{count:>12,}  {_WHY[reason]}" for reason, count in sorted(purged.kept.items())]
    if not bound.migrated:
        lines.append("Runs that a migration moved here are left alone; --migrated purges them too.")
    if state == "interrupted":
        lines.append("Stopped on request; the same command goes on with what is left.")
    return "\n".join(lines)


def indexes_json(states: Sequence[State]) -> dict[str, Any]:
    """``{"format": 1, "indexes": [...]}``; an index has the fields of ``State``."""
    return {"format": FORMAT, "indexes": [asdict(one) for one in states]}


def render_indexes(states: Sequence[State], file: TextIO) -> None:
    shown = table("index", "state", "MB", "serves", "name", boxes=file.isatty(), right=("MB",))
    for one in states:
        state = "valid" if one.valid else "missing" if one.bytes is None else "invalid: create builds it anew"
        size = "" if one.bytes is None else f"{one.bytes / 1e6:,.1f}"
        shown.add_row(one.key, state, size, one.purpose, one.name)
    console_for(file).print(shown)
