"""The laws of histories once more, in Python and straight from ``runs.SOURCES``: what the SQL is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from spine_migrate.execution.runs import FINAL, SOURCES, RunStatus
from spine_migrate.mapping.emit.letters import PLACES

#: What an event makes of a run.
MAKES = {
    "created": RunStatus.PENDING,
    "queued": RunStatus.QUEUED,
    "started": RunStatus.RUNNING,
    "retry_scheduled": RunStatus.PENDING,
    "postponed": RunStatus.PENDING,
    "reprocessed": RunStatus.PENDING,
    "completed": RunStatus.COMPLETED,
    "failed": RunStatus.FAILED,
    "cancelled": RunStatus.CANCELLED,
    "dead_lettered": RunStatus.DEAD_LETTERED,
}
KNOWN = [str(event) for event in PLACES]
_PLACES = {str(event): place for event, place in PLACES.items()}
# Anybody may write them at any time.
_AT_ANY_TIME = {"transition_refused", "webhook_sent", "alert_triggered"}


@dataclass(frozen=True)
class Event:
    key: str
    type: str
    at: datetime | None


@dataclass(frozen=True)
class Life:
    """A run and its events. Times are compared only."""

    status: str
    started_at: datetime | None
    completed_at: datetime | None
    events: Sequence[Event]

    def breaks(self) -> set[str]:
        """The codes of the laws between events, and between a run and its events."""
        if not self.events:
            return set()
        timed = [event for event in self.events if event.at is not None]
        by_key = sorted(timed, key=lambda event: (event.at, event.key))
        by_life = sorted(timed, key=lambda event: (event.at, _PLACES.get(event.type, -1), event.key))
        found = _illegal([event.type for event in by_key]) & _illegal([event.type for event in by_life])
        there = {event.type for event in self.events}
        ends = {kind for kind, status in MAKES.items() if status in FINAL}
        if (self.started_at is not None and "started" not in there) or (self.status in FINAL and not there & ends):
            found.add("gaps")
        if all(event.at is not None for event in self.events if event.type in MAKES):
            led_to = {MAKES[ordered[-1].type] for order in (by_key, by_life) if (ordered := _changes(order))}
            if led_to and self.status not in led_to:
                found.add("status-agrees")
            for value, kinds in ((self.started_at, {"started"}), (self.completed_at, ends)):
                last = [event.at for event in by_key if event.type in kinds]
                if value is not None and last and last[-1] != value:
                    found.add("times-agree")
        return found


def _changes(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.type in MAKES]


def _illegal(types: Sequence[str]) -> set[str]:
    found = set()
    # Notes that mean nothing anywhere are as if they were not there.
    types = [one for one in types if one in _PLACES and one not in _AT_ANY_TIME]
    if "created" in types[1:]:
        found.add("started-first")
    if "completed" in types:
        first = types.index("completed")
        if "started" in types[first:] and "started" not in types[:first]:
            found.add("started-first")
    before: RunStatus | None = None
    for one in types:
        after = MAKES.get(one)
        if before in FINAL:
            if one == "reprocessed":
                allowed = before in SOURCES[RunStatus.PENDING]
            else:
                allowed = one == "created" or (one == "retried" and before is not RunStatus.COMPLETED)
            if not allowed:
                found.add("terminal")
        elif after is not None and before is not None and one != "created":
            sources = {RunStatus.DEAD_LETTERED} if one == "reprocessed" else SOURCES[after]
            if before not in sources:
                found.add("gaps")
        before = after or before
    return found
