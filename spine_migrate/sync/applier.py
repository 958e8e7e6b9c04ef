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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.pq import TransactionStatus

from spine_migrate.db.captures import MOST_ATTEMPTS, alone, unless_rewritten
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.sync.changes import Changes
from spine_migrate.sync.work import Applied, Work, Working, run

# A row that was put off for as many seconds, and tried in vain, goes to quarantine with what stands in its way.
LONGEST_SECONDS = 30.0
EVERYTHING = ""


@dataclass(frozen=True)
class Applier(ABC):
    """Applies one capture. ``lock`` is the name of the migration's lock. Of two at once, one fails and reads anew.

    Each method is a transaction of its own, or a part of the caller's.
    """

    migration_id: int
    capture_id: int
    lock: str

    @abstractmethod
    def work(self, connection: Connection, tired: set[str] | None = None) -> Working:
        """What has become of some keys, brought to the other side."""

    @abstractmethod
    def remove_extra(self, connection: Connection, *, limit: int) -> tuple[Applied, bool]:
        """Remove rows, at most ``limit``, that have none on the side that was truncated; whether none is left."""

    def next(self, connection: Connection, *, limit: int) -> Applied:
        """Apply the oldest entries of the log, at most ``limit``. Raises psycopg.Error; nothing is applied then."""
        with alone(connection, self.lock) as is_alone, self._transaction(connection):
            self._hold(connection)
            taken = connection.execute(query("capture", "take"), {**self._names, "limit": limit}).fetchall()
            keys = [key for key, _ in taken if key is not None]
            if len(keys) < len(taken):
                self._note_gone(connection, "all", [EVERYTHING])
            work = self.work(connection)
            work.apply(keys)
            if work.gone and not is_alone:
                self._note_gone(connection, "gone", work.gone)
            work.done.entries = sum(count for _, count in taken)
            connection.execute(query("capture", "count"), {**self._names, "entries": work.done.entries})
        return work.done

    def deferred(self, connection: Connection, *, limit: int, patient: bool) -> Applied:
        """Try rows again that were put off; ``patient``: none has waited for long enough yet, whatever its age."""
        with alone(connection, self.lock) as is_alone, self._transaction(connection):
            self._hold(connection)
            waiting = connection.execute(query("capture", "waiting"), {**self._names, "limit": limit}).fetchall()
            tired = {key for key, attempts, age in waiting if attempts >= MOST_ATTEMPTS and age >= LONGEST_SECONDS}
            work = self.work(connection, set() if patient else tired)
            work.apply([key for key, _, _ in waiting])
            if work.gone and not is_alone:
                self._note_gone(connection, "gone", work.gone)
        return work.done

    def dependent(self, connection: Connection, *, limit: int) -> Applied:
        """Try rows again that are in quarantine for the sake of others."""
        with alone(connection, self.lock) as is_alone, self._transaction(connection):
            self._hold(connection)
            values = {"migration_id": self.migration_id, "limit": limit}
            keys = [key for (key,) in connection.execute(query("capture", "dependent"), values)]
            work = self.work(connection, set(keys))
            work.apply(keys)
            if work.gone and not is_alone:
                self._note_gone(connection, "gone", work.gone)
        return work.done

    def noted(self, connection: Connection, *, limit: int) -> list[tuple[str, datetime]]:
        """Keys that were found gone, and when: for ``again``, after a barrier."""
        return connection.execute(query("capture", "gone"), {**self._names, "limit": limit}).fetchall()

    def again(self, connection: Connection, noted: Sequence[tuple[str, datetime]]) -> Applied:
        """Look at keys again that were found gone before the last barrier."""
        with self._transaction(connection):
            self._hold(connection)
            keys, since = [key for key, _ in noted], [moment for _, moment in noted]
            work = self.work(connection)
            work.apply(keys)
            connection.execute(query("capture", "forget_gone"), {**self._names, "keys": keys, "since": since})
        return work.done

    def awaits_everything(self, connection: Connection) -> bool:
        """Whether the legacy table was truncated, so that all rows are to be looked at."""
        return connection.execute(query("capture", "everything"), self._names).fetchone() is not None

    def everything(self, connection: Connection, *, limit: int) -> Applied | None:
        """After a TRUNCATE and a barrier: remove rows that have no legacy row, at most ``limit``; None when there is
        nothing of the kind to do.
        """
        with self._transaction(connection):
            self._hold(connection)
            found = connection.execute(query("capture", "everything"), self._names).fetchone()
            if found is None:
                return None
            done, over = self.remove_extra(connection, limit=limit)
            if over:
                connection.execute(query("capture", "forget_everything"), {**self._names, "since": found[0]})
        return done

    @property
    @abstractmethod
    def tables(self) -> tuple[Name, Name]:
        """Both sides."""

    @contextmanager
    def _transaction(self, connection: Connection) -> Iterator[None]:
        whole = connection.info.transaction_status is TransactionStatus.IDLE
        if whole:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
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

    def work(self, connection: Connection, tired: set[str] | None = None) -> Work:
        return Work(connection, self.changes, self.migration_id, self.capture_id, tired or set())

    def remove_extra(self, connection: Connection, *, limit: int) -> tuple[Applied, bool]:
        extra = [key for (key,) in run(connection, self.changes.without_legacy(limit))]
        work = self.work(connection)
        work.remove(extra, self.changes.named)
        if not extra:
            run(connection, self.changes.forget_quarantine(self.migration_id))
        return work.done, not extra
