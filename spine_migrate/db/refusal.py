"""The SQLSTATE with which a server refuses a connection.

libpq keeps it to itself and hands out words, in the server's language, or the client's. Its trace shows the message as
it came (since PostgreSQL 18 from the first byte of a connection; the psycopg[binary] wheels carry that one), so the
server is asked once more with the trace on. The trace goes through a pipe, since it may hold the password.
"""

from __future__ import annotations

import os
import re
import select
import time

from psycopg import pq

_SECONDS = 10.0
# libpq, fe-trace.c: fields of an ErrorResponse, each with its letter; V is the severity that is not translated.
_CODE = re.compile(r'\tErrorResponse\t.* V "(?:FATAL|ERROR|PANIC)" C "([0-9A-Z]{5})"')


def sqlstate(conninfo: str) -> str | None:
    """None where no server answers, where it lets us in this time, or where libpq is too old to tell."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    connection = pq.PGconn.connect_start(conninfo.encode())
    try:
        connection.trace(writing)
        _finish(connection)
        # What does not fit into the pipe is lost; the message is far shorter.
        connection.untrace()
        found = _CODE.search(os.read(reading, 1 << 16).decode(errors="replace")) if _readable(reading) else None
    finally:
        connection.finish()
        os.close(reading)
        os.close(writing)
    return found.group(1) if found else None


def _finish(connection: pq.abc.PGconn) -> None:
    """Poll until the connection stands or has failed, for as long as a connection may take."""
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end and connection.status != pq.ConnStatus.BAD:
        match connection.connect_poll():
            case pq.PollingStatus.READING:
                select.select([connection.socket], [], [], max(0.0, end - time.monotonic()))
            case pq.PollingStatus.WRITING:
                select.select([], [connection.socket], [], max(0.0, end - time.monotonic()))
            case _:
                return


def _readable(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 0)[0])
