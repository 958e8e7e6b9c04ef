"""A run's history as a word, a letter per event, and the laws of histories as regular expressions over such words.

The expressions are compiled from ``execution.history.step``, so that the state machine stands in one place.
"""

from __future__ import annotations

from collections.abc import Callable

from psycopg import sql

from spine_migrate.execution.events import EventType
from spine_migrate.execution.history import AFTER, Step, step
from spine_migrate.execution.runs import RunStatus
from spine_migrate.mapping.transforms.base import Sql

#: A letter for each type, by which two histories are told apart.
CODES = {event: chr(ord("A") + number) for number, event in enumerate(EventType)}

# Events of one moment come in an order that no column tells; in the life of a run it is this one.
_PLACES = (
    {EventType.CREATED},
    {EventType.QUEUED},
    {EventType.STARTED},
    set(EventType) - set(AFTER) - {EventType.RETRIED},
    {EventType.RETRY_SCHEDULED, EventType.POSTPONED},
    {EventType.COMPLETED, EventType.FAILED, EventType.CANCELLED, EventType.DEAD_LETTERED},
    {EventType.REPROCESSED},
    {EventType.RETRIED},
)
PLACES = {event: number for number, events in enumerate(_PLACES) for event in events}


def _after_each(event: EventType) -> tuple[Step, ...]:
    return tuple(step(before, event) for before in AFTER)


def _letters() -> dict[EventType, str]:
    """Types that change the status have a letter of their own, notes that are judged alike share one, and those that
    are always legal have none.
    """
    found = {event: CODES[event] for event in AFTER}
    shared: dict[tuple[Step, ...], str] = {}
    for event in EventType:
        behaviour = _after_each(event)
        if event not in AFTER and set(behaviour) != {Step.LEGAL}:
            found[event] = shared.setdefault(behaviour, CODES[event].lower())
    return found


LETTERS = _letters()


def _steps(wanted: Step) -> str:
    """Two events with this step between them, and only notes."""
    notes = "".join(sorted({letter for event, letter in LETTERS.items() if event not in AFTER}))
    parts = []
    for before in AFTER:
        bad = "".join(sorted({letter for event, letter in LETTERS.items() if step(before, event) is wanted}))
        if bad:
            parts.append(f"{LETTERS[before]}[{notes}]*[{bad}]")
    return "|".join(parts)


_STARTED, _COMPLETED, _CREATED = (LETTERS[e] for e in (EventType.STARTED, EventType.COMPLETED, EventType.CREATED))
#: Words that break a law.
LATE = _steps(Step.LATE)
GAP = _steps(Step.GAP)
#: Something before the creation; an end that only a started run can come to, before the start.
EARLY = f".{_CREATED}|^[^{_STARTED}]*{_COMPLETED}.*{_STARTED}"


def breaks(word: Sql, law: str) -> Sql:
    return sql.SQL('({} COLLATE "C" ~ {})').format(word, sql.Literal(law))


def last(word: Sql) -> Sql:
    """The letter of the last event that changed the status; empty where there was none."""
    notes = "".join(sorted({letter for event, letter in LETTERS.items() if event not in AFTER}))
    return sql.SQL("right(rtrim({}, {}), 1)").format(word, sql.Literal(notes))


def led_to(status: Sql) -> Sql:
    """The letters of the events after which a run has this status."""
    whens = [
        sql.SQL("WHEN {} THEN {}").format(
            sql.Literal(str(one)),
            sql.Literal("".join(LETTERS[event] for event, after in AFTER.items() if after is one)),
        )
        for one in RunStatus
    ]
    return sql.SQL("CASE {} {} ELSE '' END").format(status, sql.SQL(" ").join(whens))


def choose(event_type: Sql, value: Callable[[EventType], str | int | None], other: Sql) -> Sql:
    """A value by event type."""
    whens = [
        sql.SQL("WHEN {} THEN {}").format(sql.Literal(str(event)), sql.Literal(found))
        for event in EventType
        if (found := value(event)) is not None
    ]
    return sql.SQL("CASE {} {} ELSE {} END").format(event_type, sql.SQL(" ").join(whens), other)


def types(events: frozenset[EventType] | set[EventType]) -> Sql:
    """A list of types for IN."""
    return sql.SQL("({})").format(sql.SQL(", ").join(sql.Literal(str(event)) for event in sorted(events)))
