"""Processes that want the same lock: two that race for it, and one that is killed while it has it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from tests.guards import guard_of

ENTITY = ("feed", "7")
#: Seconds after which a race that does not come to an end has failed.
LONGEST = 120.0

# Not forked: a driver's threads and connections are no child's.
_PROCESSES = get_context("spawn")


def race(url: str, rounds: int) -> Iterator[list[int]]:
    """The fences that two processes were given, round by round; nobody lets go before both have asked."""
    start = _PROCESSES.Barrier(2, timeout=LONGEST)
    with ExitStack() as opened:
        tells = []
        for name in ("a", "b"):
            told, teller = _PROCESSES.Pipe(duplex=False)
            opened.enter_context(told)
            tells.append(told)
            racer = _PROCESSES.Process(target=_race, args=(url, name, rounds, start, teller))
            racer.start()
            opened.callback(racer.join, LONGEST)
            # The racer's own end must be the last one, so that its death is heard.
            teller.close()
        for _ in range(rounds):
            answers = [told.recv() for told in tells]
            yield [fence for fence in answers if fence is not None]


def _race(url: str, name: str, rounds: int, start: Barrier, teller: Connection) -> None:
    with guard_of(url) as guard:
        for _ in range(rounds):
            start.wait()
            fence = guard.acquire(*ENTITY, holder=name, ttl_seconds=LONGEST)
            start.wait()
            if fence is not None:
                guard.release(*ENTITY, fence=fence)
            teller.send(fence)
    teller.close()


def hold(url: str, ttl_seconds: float) -> None:
    """Take the lock, renew it and let go, again and again, until killed; each fence goes to stdout."""
    with guard_of(url) as guard:
        while True:
            fence = guard.acquire(*ENTITY, holder="victim", ttl_seconds=ttl_seconds)
            assert fence is not None
            sys.stdout.write(f"{fence}\n")
            sys.stdout.flush()
            for _ in range(20):
                guard.renew(*ENTITY, fence=fence, ttl_seconds=ttl_seconds)
            guard.release(*ENTITY, fence=fence)


if __name__ == "__main__":
    hold(sys.argv[1], float(sys.argv[2]))
