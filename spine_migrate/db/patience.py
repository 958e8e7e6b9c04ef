"""Statements that take a lock on a busy table: tried for a moment, given up, tried again.

Who waits for a strong lock makes everybody wait who comes after (PostgreSQL manual, 13.3.1), so no attempt waits longer
than a short lock_timeout, and between two attempts the queue drains.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psycopg
import tenacity
from psycopg import sql

from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.errors import Interrupted

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """``lock_timeout`` is the longest that one attempt, and so anybody behind it, waits, in milliseconds; ``seconds``
    bounds all attempts.
    """

    lock_timeout: int = 200
    seconds: float = 60.0


class Budget:
    """What is left of the time that one attempt may wait, from its first request for a lock on."""

    def __init__(self, connection: Connection, milliseconds: int) -> None:
        self._connection = connection
        self._milliseconds = milliseconds
        self._end: float | None = None
        self.tables: list[Name] = []

    def apply(self) -> None:
        """Let the next statement wait for as long as is left, which is never nothing."""
        if self._end is None:
            self._end = time.monotonic() + self._milliseconds / 1000
        left = max(1, round((self._end - time.monotonic()) * 1000))
        self._connection.execute(query("patience", "lock_timeout"), {"milliseconds": f"{left}ms"})

    def lock(self, table: Name, mode: str) -> None:
        """``mode`` is ours, never from outside."""
        self.apply()
        self.tables.append(table)
        self._connection.execute(sql.SQL("LOCK TABLE {} IN {} MODE").format(table.identifier, _MODES[mode]))

    def over(self) -> None:
        """What is waited for next has a time of its own."""
        self._end = None
        self.apply()


def patiently(
    connection: Connection,
    work: Callable[[Connection], Result],
    *,
    tables: Sequence[Name],
    mode: str,
    patience: Patience,
    stop: threading.Event,
    first: Callable[[Connection, Budget], None] | None = None,
) -> Result:
    """Do ``work`` in one transaction that holds the tables' locks in ``mode`` (ours, never from outside) from its
    start, so that it waits for nothing further on them. Attempts that cannot have a lock leave nothing behind.
    ``first`` is what the transaction begins with, before the tables are locked.

    Raises Interrupted, naming who holds the locks, where they cannot be had in time or ``stop`` is set.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=2),
        stop=tenacity.stop_any(tenacity.stop_after_delay(patience.seconds), tenacity.stop_when_event_set(stop)),
        sleep=tenacity.sleep_using_event(stop),
        reraise=True,
    )

    asked = dict.fromkeys(tables)

    def attempt() -> Result:
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        with connection.transaction():
            budget = Budget(connection, patience.lock_timeout)
            if first is not None:
                try:
                    first(connection, budget)
                finally:
                    asked.update(dict.fromkeys(budget.tables))
            for table in tables:
                budget.lock(table, mode)
            budget.over()
            return work(connection)

    try:
        return retrying(attempt)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise Interrupted(
            f"{', '.join(map(str, asked))} could not be locked within {patience.seconds:g} s of attempts "
            f"({_holders(connection, list(asked))}); nothing was changed, run the same command again."
        ) from error


_MODES = {
    "share row exclusive": sql.SQL("SHARE ROW EXCLUSIVE"),
    "access exclusive": sql.SQL("ACCESS EXCLUSIVE"),
}


def _holders(connection: Connection, tables: Sequence[Name]) -> str:
    found = connection.execute(query("patience", "holders"), {"tables": [str(table) for table in tables]}).fetchall()
    if not found:
        return "no session holds a lock on them now"
    return "; ".join(
        f"session {pid} of {role} has {mode}, in a transaction for {age} s" for pid, role, mode, age in found
    )
