"""Change capture and its applier, as text and as JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from spine_migrate.db.captures import Lag
from spine_migrate.report.value import escaped
from spine_migrate.sync.loop import Followed
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
                "session": one.session,
                "put_off": [asdict(row) for row in one.put_off],
            }
            for one in states
        ],
    }


def states_text(states: Sequence[State]) -> str:
    return "\n".join(line for one in states for line in _lines(one)) or "No changes are captured."


def _lines(one: State) -> list[str]:
    captured = one.captured
    how = "once per statement" if captured.style == "statement" else f"row by row, since {captured.why}"
    lines = [
        f"{one.mapping}: writes to {captured.relation} are captured {how}",
        f"  since {captured.installed_at:%Y-%m-%d %H:%M:%S %Z}",
        f"  {captured.applied:,} changes applied, {behind(one.lag)}",
        f"  applied by the server's session {one.session}" if one.session is not None else "  nobody applies them now",
    ]
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
    )
    return f"{one.mapping}: {done.entries:,} changes applied ({rows}); {behind(one.lag)}"


def lines(*, quiet: bool) -> Callable[[Sequence[Followed]], None]:
    """Gives the function that the applier reports to: a line for each migration on stderr, now and then."""
    said_at: float | None = None

    def report(followed: Sequence[Followed]) -> None:
        nonlocal said_at
        now = time.monotonic()
        if quiet or (said_at is not None and now - said_at < SECONDS_BETWEEN_LINES):
            return
        said_at = now
        print(followed_text(followed), file=sys.stderr)  # noqa: T201 - this is the report

    return report
