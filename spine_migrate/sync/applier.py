"""The applier of changes: takes keys out of the log, reads their rows as they are now, brings the target up to date.

One transaction at REPEATABLE READ does all of it, so that the rows are read in the snapshot in which the entries were
seen: whatever wrote an entry is in it. The order of the entries does not matter, only the rows as they are do.

What cannot be applied yet (its parent has not come, its place in a unique index is taken by a row that is still to
change) is put off and tried again; only what stays so goes to quarantine. A row that was moved and cannot be carried
any more keeps its last good state on the target.

A backfill reads rows first and inserts them later, so a row that is gone now may still be inserted by a batch that read
it before. Keys that are gone are therefore noted, and looked at again once those batches are over (``again``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime

import psycopg
from psycopg.pq import TransactionStatus

from spine_migrate.carry.scope import Parameters
from spine_migrate.carry.steady import level, steady, target_lock
from spine_migrate.db.captures import MOST_ATTEMPTS, alone, unless_rewritten
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.sync.changes import Changes
from spine_migrate.sync.work import Applied, Work, Working, run

# A row that was put off for as many seconds, and tried in vain, goes to quarantine with what stands in its way.
LONGEST_SECONDS = 30.0
EVERYTHING = ""
# Of so many of the oldest entries, those of a single row are applied as one.
MOST_OF_A_ROW = 10_000
WRITTEN = "others write it all the time"
UNSTEADY = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
)


class Unsteady(Exception):
    """The rows of these keys could not be held."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__(f"{len(keys)} rows could not be held")
        self.keys = list(keys)


# A row of the other side that has none on the side that was truncated: its key there, and the legacy key, by which it
# is put off where it has to stay; None where the row does not tell it.
Extra = tuple[str, str | None]


@dataclass
class Place:
    """How far a look at all rows has come: the last key, None where one begins."""

    after: str | None = None


