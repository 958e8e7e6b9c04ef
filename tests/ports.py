"""Ports for servers of the tests' own."""

from __future__ import annotations

import socket
from contextlib import suppress
from secrets import randbelow


def free_port() -> int:
    """One of 127.0.0.1 that is free, and below those that a system gives to connections (Linux: from 32768 on): one of
    these would be somebody's before the server listens, or while it is restarted. A node of a Redis cluster needs the
    port 10,000 above, too.
    """
    while True:
        port = 20_000 + randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
