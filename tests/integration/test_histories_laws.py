"""The laws of histories: what the runtime writes keeps them, and SQL and Python judge every history alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spine_migrate.db import catalog
from spine_migrate.db.connect import Connection, connect
from spine_migrate.db.raw import rows
from spine_migrate.execution.errors import TransitionError
from spine_migrate.execution.events import EventType, RunEvent
from spine_migrate.execution.history import AFTER, Step, step
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.protocol import Delivery
from spine_migrate.execution.runs import RunRecord, RunStatus
from spine_migrate.execution.spec import WorkSpec
from spine_migrate.mapping.bind import bind
from spine_migrate.mapping.emit.lives import Lives
from spine_migrate.mapping.emit.narrow import Narrow
from spine_migrate.mapping.load import load
from tests.database import Role, fresh_database
from tests.histories import KNOWN, Event, Life
from tests.legacy import build

NOON = datetime(2024, 2, 29, 12, tzinfo=UTC)
JUDGED = {"gaps", "terminal", "started-first", "status-agrees", "times-agree"}
# What can be done to a run; the ledger refuses some of it, which is an event then.
DEEDS = ("queue", "claim", "complete", "fail", "bury", "try again", "postpone", "cancel", "reprocess", "retry", "beat")


@pytest.fixture(scope="module")
def place(server_url: str, owner: Role) -> Iterator[tuple[Connection, Lives]]:
    """Empty tables on both sides; examples write into them and take it back."""
    with fresh_database(server_url, f"{owner.name}_laws", owner) as database:
        build(database)
        with connect(database.url) as connection:
            sides = []
            for name in ("capture-spine/executions", "capture-spine/execution_events"):
                mapping = load(name)
                source = catalog.find(connection, mapping.source_table, None)
                target = catalog.find(connection, mapping.target.name, None)
                sides.append(Narrow(bind(mapping, source, target), target.columns, 0))
            yield connection, Lives(*sides)


def judged(place: tuple[Connection, Lives], lives: dict[str, Life]) -> dict[str, set[str]]:
    """The laws that each life breaks as a run of the target."""
    connection, statement = place
    with connection.transaction(force_rollback=True), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO runs (run_id, kind, name, status, started_at, completed_at, metadata)"
            """ VALUES (%s, 'task', 'one', %s, %s, %s, '{"migrated_from": "capture-spine/executions"}')""",
            [(run, life.status, life.started_at, life.completed_at) for run, life in lives.items()],
        )
        cursor.executemany(
            "INSERT INTO run_events (event_id, run_id, event_type, timestamp, source) VALUES (%s, %s, %s, %s, %s)",
            [
                (event.key, run, event.type, event.at, "capture-spine/execution_events")
                for run, life in lives.items()
                for event in life.events
            ],
        )
        found: dict[str, set[str]] = {run: set() for run in lives}
        for row in rows(connection, statement.judged(), 10_000, []):
            if row["run"] is not None and row["code"] in JUDGED:
                found[row["run"]].add(row["code"])
        return found


class _Hour:
    """A clock that goes on by a second with each look."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


def live(deeds: list[str]) -> Life:
    """A run of the runtime to which all this was done, as far as its ledger let it happen."""
    ledger = MemoryLedger(clock=_Hour())
    run_id = ledger.create(RunRecord(WorkSpec("task", "one")), Delivery()).run_id
    fences = [0]
    do: dict[str, Callable[[], object]] = {
        "queue": lambda: ledger.mark_queued(run_id, "ref", "celery", claim_within_seconds=9),
        "claim": lambda: fences.append(ledger.claim(run_id, "worker", lease_seconds=99).fence),
        "complete": lambda: ledger.complete(run_id, 1),
        "fail": lambda: ledger.fail(run_id, "broken", None),
        "bury": lambda: ledger.fail(run_id, "broken", None, dead=True),
        "try again": lambda: ledger.try_again(run_id, "broken", None, in_seconds=0),
        "postpone": lambda: ledger.postpone(run_id, "locked", in_seconds=0, fence=fences[-1]),
        "cancel": lambda: ledger.cancel(run_id, "asked for", fence=fences[-1]),
        "reprocess": lambda: ledger.reprocess(run_id),
        "beat": lambda: ledger.record(RunEvent(run_id, EventType.HEARTBEAT)),
        "retry": lambda: ledger.record(RunEvent(run_id, EventType.RETRIED)),
    }
    # A worker beats while it works, and what is retried has not completed.
    when = {"beat": {RunStatus.RUNNING}, "retry": {RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.DEAD_LETTERED}}
    for deed in deeds:
        if current(ledger, run_id).status in when.get(deed, RunStatus):
            with suppress(TransitionError):
                do[deed]()
    run = current(ledger, run_id)
    events = [Event(event.event_id, str(event.event_type), event.timestamp) for event in ledger.events(run_id)]
    return Life(str(run.status), run.started_at, run.completed_at, events)


def current(ledger: MemoryLedger, run_id: str) -> RunRecord:
    run = ledger.get(run_id)
    assert run is not None
    return run


