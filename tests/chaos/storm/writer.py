"""A writer: the application's acts in transactions at every isolation level, in a process of its own.

It goes on where the server goes away. What it may see otherwise is what its own SQL earns: that it has to try again.
Anything else is an error of ours, which ends the storm.
"""

from __future__ import annotations

import random
import time
from ctypes import c_int
from dataclasses import dataclass
from multiprocessing.context import SpawnContext
from multiprocessing.sharedctypes import Synchronized, SynchronizedArray
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import psycopg
from psycopg import IsolationLevel

from tests.chaos.storm.acts import CURRENT, OWN, Application
from tests.chaos.storm.own import Given
from tests.chaos.storm.record import COMMITTED, DOUBT, Change, Entry, Record

LEVELS = (IsolationLevel.READ_COMMITTED, IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE)
# Far above what anybody may have to wait; who is cancelled by it has met an error.
STATEMENT_TIMEOUT = 30
# Of how many transactions one stays open, and for how long at most, in seconds.
HELD, LONGEST_HELD = 0.004, 3.0
_GLANCE = 0.05
# admin_shutdown, crash_shutdown, cannot_connect_now
_GOING = ("57P01", "57P02", "57P03")


@dataclass
class Signals:
    """Between the storm and its writers. ``phase``: its number; ``odd``: whether rows may be written that nobody can
    carry; ``idle`` and ``lost``, by writer: whether it waits for ``go``, and how many connections it has lost.
    """

    stop: Event
    go: Event
    odd: Event
    trouble: Event
    phase: Synchronized[int]
    idle: SynchronizedArray[int]
    lost: SynchronizedArray[int]


def signals(context: SpawnContext, writers: int) -> Signals:
    return Signals(
        context.Event(),
        context.Event(),
        context.Event(),
        context.Event(),
        context.Value(c_int, 0),
        context.Array(c_int, writers),
        context.Array(c_int, writers),
    )


def write(*, url: str, number: int, seed: int, given: Given, told: Signals, path: Path, rate: float) -> None:
    """Until told to stop, at most ``rate`` transactions a second."""
    with path.open("w", encoding="utf-8") as file:
        _Writer(url, number, told, Record(file), Application(random.Random(seed), given)).write(rate)


class _Writer:
    def __init__(self, url: str, number: int, told: Signals, record: Record, application: Application) -> None:
        self.url = url
        self.number = number
        self.chance = application.chance
        self.signals = told
        self.record = record
        self.application = application
        self.connection: psycopg.Connection[Any] | None = None
        self.count = 0
        # A transaction whose COMMIT was not answered.
        self.doubt: int | None = None

    def write(self, rate: float) -> None:
        while not (self.signals.stop.is_set() and self.doubt is None):
            if self.connection is None or self.connection.closed:
                self._connect()
            elif not self.signals.go.is_set() and self.application.known.odd is None:
                self.signals.idle[self.number] = 1
                self.signals.go.wait(_GLANCE)
            else:
                self.signals.idle[self.number] = 0
                self._once(self.connection)
                time.sleep(self.chance.expovariate(rate))
        if self.connection is not None:
            self.connection.close()

    def _connect(self) -> None:
        try:
            self.connection = psycopg.connect(
                self.url,
                application_name="storm",
                connect_timeout=10,
                options=f"-c statement_timeout={STATEMENT_TIMEOUT}s",
            )
            self.record.backend(self.connection.info.backend_pid)
            if self.doubt is not None:
                self._settle(self.connection, self.doubt)
        except psycopg.OperationalError:
            # The storm counts how often the server goes; that it comes again is seen to there.
            time.sleep(_GLANCE)

    def _settle(self, connection: psycopg.Connection[Any], number: int) -> None:
        found = connection.execute(
            "SELECT FROM storm.witness WHERE writer = %s AND number = %s", (self.number, number)
        ).fetchall()
        connection.commit()
        if found:
            self.application.commit()
        self.record.settle(number, committed=bool(found))
        self.doubt = None

    def _once(self, connection: psycopg.Connection[Any]) -> None:
        self.application.begin()
        self.count += 1
        acts = self.application.acts(odd=self.signals.odd.is_set())
        level = IsolationLevel.READ_COMMITTED if CURRENT & {*acts} else self.chance.choice(LEVELS)
        phase = self.signals.phase.value
        committing, detail = False, ""
        try:
            connection.isolation_level = level
            for name in acts:
                if self.chance.random() < 0.05:
                    self._in_vain(connection, name)
                else:
                    self.application.act(connection, name)
            if self.chance.random() < HELD:
                time.sleep(self.chance.uniform(0.5, LONGEST_HELD))
            if self.chance.random() < 0.03:
                connection.rollback()
                outcome = "rolled back"
            else:
                connection.execute("INSERT INTO storm.witness VALUES (%s, %s)", (self.number, self.count))
                committing = True
                began = time.monotonic()
                connection.commit()
                self.application.waited(OWN, began)
                outcome = COMMITTED
        except psycopg.errors.SerializationFailure as error:
            outcome, detail = "again", str(error)
        except psycopg.errors.DeadlockDetected as error:
            outcome, detail = "deadlock", error.diag.message_detail or ""
        except psycopg.OperationalError as error:
            if not connection.broken and error.sqlstate not in _GOING:
                outcome, detail = "error", f"{error.sqlstate} {error}"
            else:
                outcome, detail = DOUBT if committing else "cut", str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what an application would have met
            outcome, detail = "error", f"{getattr(error, 'sqlstate', None)} {type(error).__name__}: {error}"
        self._done(
            connection,
            Entry(
                self.count, phase, level.name, outcome, acts, self.application.longest, self.application.draft, detail
            ),
        )

    def _in_vain(self, connection: psycopg.Connection[Any], name: str) -> None:
        """An act in a subtransaction that is rolled back; a lock of the job's table is let go with it, so not that."""
        if name in ("job", "truncate", "mend"):
            self.application.act(connection, name)
            return
        mine = self.application
        # The acts write to the draft; what they write in vain must not stay.
        draft, active, odd = mine.draft, mine.active, mine.odd_row
        mine.draft = Change(dict(draft.rows), dict(draft.events), dict(draft.jobs))
        mine.active = dict(active)
        connection.execute("SAVEPOINT vain")
        mine.act(connection, name)
        connection.execute("ROLLBACK TO SAVEPOINT vain")
        mine.draft, mine.active, mine.odd_row = draft, active, odd

    def _done(self, connection: psycopg.Connection[Any], entry: Entry) -> None:
        if entry.outcome == COMMITTED:
            self.application.commit()
        elif entry.outcome == DOUBT:
            self.doubt = entry.number
        self.record.add(entry)
        if entry.outcome in (DOUBT, "cut"):
            self.signals.lost[self.number] += 1
            connection.close()
        elif entry.outcome != COMMITTED:
            try:
                connection.rollback()
            except psycopg.OperationalError:
                # Lost in this very moment.
                self.signals.lost[self.number] += 1
                connection.close()
        if entry.outcome == "error":
            self.signals.trouble.set()
