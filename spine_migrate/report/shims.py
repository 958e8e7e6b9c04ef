"""Who still calls the old tasks, whether that has ended, and the modes that were set, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.text import Text

from spine_migrate.db.shim_tables import Call, Purged, Set, Silence, Verdict
from spine_migrate.report.tables import console_for, table
from spine_migrate.report.value import escaped

FORMAT = 1

#: Of more hosts only the number is shown; the JSON has them all.
_HOSTS = 3


def calls_json(calls: Sequence[Call]) -> dict[str, Any]:
    """``{"format": 1, "calls": [...]}``; a call has the fields of ``Call``, times in ISO 8601."""
    return {"format": FORMAT, "calls": [_call(one) for one in calls]}


def render_calls(calls: Sequence[Call], file: TextIO) -> None:
    headings = ("task", "caller", "hosts", "version", "mode", "became", "count", "first seen", "last seen")
    shown = table(*headings, boxes=file.isatty(), right=("count",))
    for one in calls:
        more = len(one.hosts) - _HOSTS
        hosts = ", ".join(one.hosts[:_HOSTS]) + (f" and {more} more" if more > 0 else "")
        words = (one.task, one.caller, hosts, one.version, one.mode, one.side)
        times = (_time(one.first_seen), _time(one.last_seen))
        shown.add_row(*(Text(escaped(word)) for word in words), f"{one.count:,}", *times)
    console_for(file).print(shown)


def silence_json(silence: Silence) -> dict[str, Any]:
    """``verdict`` is silent, called or unknown; ``reasons`` say what is not known."""
    return {
        "format": FORMAT,
        "verdict": silence.verdict.value,
        "since": silence.since.isoformat(),
        "tasks": list(silence.tasks),
        "calls": [_call(one) for one in silence.callers],
        "reasons": list(silence.reasons),
    }


def silence_text(silence: Silence) -> str:
    """The verdict in a line, and why."""
    since = _time(silence.since)
    many = f"{len(silence.tasks)} task{'' if len(silence.tasks) == 1 else 's'}"
    match silence.verdict:
        case Verdict.SILENT:
            return f"Silent: no call of {many} since {since}, and workers were there to count."
        case Verdict.CALLED:
            called = len({one.task for one in silence.callers})
            return f"Not silent: {called} of {many} called since {since}."
        case Verdict.UNKNOWN:
            return "\n".join(
                [f"Could not tell of {many} whether there were calls since {since}:", *map(escaped, silence.reasons)]
            )


def modes_json(modes: Sequence[Set]) -> dict[str, Any]:
    """``{"format": 1, "modes": [...]}``; a mode has the fields of ``Set``."""
    return {"format": FORMAT, "modes": [{**asdict(one), "set_at": one.set_at.isoformat()} for one in modes]}


def render_modes(modes: Sequence[Set], file: TextIO) -> None:
    shown = table("task", "mode", "set by", "set at", boxes=file.isatty())
    for one in modes:
        shown.add_row(*(Text(escaped(word)) for word in (one.task, one.mode, one.set_by)), _time(one.set_at))
    console_for(file).print(shown)


def _call(one: Call) -> dict[str, Any]:
    times = {"first_seen": one.first_seen.isoformat(), "last_seen": one.last_seen.isoformat()}
    return {**asdict(one), **times}


def purge_json(purged: Purged, before: datetime, state: str) -> dict[str, Any]:
    """``state`` is planned or purged."""
    return {"format": FORMAT, "state": state, "before": before.isoformat(), **asdict(purged)}


def purge_text(purged: Purged, before: datetime, state: str) -> str:
    verb = "would be" if state == "planned" else "were"
    return (
        f"{purged.callers:,} callers and {purged.workers:,} workers that were last seen before {_time(before)} {verb}"
        f" forgotten, and of {purged.shortened:,} workers what they saw before."
    )


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
