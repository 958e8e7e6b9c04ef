"""Advisory locks of a session: who is at work on what."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import psycopg
from psycopg.pq import TransactionStatus

from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.errors import Interrupted

#: Seconds for which the session of a process that has ended may be there still: the server notices at the end of the
#: statement that it is at, then takes the session's temporary tables away, and only then gives up its locks.
ENDED, LAST_STATEMENT = 2.0, 10.0
_GLANCE = 0.2


def give_back(connection: Connection) -> None:
    """All that a session holds, before it is closed: it would keep it until it has taken its temporary tables away."""
    if connection.info.transaction_status is TransactionStatus.IDLE:
        with suppress(psycopg.OperationalError):
            connection.execute(query("backfill", "unlock_all"))


def try_lock(
    connection: Connection, statement: tuple[str, str], name: str, *, seconds: float | None, stop: threading.Event
) -> bool:
    """Whether it could be had within so many seconds; None waits as long as it takes. ``statement`` is a named query
    that tries once.

    Raises Interrupted where ``stop`` is set meanwhile.
    """
    end = None if seconds is None else time.monotonic() + seconds
    while True:
        ((had,),) = connection.execute(query(*statement), {"name": name}).fetchall()
        if had or (end is not None and time.monotonic() >= end):
            return bool(had)
        if stop.wait(_GLANCE):
            raise Interrupted(f"Stopped while another run is at work on {name.partition('|')[0]}.")