deeds = st.lists(st.sampled_from(DEEDS), max_size=14)
EXAMPLES = settings(max_examples=60, deadline=None)


@EXAMPLES
@given(st.lists(deeds, min_size=1, max_size=25))
def test_whatever_the_runtime_does_keeps_the_laws(
    place: tuple[Connection, Lives], given_deeds: list[list[str]]
) -> None:
    lives = {str(uuid4()): live(each) for each in given_deeds}
    assert {run: (life.breaks(), life.events) for run, life in lives.items() if life.breaks()} == {}
    assert judged(place, lives) == {run: set() for run in lives}


moments = st.none() | st.integers(-2, 8).map(lambda seconds: NOON + timedelta(seconds=seconds))
kinds = st.sampled_from([*KNOWN, "mystery"])
statuses = st.sampled_from([str(status) for status in RunStatus])


def floored(at: datetime | None, step_s: int) -> datetime | None:
    return at and NOON + timedelta(seconds=(at - NOON).total_seconds() // step_s * step_s)


@st.composite
def any_life(draw: st.DrawFn) -> Life:
    """Either a legal one to which things were done, or events at random, many of them at one moment."""
    if draw(st.booleans()):
        life = live(draw(deeds))
        events = list(life.events)
        for _ in range(draw(st.integers(0, 3))):
            at = draw(st.integers(0, len(events) - 1)) if events else 0
            match draw(st.sampled_from(["drop", "double", "retype", "move", "untime"])):
                case "drop":
                    del events[at : at + 1]
                case "double":
                    events += [Event(str(uuid4()), one.type, one.at) for one in events[at : at + 1]]
                case "retype":
                    events[at : at + 1] = [Event(one.key, draw(kinds), one.at) for one in events[at : at + 1]]
                case "move":
                    when = draw(st.sampled_from([one.at for one in events])) if events else None
                    events[at : at + 1] = [Event(one.key, one.type, when) for one in events[at : at + 1]]
                case _:
                    events[at : at + 1] = [Event(one.key, one.type, None) for one in events[at : at + 1]]
        status = life.status if draw(st.integers(0, 3)) else draw(statuses)
        started_at = life.started_at if draw(st.integers(0, 3)) else draw(moments)
        # As events are that are written in one transaction.
        step_s = draw(st.sampled_from([1, 1, 3, 60]))
        events = [Event(one.key, one.type, floored(one.at, step_s)) for one in events]
        return Life(status, floored(started_at, step_s), floored(life.completed_at, step_s), events)
    events = [
        Event(str(key), draw(kinds), draw(moments))
        for key in draw(st.lists(st.uuids(version=4), max_size=8, unique=True))
    ]
    return Life(draw(statuses), draw(moments), draw(moments), events)


@EXAMPLES
@given(st.lists(any_life(), min_size=1, max_size=40))
def test_every_history_is_judged_alike_by_sql_and_by_python(place: tuple[Connection, Lives], some: list[Life]) -> None:
    keys: set[str] = set()
    lives = {}
    for number, life in enumerate(some):
        # A key may be drawn twice.
        events = [event for event in life.events if event.key not in keys]
        keys |= {event.key for event in events}
        lives[str(UUID(int=number + 1))] = Life(life.status, life.started_at, life.completed_at, events)
    assert judged(place, lives) == {run: life.breaks() for run, life in lives.items()}


@pytest.mark.parametrize(
    ("before", "event", "is_a"),
    [
        (None, EventType.COMPLETED, Step.LEGAL),
        (EventType.CREATED, EventType.STARTED, Step.LEGAL),
        (EventType.CREATED, EventType.CREATED, Step.EARLY),
        (EventType.CREATED, EventType.COMPLETED, Step.GAP),
        (EventType.STARTED, EventType.STARTED, Step.GAP),
        (EventType.STARTED, EventType.REPROCESSED, Step.GAP),
        (EventType.COMPLETED, EventType.HEARTBEAT, Step.LATE),
        (EventType.COMPLETED, EventType.RETRIED, Step.LATE),
        (EventType.FAILED, EventType.RETRIED, Step.LEGAL),
        (EventType.FAILED, EventType.REPROCESSED, Step.LATE),
        (EventType.DEAD_LETTERED, EventType.REPROCESSED, Step.LEGAL),
        (EventType.DEAD_LETTERED, EventType.STARTED, Step.LATE),
        (EventType.CANCELLED, EventType.TRANSITION_REFUSED, Step.LEGAL),
    ],
)
def test_steps_of_which_everybody_knows_what_they_are(before: EventType | None, event: EventType, is_a: Step) -> None:
    assert step(before, event) is is_a


def test_after_an_end_nothing_but_a_dead_letter_goes_on() -> None:
    ends = [event for event, status in AFTER.items() if status in {"completed", "failed", "cancelled", "dead_lettered"}]
    goes_on = {(before, event) for before in ends for event in AFTER if step(before, event) is Step.LEGAL}
    assert goes_on == {(EventType.DEAD_LETTERED, EventType.REPROCESSED)}