@dataclass(frozen=True)
class Applier(ABC):
    """Applies one capture. ``lock`` is the name of the migration's lock. Of two at once, one fails and reads anew.

    Each method is a transaction of its own, or a part of the caller's. What is to be ``held`` is a single row that
    others write all the time, see ``carry.steady``; Unsteady is raised where it cannot be.
    """

    migration_id: int
    capture_id: int
    lock: str
    place: Place = field(default_factory=Place, init=False, compare=False)

    @abstractmethod
    def work(self, connection: Connection, tired: set[str] | None = None) -> Working:
        """What has become of some keys, brought to the other side."""

    @abstractmethod
    def extra_rows(self, connection: Connection, *, limit: int, after: str | None) -> list[Extra]:
        """Those that are not put off, from one key on and in their order."""

    @abstractmethod
    def remove_extra(self, connection: Connection, extra: Sequence[Extra]) -> Applied:
        """Remove them, and put off those that something else keeps from it."""

    @abstractmethod
    def none_extra(self, connection: Connection) -> None:
        """What there is to do when all of them are removed."""

    def steady(self, connection: Connection, keys: Sequence[str]) -> AbstractContextManager[None]:  # noqa: ARG002
        """Around work on rows that others write. On the way back nobody else writes to the legacy table."""
        return nullcontext()

    def next(self, connection: Connection, *, limit: int, held: bool = False) -> Applied:
        """Apply the oldest entries of the log, at most ``limit``; ``held``: those of the row that the oldest is about.
        Raises psycopg.Error; nothing is applied then.
        """
        with alone(connection, self.lock) as is_alone, self._transaction(connection, held=held):
            self._hold(connection)
            name, most = ("take_row", MOST_OF_A_ROW) if held else ("take", limit)
            taken = connection.execute(query("capture", name), {**self._names, "limit": most}).fetchall()
            keys = [key for key, _ in taken if key is not None]
            if len(keys) < len(taken):
                self._note_gone(connection, "all", [EVERYTHING])
            work = self.work(connection)
            self._apply(work, connection, keys, held=held)
            if work.gone and not is_alone:
                self._note_gone(connection, "gone", work.gone)
            work.done.entries = sum(count for _, count in taken)
            connection.execute(query("capture", "count"), {**self._names, "entries": work.done.entries})
        return work.done

    def put_off(self, connection: Connection, keys: Sequence[str]) -> int:
        """Let rows wait that could not be held, so that they keep no others in the log from being applied; how many
        entries of the log were about them.
        """
        with self._transaction(connection, held=True):
            self._hold(connection)
            entries = connection.execute(query("capture", "take_keys"), {**self._names, "keys": list(keys)}).rowcount
            connection.execute(query("capture", "count"), {**self._names, "entries": entries})
            values = {**self._names, "keys": list(keys), "details": [WRITTEN] * len(keys)}
            connection.execute(query("capture", "put_off"), values)
        return entries

    def deferred(self, connection: Connection, *, limit: int, patient: bool, held: bool = False) -> Applied:
        """Try rows again that were put off; ``patient``: none has waited for long enough yet, whatever its age."""
        with alone(connection, self.lock) as is_alone, self._transaction(connection, held=held):
            self._hold(connection)
            waiting = connection.execute(query("capture", "waiting"), {**self._names, "limit": limit}).fetchall()
            tired = {key for key, attempts, age in waiting if attempts >= MOST_ATTEMPTS and age >= LONGEST_SECONDS}
            work = self.work(connection, set() if patient else tired)
            self._apply(work, connection, [key for key, _, _ in waiting], held=held)
            if work.gone and not is_alone:
                self._note_gone(connection, "gone", work.gone)
        return work.done

    def dependent(self, connection: Connection, *, limit: int, held: bool = False) -> Applied:
        """Try rows again that are in quarantine for the sake of others."""
        with alone(connection, self.lock) as is_alone, self._transaction(connection, held=held):
            self._hold(connection)
            values = {"migration_id": self.migration_id, "limit": limit}
            keys = [key for (key,) in connection.execute(query("capture", "dependent"), values)]
            work = self.work(connection, set(keys))
            self._apply(work, connection, keys, held=held)
            if work.gone and not is_alone:
                self._note_gone(connection, "gone", work.gone)
        return work.done

    def noted(self, connection: Connection, *, limit: int) -> list[tuple[str, datetime]]:
        """Keys that were found gone, and when: for ``again``, after a barrier."""
        return connection.execute(query("capture", "gone"), {**self._names, "limit": limit}).fetchall()

    def again(self, connection: Connection, noted: Sequence[tuple[str, datetime]], *, held: bool = False) -> Applied:
        """Look at keys again that were found gone before the last barrier."""
        with self._transaction(connection, held=held):
            self._hold(connection)
            keys, since = [key for key, _ in noted], [moment for _, moment in noted]
            work = self.work(connection)
            self._apply(work, connection, keys, held=held)
            connection.execute(query("capture", "forget_gone"), {**self._names, "keys": keys, "since": since})
        return work.done

    def awaits_everything(self, connection: Connection) -> bool:
        """Whether the legacy table was truncated, so that all rows are to be looked at."""
        return connection.execute(query("capture", "everything"), self._names).fetchone() is not None

    def remove_all_extra(
        self, connection: Connection, *, limit: int, more: Callable[[], bool] = lambda: True, held: bool = False
    ) -> Applied:
        """After a TRUNCATE and a barrier: remove rows that have no legacy row, ``limit`` in one transaction, as long as
        ``more`` says. The next call goes on from there. Those that cannot be removed are put off.
        """
        total = Applied()
        while more():
            total.add(self._remove_some(connection, limit, held=held))
            if self.place.after is None:
                break
        return total

    def _remove_some(self, connection: Connection, limit: int, *, held: bool) -> Applied:
        done, after = Applied(), None
        with self._transaction(connection, held=held):
            self._hold(connection)
            found = connection.execute(query("capture", "everything"), self._names).fetchone()
            extra = self.extra_rows(connection, limit=limit, after=self.place.after) if found is not None else []
            if extra:
                done, after = self.remove_extra(connection, extra), extra[-1][0]
            elif found is not None and (
                self.place.after is None or not self.extra_rows(connection, limit=1, after=None)
            ):
                self.none_extra(connection)
                connection.execute(query("capture", "forget_everything"), {**self._names, "since": found[0]})
        self.place.after = after
        return done

    @property
    @abstractmethod
    def tables(self) -> tuple[Name, Name]:
        """Both sides."""

    def _apply(self, work: Working, connection: Connection, keys: Sequence[str], *, held: bool) -> None:
        if not (held and keys):
            work.apply(keys)
            return
        try:
            with self.steady(connection, keys):
                work.apply(keys)
        except UNSTEADY as error:
            raise Unsteady(keys) from error

    @contextmanager
    def _transaction(self, connection: Connection, *, held: bool = False) -> Iterator[None]:
        whole = connection.info.transaction_status is TransactionStatus.IDLE
        if whole:
            connection.isolation_level = level(held=held)
        with connection.transaction():
            # What a constraint puts off until the commit would be blamed on no row there, and keep a switch from
            # altering the table.
            connection.execute(query("capture", "immediate"))
            yield
            if whole:
                unless_rewritten(connection, *self.tables)

    @property
    def _names(self) -> dict[str, int]:
        return {"capture_id": self.capture_id}

    def _hold(self, connection: Connection) -> None:
        held = connection.execute(query("capture", "hold"), self._names)
        if not held.rowcount:
            # A cutover has turned it round since; to go on would be to write to what the application writes to.
            raise psycopg.errors.SerializationFailure("The capture is over.")

    def _note_gone(self, connection: Connection, why: str, keys: list[str]) -> None:
        connection.execute(query("capture", "note_gone"), {**self._names, "why": why, "keys": keys})


@dataclass(frozen=True)
class Forward(Applier):
    """From the legacy table to the target."""

    changes: Changes

    @property
    def tables(self) -> tuple[Name, Name]:
        return self.changes.binding.source, self.changes.binding.target

    def steady(self, connection: Connection, keys: Sequence[str]) -> AbstractContextManager[None]:
        parameters = Parameters()
        lock = target_lock(self.changes.binding, self.changes.led_to(keys)(parameters), parameters)
        return steady(connection, self.changes.binding, keys, lock)

    def work(self, connection: Connection, tired: set[str] | None = None) -> Work:
        return Work(connection, self.changes, self.migration_id, self.capture_id, tired or set())

    def extra_rows(self, connection: Connection, *, limit: int, after: str | None) -> list[Extra]:
        return run(connection, self.changes.without_legacy(self.capture_id, limit, after)).fetchall()

    def remove_extra(self, connection: Connection, extra: Sequence[Extra]) -> Applied:
        work = self.work(connection)
        work.remove_extra(dict(extra))
        return work.done

    def none_extra(self, connection: Connection) -> None:
        run(connection, self.changes.forget_quarantine(self.migration_id))
