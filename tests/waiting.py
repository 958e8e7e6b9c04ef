"""What a test waits for: something that is to come about, and who waits for a lock in its own database.

On a server that several tests have, others wait too, and databases that were copied have tables of the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, LiteralString

import pytest

#: Seconds that a test waits for something to come about, before it fails.
LONGEST = 60.0

#: The sessions that wait; it may go on with AND, about ``l`` of pg_locks and ``a`` of pg_stat_activity.
WAITING: LiteralString = (
    "SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE NOT l.granted AND a.datname = current_database()"
)


def until(
    happened: Callable[[], Any], what: str | Callable[[], str], *, seconds: float = LONGEST, every: float = 0.02
) -> None:
    """Look again and again; fails after so long with ``what``, which may be asked for only then."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            pytest.fail(what if isinstance(what, str) else what())
        time.sleep(every)
