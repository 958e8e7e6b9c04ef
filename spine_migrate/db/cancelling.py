"""Cancelling what a session is at, from another thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import psycopg

from spine_migrate.db.connect import Connection

#: Seconds between two looks at the wish to cancel, and between two requests.
GLANCE = 0.2
_SECONDS = 5.0


def cancel(connection: Connection) -> None:
    """Ask once. Between two statements there is nothing to cancel, and a server that does not answer in time has not
    heard of it: whoever wants the session to end asks until it has.
    """
    if not connection.closed:
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=_SECONDS)


@contextmanager
def cancelling(event: threading.Event, connections: Callable[[], Iterable[Connection]]) -> Iterator[None]:
    """While the block runs, ``event`` cancels whatever statement is in flight on any of the connections, which are
    asked for once it is set, and each that follows it.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(GLANCE):
            if event.is_set():
                for connection in connections():
                    cancel(connection)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
