"""What an undo did or would do, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from spine_migrate.backfill.takeback import Left
from spine_migrate.backfill.undo_plan import Undone
from spine_migrate.report.value import escaped

FORMAT = 1

_STATES = {
    "planned": "would be undone",
    "undone": "undone",
    "left": "not done: rows are left",
    "interrupted": "stopped on request; run the same command to go on",
}
_WHY = {
    "changed": "changed since they were moved",
    "source_gone": "their source row is gone",
    "in_quarantine": "their source row is in quarantine",
    "has_foreign_events": "have events that stay",
    "referenced": "a row that stays, or one of another table, points to them",
}
_LEFT = (
    "What is left stays accounted for: the migration remains in step undoing, and no run begins it anew. Settle those\n"
    "rows and give the command again, or give it with --leave: then they are nobody's any more, and a new run adopts\n"
    "those that are as it would make them and puts the source rows of the others into quarantine."
)


def as_json(results: Sequence[Undone]) -> dict[str, Any]:
    """``{"format": 1, "migrations": [...]}``; a migration has the fields of ``Undone``."""
    return {"format": FORMAT, "migrations": [asdict(one) for one in results]}


def as_text(results: Sequence[Undone]) -> str:
    lines = [line for one in results for line in _lines(one)]
    if any(one.state == "left" for one in results):
        lines.append(_LEFT)
    return "\n".join(lines) or "There is nothing to undo."


def _lines(one: Undone) -> list[str]:
    removed = "to remove" if one.state == "planned" else "removed"
    lines = [
        f"{one.mapping}: {_STATES[one.state]} (migration {one.migration_id})",
        f"  {removed:<14}{one.rows:>12,}",
    ]
    for reason, count in one.left.items():
        lines.append(f"  left          {count:>12,}  {reason}: {_WHY.get(reason, reason)}")
        lines += [_example(row) for row in one.examples if row.reason == reason]
    entries = sum(one.quarantined.values())
    if entries and one.state in ("planned", "undone"):
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(one.quarantined.items()))
        lines.append(f"  quarantine    {entries:>12,}  entries go with the migration: {reasons}")
    if one.indexes and one.state == "planned":
        lines.append("  built for the time it takes, without blocking writers:")
        lines += [f"    {statement};" for statement in one.indexes]
    return lines


def _example(row: Left) -> str:
    return f"    {escaped(row.target_key)}{f'  {escaped(row.detail)}' if row.detail else ''}"
