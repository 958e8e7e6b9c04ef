"""Migrations as they are watched: one screen, a line for each, or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from spine_migrate.backfill.status import Pace, Status
from spine_migrate.backfill.status import as_json as status_json
from spine_migrate.carry.activity import Activity
from spine_migrate.db.captures import MOST_COUNTED, Lag
from spine_migrate.report.status import NOTHING
from spine_migrate.report.value import escaped

FORMAT = 1


@dataclass(frozen=True)
class Seen:
    """One migration at one look. The rates are of the time since the look before, None at the first."""

    status: Status
    activity: Activity
    pace: Pace | None
    writes_per_second: float | None


def as_json(found: Sequence[Seen]) -> dict[str, Any]:
    """The fields of ``spine-migrate status --json`` for each migration, and what goes on around it."""
    return {"format": FORMAT, "at": datetime.now(UTC).isoformat(), "migrations": [_one_json(seen) for seen in found]}


def _one_json(seen: Seen) -> dict[str, Any]:
    about = seen.activity
    return {
        **status_json(seen.status, seen.pace),
        "application_writes_per_second": None if seen.writes_per_second is None else round(seen.writes_per_second, 1),
        "lock_waits": about.lock_waits,
        "longest_wait_seconds": round(about.longest_wait, 1),
        "lag": {name: {**asdict(lag), "seconds": round(lag.seconds, 1)} for name, lag in about.lags.items()},
        "paused_at": _iso(about.paused_at),
        "paused_by": about.paused_by,
        "held_by": about.held_by,
        "held_detail": about.held_detail,
        "held_since": _iso(about.held_since),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def as_lines(found: Sequence[Seen]) -> str:
    now = f"{datetime.now(UTC):%H:%M:%S}"
    lines = (f"{now}  {_title(seen)}: {', '.join(text for _, text in _rows(seen))}" for seen in found)
    return "\n".join(lines) or f"{now}  {NOTHING}"


def screen(found: Sequence[Seen], note: str = "") -> RenderableType:
    """``note`` stands at the end, for what went wrong at this look."""
    parts: list[RenderableType] = [_panel(seen) for seen in found] or [Text(NOTHING)]
    if note:
        parts.append(Text(note, style="bold red"))
    return Group(*parts, Text(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, Ctrl-C to end", style="dim"))


def _panel(seen: Seen) -> Panel:
    grid = Table.grid(padding=(0, 2), expand=True)
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(ratio=1)
    grid.add_row("", ProgressBar(total=100.0, completed=seen.status.percent, complete_style="cyan"))
    for name, text in _rows(seen):
        grid.add_row(name, Text(text, style=_STYLES.get(name, "") if _stands_out(name, seen) else ""))
    return Panel(grid, title=Text(_title(seen)), title_align="left")


def _title(seen: Seen) -> str:
    return f"migration {seen.status.migration_id}  {seen.status.mapping}"


def _rows(seen: Seen) -> Iterator[tuple[str, str]]:
    """Name and text, each text to be understood alone."""
    status, about = seen.status, seen.activity
    yield "step", f"{status.step} {status.percent:.1f}%{'' if status.at_work else ', nobody is at work'}"
    if seen.pace is not None and status.at_work:
        left = seen.pace.seconds_left
        ends = f", {timedelta(seconds=round(left))} left" if left is not None else ""
        yield "rate", f"{seen.pace.rate:,.0f} rows/s{ends}"
    yield "rows", f"{status.rows_moved + status.rows_adopted:,} rows on the target"
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(status.quarantined.items()))
    yield "quarantine", f"{status.rows_quarantined:,} in quarantine{f' ({reasons})' if reasons else ''}"
    if status.retire_allowed_at is not None:
        since = status.retired_at or status.retire_allowed_at
        what = "retired" if status.retired_at else "retire is allowed since"
        yield "retire", f"{what} {since:%Y-%m-%d %H:%M:%S %Z}"
    if status.capture_broken is not None:
        yield "capture", escaped(status.capture_broken)
    for direction, lag in about.lags.items():
        yield "lag", _lag(direction, lag)
    if (held := _held(about)) is not None:
        yield "throttle", held
    waited = f", the longest for {about.longest_wait:.0f} s" if about.lock_waits else ""
    yield "locks", f"{about.lock_waits} waiting for locks{waited}"
    if seen.writes_per_second is not None:
        yield "application", f"application writes {seen.writes_per_second:,.0f} rows/s"


def _lag(direction: str, lag: Lag) -> str:
    least = "at least " if lag.entries >= MOST_COUNTED else ""
    deferred = f", {lag.deferred:,} rows put off" if lag.deferred else ""
    return f"{direction} lag {least}{lag.entries:,} changes, {lag.seconds:,.1f} s{deferred}"


def _held(about: Activity) -> str | None:
    if about.paused_at is not None:
        return f"paused by {about.paused_by} at {about.paused_at:%Y-%m-%d %H:%M:%S %Z}"
    if about.held_by is None or about.held_since is None:
        return None
    detail = f" ({about.held_detail})" if about.held_detail else ""
    return f"held by {about.held_by}{detail} since {about.held_since:%H:%M:%S %Z}"


_STYLES = {"quarantine": "yellow", "throttle": "yellow", "locks": "red", "capture": "red"}


def _stands_out(name: str, seen: Seen) -> bool:
    if name == "quarantine":
        return seen.status.rows_quarantined > seen.status.discarded
    return name != "locks" or seen.activity.lock_waits > 0
