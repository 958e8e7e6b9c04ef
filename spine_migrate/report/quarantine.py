"""The quarantine, an entry of it, and what a retry did, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from spine_migrate.backfill.quarantine import Entry, ReasonCount, Row
from spine_migrate.backfill.retry import Outcome, Retried
from spine_migrate.report.value import escaped

FORMAT = 1


def list_json(counts: Sequence[ReasonCount], rows: Sequence[Row]) -> dict[str, Any]:
    """``{"format": 1, "counts": [...], "rows": [...]}``; rows may be fewer than are counted."""
    return {"format": FORMAT, "counts": [asdict(one) for one in counts], "rows": [asdict(row) for row in rows]}


def list_text(counts: Sequence[ReasonCount], rows: Sequence[Row]) -> str:
    """Counts per reason, then the rows with their sentences."""
    total = sum(one.open + one.discarded for one in counts)
    if not total:
        return "Nothing is in quarantine."
    lines: list[str] = []
    for mapping in dict.fromkeys((one.migration_id, one.mapping) for one in counts):
        lines.append(f"{mapping[1]} (migration {mapping[0]})")
        lines += [_count(one) for one in counts if one.migration_id == mapping[0]]
    lines.append("")
    lines += [_row(row) for row in rows]
    if len(rows) < total:
        lines.append(f"{len(rows)} of {total:,} rows are listed; --limit lists more, quarantine export gives all.")
    return "\n".join(lines)


def _count(one: ReasonCount) -> str:
    discarded = f"  and {one.discarded:,} discarded" if one.discarded else ""
    return f"  {one.reason:<20}{one.open:>10,}{discarded}"


def _row(row: Row) -> str:
    place = f" [{row.field}]" if row.field else ""
    often = f", {row.attempts} attempts" if row.attempts > 1 else ""
    state = ", discarded" if row.discarded else ""
    return (
        f"id:{row.quarantine_id}  {escaped(row.source_key)}  {row.reason}{place}: {escaped(row.detail)}"
        f" ({row.mapping}{often}{state})"
    )


def entry_json(entry: Entry, colliding_now: str | None) -> dict[str, Any]:
    """The fields of ``Entry``, both rows and ``colliding_now`` as JSON values, times in ISO 8601."""
    values = asdict(entry)
    for name in ("created_at", "updated_at", "discarded_at"):
        values[name] = values[name] and values[name].isoformat()
    for name, text in (
        ("source_row", entry.source_row),
        ("colliding_row", entry.colliding_row),
        ("colliding_now", colliding_now),
    ):
        values[name] = None if text is None else json.loads(text)
    return {"format": FORMAT, **values}


def entry_text(entry: Entry, colliding_now: str | None, note: str | None) -> str:
    """``note`` says why the colliding row could not be looked up."""
    facts = {
        "mapping": f"{entry.mapping} (migration {entry.migration_id})",
        "reason": entry.reason,
        "field": entry.field,
        "sentence": escaped(entry.detail),
        "sqlstate": entry.sqlstate,
        "constraint": entry.constraint_name,
        "attempts": str(entry.attempts),
        "since": entry.created_at.isoformat(sep=" ", timespec="seconds"),
        "last tried": entry.updated_at.isoformat(sep=" ", timespec="seconds") if entry.attempts > 1 else None,
        "discarded": f"{entry.discarded_at.isoformat(sep=' ', timespec='seconds')} by {entry.discarded_by}"
        if entry.discarded_at
        else None,
    }
    lines = [f"id:{entry.quarantine_id}  {escaped(entry.source_key)}"]
    lines += [f"  {name:<12}{value}" for name, value in facts.items() if value is not None]
    lines += ["", "source row, as it was when it was refused:", _pretty(entry.source_row)]
    if entry.colliding_row is not None:
        lines += ["", f"collides with this row of {entry.target_table}:", _pretty(entry.colliding_row)]
        if note is not None:
            lines.append(f"(how that row is now could not be looked up: {note})")
        elif colliding_now is None:
            lines.append("(that row is gone by now)")
        elif json.loads(colliding_now) != json.loads(entry.colliding_row):
            lines += ["", "that row as it is now:", _pretty(colliding_now)]
    return "\n".join(lines)


def _pretty(text: str) -> str:
    return json.dumps(json.loads(text), indent=2)


def retried_json(outcome: Outcome) -> dict[str, Any]:
    """``{"format": 1, "clean": ..., "interrupted": ..., "accepted": [...], "absent": [...], "migrations": [...]}``."""
    migrations = [{**asdict(one), "refused": dict(one.refused), "remaining": one.remaining}
                  for one in outcome.migrations]  # fmt: skip
    return {
        "format": FORMAT,
        "clean": outcome.clean,
        "interrupted": outcome.interrupted,
        "accepted": [asdict(one) for one in outcome.accepted],
        "absent": outcome.absent,
        "migrations": migrations,
    }


def retried_text(outcome: Outcome) -> str:
    lines = [
        f"{one.mapping}: the mended mapping is accepted for migration {one.migration_id}; "
        f"{one.rows:,} moved rows are the same under it"
        for one in outcome.accepted
    ]
    for one in outcome.migrations:
        if one.selected or not one.follows:
            lines += _retried(one)
    if outcome.absent:
        lines.append(f"not in quarantine: {', '.join(map(escaped, outcome.absent))}")
    if outcome.interrupted:
        lines.append("Stopped on request; the same command goes on with what is still in quarantine.")
    return "\n".join(lines) or "Nothing is in quarantine."


def _retried(one: Retried) -> list[str]:
    along = ", along with the rows they belong to" if one.follows else ""
    lines = [f"{one.mapping}: {one.selected:,} retried{along} (migration {one.migration_id})"]
    if one.moved:
        lines.append(f"  moved         {one.moved:>12,}")
    if one.adopted:
        lines.append(f"  there before  {one.adopted:>12,}  moved by an earlier migration and unchanged")
    if one.refused:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(one.refused.items()))
        lines.append(f"  refused again {sum(one.refused.values()):>12,}  {reasons}")
    if one.gone:
        fate = "discarded" if one.discarded else "kept; --discard-gone settles them"
        keys = ", ".join(map(escaped, one.gone_keys))
        more = ", ..." if one.gone > len(one.gone_keys) else ""
        lines.append(f"  gone          {one.gone:>12,}  source row is gone, {fate}: {keys}{more}")
    if one.links.completed:
        lines.append(f"  links         {one.links.completed:>12,}  completed by rows that were moved")
    return lines
