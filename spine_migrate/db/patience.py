"""Statements that take a lock on a busy table: tried for a moment, given up, tried again.

Who waits for a strong lock makes everybody wait who comes after (PostgreSQL manual, 13.3.1), so no attempt waits longer
than a short lock_timeout, and between two attempts the queue drains.
"""

from __future__ import annotations

import threading
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


def patiently(
    connection: Connection,
    work: Callable[[Connection], Result],
    *,
    tables: Sequence[Name],
    mode: str,
    patience: Patience,
    stop: threading.Event,
) -> Result:
    """Do ``work`` in one transaction that holds the tables' locks in ``mode`` (ours, never from outside) from its
    start, so that it waits for nothing further on them. Attempts that cannot have a lock leave nothing behind.

    Raises Interrupted, naming who holds the locks, where they cannot be had in time or ``stop`` is set.
    """
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type((psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=2),
        stop=tenacity.stop_any(tenacity.stop_after_delay(patience.seconds), tenacity.stop_when_event_set(stop)),
        sleep=tenacity.sleep_using_event(stop),
        reraise=True,
    )

    def attempt() -> Result:
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        with connection.transaction():
            connection.execute(query("patience", "lock_timeout"), {"milliseconds": f"{patience.lock_timeout}ms"})
            for table in tables:
                connection.execute(sql.SQL("LOCK TABLE {} IN {} MODE").format(table.identifier, _MODES[mode]))
            return work(connection)

    try:
        return retrying(attempt)
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise Interrupted(
            f"{', '.join(map(str, tables))} could not be locked within {patience.seconds:g} s of attempts "
            f"({_holders(connection, tables)}); nothing was changed, run the same command again."
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
