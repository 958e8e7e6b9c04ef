"""Where migrations stand, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from spine_migrate.backfill.status import Pace, Status
from spine_migrate.report.value import escaped

NOTHING = "No migration has been started in this database."


def as_text(found: Sequence[Status], paces: Mapping[int, Pace]) -> str:
    undoing = {status.target_table for status in found if status.at_work and status.step == "undoing"}
    lines = (
        line
        for status in found
        for line in _lines(status, paces.get(status.migration_id), undone_now=status.target_table in undoing)
    )
    return "\n".join(lines) or NOTHING


def _lines(status: Status, pace: Pace | None, *, undone_now: bool) -> Iterator[str]:
    yield (
        f"migration {status.migration_id}  {status.mapping}: {status.step}, {status.percent:.1f}%"
        f"  ({status.source_table} to {status.target_table})"
    )
    yield f"  moved         {status.rows_moved:>12,}"
    if status.rows_adopted:
        yield f"  there before  {status.rows_adopted:>12,}"
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(status.quarantined.items()))
    discarded = f"; {status.discarded:,} of them discarded" if status.discarded else ""
    yield f"  quarantined   {status.rows_quarantined:>12,}{f'  {reasons}{discarded}' if reasons else ''}"
    if status.links_waiting or status.links_broken:
        yield f"  links         {status.links_waiting:>12,}  waiting, {status.links_broken:,} broken"
    if status.undo_indexes and not undone_now:
        yield f"  left by an undo on {status.target_table}: {', '.join(status.undo_indexes)}; the next run drops it"
    if status.settings:
        told = ", ".join(f"{name} {_value(value)}" for name, value in sorted(status.settings.items()))
        yield f"  set: {told}"
    if status.paused_at:
        yield f"  paused since {status.paused_at:%Y-%m-%d %H:%M:%S %Z} by {status.paused_by}; spine-migrate resume"
    yield f"  {_activity(status, pace)}"
    yield from _changes(status)
    archive = f"; archive {escaped(status.archive)}" if status.archive else ""
    if status.retired_at:
        yield f"  retired {status.retired_at:%Y-%m-%d %H:%M:%S %Z}{archive}"
    elif status.retire_allowed_at:
        yield f"  retire is allowed since {status.retire_allowed_at:%Y-%m-%d %H:%M:%S %Z}{archive}"
    ended = f", ended {status.finished_at:%Y-%m-%d %H:%M:%S %Z}" if status.finished_at else ""
    yield (
        f"  started {status.started_at:%Y-%m-%d %H:%M:%S %Z} by {status.started_by}"
        f" with version {status.tool_version}{ended}"
    )


def _changes(status: Status) -> Iterator[str]:
    """Of captured changes, and what holds them or the move back."""
    if status.capture_broken is not None:
        yield f"  {escaped(status.capture_broken)}"
    waiting = f"{status.changes_waiting or 0:,} not applied yet"
    if status.following:
        yield f"  changes are followed, {waiting}"
    elif status.changes_waiting:
        yield f"  changes are captured and nobody applies them, {waiting}"
    if status.held_since:
        yield f"  held back by {status.held_by} since {status.held_since:%Y-%m-%d %H:%M:%S %Z}: {status.held_detail}"


def _value(value: float | None) -> str:
    return "unlimited" if value is None else f"{value:,}"


def _activity(status: Status, pace: Pace | None) -> str:
    if not status.at_work:
        since = f" since {status.last_batch_at:%Y-%m-%d %H:%M:%S %Z}" if status.last_batch_at else ""
        return f"nobody is at work{since}"
    if pace is None:
        return "at work"
    left = f", {timedelta(seconds=round(pace.seconds_left))} left" if pace.seconds_left is not None else ""
    return f"at work, {pace.rate:,.0f} rows/s{left}"
