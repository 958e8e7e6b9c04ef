"""How many changes are applied at once where others write the same rows of the other side.

An applier's transaction fails where one of its rows is written after its snapshot. Where an application does that all
the time, the same again would fail for ever, and nothing behind that row in the log would be applied: so fewer are
tried at once, down to one, which is held then; and one that cannot even be held is put off. Each success doubles what
is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.pq import TransactionStatus

from spine_migrate.db.connect import Connection
from spine_migrate.sync.applier import Applier, Unsteady
from spine_migrate.sync.work import Applied, Overtaken

CONTENDED = (
    Overtaken,
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
)
# Of so many at once the rows that are in nobody's way are found in a few attempts.
_FEWER = 4
# A new snapshot sees the row by which the last was overtaken; it is another row the next time.
_OVERTAKEN = 3


@dataclass(frozen=True)
class _Ask:
    """For how many rows at most; ``held`` as in ``Applier``."""

    rows: int
    held: bool = False


_Act = Callable[[_Ask], Applied]


class Narrowing:
    """An applier's work, in as many rows at once as can be had; each kind of work has a size of its own. All raise one
    of CONTENDED where a single row could be neither applied nor put off. In the caller's transaction, which keeps
    everybody else from writing, it is the applier's work as it is.
    """

    def __init__(self, applier: Applier) -> None:
        self.applier = applier
        self._most: dict[str, int] = {}

    def next(self, connection: Connection, *, limit: int) -> tuple[Applied, bool]:
        """With whether the log was emptied."""
        done, asked = self._run(
            connection, "next", limit, lambda ask: self.applier.next(connection, limit=ask.rows, held=ask.held)
        )
        return done, done.entries < asked

    def deferred(self, connection: Connection, *, limit: int, patient: bool) -> Applied:
        done, _ = self._run(
            connection,
            "deferred",
            limit,
            lambda ask: self.applier.deferred(connection, limit=ask.rows, patient=patient, held=ask.held),
        )
        return done

    def dependent(self, connection: Connection, *, limit: int) -> Applied:
        done, _ = self._run(
            connection,
            "dependent",
            limit,
            lambda ask: self.applier.dependent(connection, limit=ask.rows, held=ask.held),
        )
        return done

    def again(self, connection: Connection, noted: Sequence[tuple[str, datetime]]) -> Applied:
        total = Applied()
        while noted:
            rest = noted
            done, asked = self._run(
                connection,
                "again",
                len(rest),
                lambda ask: self.applier.again(connection, rest[: ask.rows], held=ask.held),  # noqa: B023 - called at once
            )
            total.add(done)
            noted = rest[asked:]
        return total

    def remove_all_extra(self, connection: Connection, *, limit: int, more: Callable[[], bool]) -> Applied:
        done, _ = self._run(
            connection,
            "extra",
            limit,
            lambda ask: self.applier.remove_all_extra(connection, limit=ask.rows, more=more, held=ask.held),
        )
        return done

    def _run(self, connection: Connection, what: str, limit: int, act: _Act) -> tuple[Applied, int]:
        """What was done, and for how many rows it was asked."""
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            return act(_Ask(limit)), limit
        rows = min(limit, self._most.get(what, limit))
        overtaken = 0
        while True:
            try:
                done = act(_Ask(rows))
            except CONTENDED as error:
                overtaken += isinstance(error, Overtaken)
                if isinstance(error, Overtaken) and overtaken <= _OVERTAKEN:
                    continue
                if rows > 1:
                    rows = max(1, rows // _FEWER)
                    self._most[what] = rows
                    continue
                done = self._held(connection, act)
            if rows < limit:
                self._most[what] = 2 * rows
            else:
                self._most.pop(what, None)
            return done, rows

    def _held(self, connection: Connection, act: _Act) -> Applied:
        try:
            return act(_Ask(1, held=True))
        except Unsteady as error:
            entries = self.applier.put_off(connection, error.keys)
            return Applied(entries=entries, deferred=len(error.keys))
