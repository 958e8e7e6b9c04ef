"""Ports for servers of the tests' own."""

from __future__ import annotations

import socket
from contextlib import suppress
from itertools import count
from os import environ
from secrets import randbelow

#: Each process of a test run has its own ports, and each of its servers another: while one is down, nobody takes its.
_SHARE = 1_500
_FIRST = 20_000 + int(environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8 * _SHARE
_following = count(randbelow(_SHARE))


def free_port() -> int:
    """One of 127.0.0.1 that is free, and below those that a system gives to connections (Linux: from 32768 on): one of
    these would be somebody's before the server listens, or while it is restarted. A node of a Redis cluster needs the
    port 10,000 above, too.
    """
    while True:
        port = _FIRST + next(_following) % _SHARE
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
