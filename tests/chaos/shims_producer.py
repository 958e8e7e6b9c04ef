"""``python -m tests.chaos.shims_producer SEED``: calls the old tasks of tests/chaos/shims_app.py, each kind in turn,
until SIGTERM, and writes down each call that it did not get an error for. Killed at any moment.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from itertools import cycle
from typing import Any

from celery import chain, chord

from spine_migrate.execution import BackendError

#: Seconds between two calls, at least and at most.
_PAUSE = (0.0, 0.4)
DEATHS = ("", "", "", "in the body", "before the mark")


def kinds(chance: random.Random) -> dict[str, Callable[[], Any]]:
    from tests.chaos import shims_app as app

    def seconds() -> float:
        return round(chance.uniform(0, 0.25), 3)

    def dies() -> str:
        return chance.choice(DEATHS)

    def linked() -> Any:
        """The link's own result: what comes last is what counts."""
        link = app.work.si(seconds())
        link.freeze()
        app.work.apply_async((seconds(), dies()), link=link)
        return app.work.AsyncResult(link.id)

    def in_a_chain() -> Any:
        steps = app.step.s(0, seconds(), dies()), app.step.s(seconds(), dies()), app.step.s(0)
        return chain(*steps).apply_async()

    def in_a_chord() -> Any:
        header = [app.step.s(n, seconds(), dies()) for n in range(3)]
        return chord(header, app.total.s(seconds=seconds())).apply_async()

    return {
        "work": lambda: app.work.delay(seconds(), dies()),
        "once": lambda: app.once.delay(seconds(), dies()),
        "again": lambda: app.again.delay(chance.randint(1, 2), seconds(), dies()),
        "linked": linked,
        "chain": in_a_chain,
        "chord": in_a_chord,
    }


def main(seed: int) -> None:
    warnings.simplefilter("ignore", DeprecationWarning)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    chance = random.Random(seed)
    calls = kinds(chance)
    from tests.chaos.shims_app import notes

    with notes() as connection:
        for kind in cycle(calls):
            if stop.wait(chance.uniform(*_PAUSE)):
                return
            try:
                result = calls[kind]()
            except BackendError:
                # Refused: the database was away. It may be stored all the same, or a part of a canvas is.
                continue
            connection.execute("INSERT INTO accepted VALUES (%s, %s)", (kind, result.id))


if __name__ == "__main__":
    main(int(sys.argv[1]))
    # Celery's result backend would connect once more on the way out.
    os._exit(0)
