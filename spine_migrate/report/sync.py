"""Change capture and its applier, as text and as JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from spine_migrate.db.captures import Lag
from spine_migrate.report.value import escaped
from spine_migrate.sync.members import Followed
from spine_migrate.sync.state import State

FORMAT = 1
SECONDS_BETWEEN_LINES = 10.0


def states_json(states: Sequence[State]) -> dict[str, Any]:
    """``{"format": 1, "captures": [...]}``; a capture has the fields of ``Captured``, its lag, and who applies it."""
    return {
        "format": FORMAT,
        "captures": [
            {
                "mapping": one.mapping,
                **asdict(one.captured),
                "installed_at": one.captured.installed_at.isoformat(),
                "applied_at": None if one.captured.applied_at is None else one.captured.applied_at.isoformat(),
                "lag": asdict(one.lag),
                "broken": one.broken,
                "session": one.session,
                "put_off": [asdict(row) for row in one.put_off],
                **_held_json(one),
            }
            for one in states
        ],
    }


def _held_json(one: State) -> dict[str, Any]:
    """What was told of a hold is true only while somebody applies changes."""
    told = one.told
    held = told if one.session is not None else None
    return {
        "paused_at": None if told is None else _iso(told.paused_at),
        "paused_by": None if told is None else told.paused_by,
        "held_by": None if held is None else held.held_by,
        "held_detail": None if held is None else held.held_detail,
        "held_since": None if held is None else _iso(held.held_since),
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def states_text(states: Sequence[State]) -> str:
    return "\n".join(line for one in states for line in _lines(one)) or "No changes are captured."


def _lines(one: State) -> list[str]:
    captured = one.captured
    how = "once per statement" if captured.style == "statement" else f"row by row, since {captured.why}"
    lines = [
        f"{one.mapping}: writes to {captured.relation} are captured {how}"
        if one.broken is None
        else f"{one.mapping}: {escaped(one.broken)}",
        f"  since {captured.installed_at:%Y-%m-%d %H:%M:%S %Z}",
        f"  {captured.applied:,} changes applied, {behind(one.lag)}",
        f"  applied by the server's session {one.session}" if one.session is not None else "  nobody applies them now",
    ]
    told = one.told
    if told is not None and told.paused_at is not None:
        lines.append(f"  paused since {told.paused_at:%Y-%m-%d %H:%M:%S %Z} by {told.paused_by}; spine-migrate resume")
    if told is not None and told.held_since is not None and one.session is not None:
        since = f"since {told.held_since:%Y-%m-%d %H:%M:%S %Z}"
        lines.append(f"  held back by {told.held_by} {since}: {told.held_detail}; {_waiting(one.lag)}")
    if one.lag.deferred:
        lines.append(f"  {one.lag.deferred:,} rows are put off, {one.lag.stuck:,} of them for long:")
        lines += [f"    {escaped(row.row_key)}: {escaped(row.detail or 'not tried yet')}" for row in one.put_off]
    return lines


def behind(lag: Lag) -> str:
    """``up to date``, or how far behind."""
    if lag.nothing:
        return "up to date"
    parts = [f"{lag.entries:,} behind ({lag.seconds:.1f} s)"] if lag.entries else []
    parts += [f"{lag.deferred:,} put off"] if lag.deferred else []
    parts += [f"{lag.gone:,} to look at once more"] if lag.gone else []
    return ", ".join(parts)


def _waiting(lag: Lag) -> str:
    waiting = lag.entries + lag.deferred + lag.gone
    return f"{waiting:,} {'change waits' if waiting == 1 else 'changes wait'}"


def followed_json(followed: Sequence[Followed]) -> dict[str, Any]:
    """``{"format": 1, "migrations": [...]}``: what was applied, and what is not applied yet."""
    return {"format": FORMAT, "migrations": [asdict(one) for one in followed]}


def followed_text(followed: Sequence[Followed]) -> str:
    return "\n".join(_followed(one) for one in followed)


def _followed(one: Followed) -> str:
    done = one.applied
    rows = (
        f"{done.inserted:,} rows inserted, {done.updated:,} updated, {done.deleted:,} deleted, "
        f"{done.quarantined:,} quarantined, {done.released:,} released"
        f"{f', {done.set_aside:,} set aside' if done.set_aside else ''}"
    )
    held = "" if one.held is None else f"; held back by {one.held.by}: {one.held.detail}"
    return f"{one.mapping}: {done.entries:,} changes applied ({rows}); {behind(one.lag)}{held}"


def lines(*, quiet: bool) -> Callable[[Sequence[Followed]], None]:
    """Gives the function that the applier reports to: a line for each migration on stderr, now and then,
    and at once where something begins or ends to hold one back.
    """
    said_at: float | None = None
    said: list[tuple[str | None, bool]] = []

    def report(followed: Sequence[Followed]) -> None:
        nonlocal said_at, said
        now = time.monotonic()
        held = [(None if one.held is None else one.held.by, one.overdue) for one in followed]
        if quiet or (said_at is not None and now - said_at < SECONDS_BETWEEN_LINES and held == said):
            return
        said_at, said = now, held
        print(followed_text(followed), file=sys.stderr)  # noqa: T201 - this is the report

    return report
