"""Statements that take a lock on a busy table: tried for a moment, given up, tried again.

Who waits for a strong lock makes everybody wait who comes after (PostgreSQL manual, 13.3.1), so no attempt waits longer
than a short lock_timeout, and between two attempts the queue drains.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import psycopg
import tenacity
from psycopg import pq, sql
from tenacity.retry import retry_base

from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.lock_holders import in_the_way
from spine_migrate.db.lock_modes import LockMode
from spine_migrate.db.queries import query
from spine_migrate.errors import Interrupted

Result = TypeVar("Result")
# So many sessions are named in a sentence.
_NAMED = 5


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
        self.asked: dict[Name, LockMode] = {}

    def apply(self, asked: Name | None = None) -> None:
        """Let the next statement wait for as long as is left, which is never nothing. ``asked``: a table or view that
        it locks against everybody, to be named where that is not to be had.
        """
        if asked is not None:
            self.asked[asked] = LockMode.ACCESS_EXCLUSIVE
        if self._end is None:
            self._end = time.monotonic() + self._milliseconds / 1000
        left = max(1, round((self._end - time.monotonic()) * 1000))
        self._connection.execute(query("patience", "lock_timeout"), {"milliseconds": f"{left}ms"})

    def lock(self, table: Name, mode: str) -> None:
        """``mode`` is one of ``LockMode``, in small letters."""
        self.apply()
        self.asked[table] = LockMode(mode.upper())
        in_mode = sql.SQL(self.asked[table].value)
        self._connection.execute(sql.SQL("LOCK TABLE {} IN {} MODE").format(table.identifier, in_mode))

    def over(self) -> None:
        """What is waited for next has a time of its own."""
        self._end = None
        self.apply()


def attempts(retry: retry_base, *, seconds: float, stop: threading.Event) -> tenacity.Retrying:
    """One after the other with a growing, random pause, until one is not to be tried again, ``seconds`` are over or
    ``stop`` is set; then it re-raises.
    """
    return tenacity.Retrying(
        retry=retry,
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=2),
        stop=tenacity.stop_any(tenacity.stop_after_delay(seconds), tenacity.stop_when_event_set(stop)),
        sleep=tenacity.sleep_using_event(stop),
        reraise=True,
    )


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
    """Do ``work`` in one transaction that holds the tables' locks in ``mode`` (as for ``Budget.lock``) from its start,
    so that it waits for nothing further on them. Attempts that cannot have a lock leave nothing behind.
    ``first`` is what the transaction begins with, before the tables are locked. In a transaction of the caller's each
    attempt is a savepoint, and what that holds it goes on holding.

    Raises Interrupted, naming who holds the locks, where they cannot be had in time or ``stop`` is set.
    """
    retrying = attempts(
        tenacity.retry_if_exception_type((psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)),
        seconds=patience.seconds,
        stop=stop,
    )

    asked = dict.fromkeys(tables, LockMode(mode.upper()))

    def attempt() -> Result:
        if connection.info.transaction_status == pq.TransactionStatus.IDLE:
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        with connection.transaction():
            budget = Budget(connection, patience.lock_timeout)
            if first is not None:
                try:
                    first(connection, budget)
                finally:
                    asked.update(budget.asked)
            for table in tables:
                budget.lock(table, mode)
            budget.over()
            return work(connection)

    try:
        return retrying(attempt)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        if stop.is_set():
            raise Interrupted("Stopped while locks were waited for; nothing was changed.") from error
        raise Interrupted(
            f"{', '.join(map(str, asked))} could not be locked within {patience.seconds:g} s of attempts "
            f"({_holders(connection, asked)}); nothing was changed, run the same command again."
        ) from error


def _holders(connection: Connection, asked: Mapping[Name, LockMode]) -> str:
    found = in_the_way(connection, asked.items())
    if not found:
        return "no session holds a lock on them now"
    more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return "; ".join(f"{one.who_has_what}, {one.how_long}" for one in found[:_NAMED]) + more
