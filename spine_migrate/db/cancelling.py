"""Cancelling what a session is at, from another thread."""

from __future__ import annotations

from contextlib import suppress

import psycopg

from spine_migrate.db.connect import Connection

_SECONDS = 5.0


def cancel(connection: Connection) -> None:
    """Ask once. Between two statements there is nothing to cancel, and a server that does not answer in time has not
    heard of it: whoever wants the session to end asks until it has.
    """
    if not connection.closed:
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=_SECONDS)
