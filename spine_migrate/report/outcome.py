"""What a run did, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from spine_migrate.backfill.run import Outcome

FORMAT = 1

_STATES = {
    "done": "done",
    "nothing-to-do": "nothing to do, everything was moved before",
    "limit": "stopped at the limit; run the same command to go on",
    "interrupted": "stopped on request; run the same command to go on",
}


def as_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """``{"format": 1, "migrations": [...]}``; a migration has the fields of ``Outcome``."""
    return {"format": FORMAT, "migrations": [asdict(outcome) for outcome in outcomes]}


def as_text(outcomes: Sequence[Outcome]) -> str:
    return "\n".join(_text(outcome) for outcome in outcomes)


def _text(outcome: Outcome) -> str:
    lines = [
        f"{outcome.mapping}: {_STATES[outcome.state]} (migration {outcome.migration_id})",
        f"  source rows   {outcome.source_rows:>12,}",
        f"  moved         {outcome.moved:>12,}",
    ]
    if outcome.adopted:
        lines.append(f"  there before  {outcome.adopted:>12,}  moved by an earlier migration and unchanged")
    quarantined = sum(outcome.quarantined.values())
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(outcome.quarantined.items()))
    lines.append(f"  quarantined   {quarantined:>12,}{f'  {reasons}' if reasons else ''}")
    left = outcome.source_rows - outcome.moved - outcome.adopted - quarantined
    if left > 0:
        lines.append(f"  not yet       {left:>12,}")
    elif left < 0:
        lines.append(f"  gone since    {-left:>12,}  rows that were moved are no longer in the source")
    links = outcome.links
    if links.completed or links.waiting or links.broken:
        lines.append(f"  links         {links.completed:>12,}  completed in this run")
    if links.waiting:
        lines.append(f"                {links.waiting:>12,}  waiting for a row that is in quarantine or not moved yet")
    if links.broken:
        lines.append(f"                {links.broken:>12,}  to rows that do not exist, left empty")
    if outcome.missing_columns:
        lines.append(f"  optional columns that the source lacks: {', '.join(outcome.missing_columns)}")
    if outcome.rows:
        rate = outcome.rows / outcome.seconds if outcome.seconds else 0.0
        lines.append(f"  this run      {outcome.rows:>12,}  rows in {outcome.seconds:.1f} s, {rate:,.0f} rows/s")
    return "\n".join(lines)
