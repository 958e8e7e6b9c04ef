"""A call of an old task: as it was, as a shim that is switched off, and as a shim whose calls are dispatched; and by
what a worker starts later.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from celery import Celery

from benchmarks.rounds import Spread, medians
from benchmarks.runtime import emptied, ledger_database
from benchmarks.setup import Setup
from spine_migrate.execution.marking import flush_all
from spine_shims import configure, reroute
from spine_shims.configuration import configuration, reset
from tests.redis_server import RedisServer

_CALLS = 1_500
_STARTS = 20
_LOADED = "import celery, celery.app.trace, psycopg, psycopg_pool, psycopg.types.json"
#: How runs are published, and whether a call waits for the disk, which one to Redis as it is here does not.
_WAYS = {
    "through the relay": ("relay", True),
    "through the relay, not waiting for the disk": ("relay", False),
    "directly": ("direct", True),
    "directly, not waiting for the disk": ("direct", False),
}


def shims(setup: Setup) -> None:
    with setup.server() as server, RedisServer(appendonly="no") as broker, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        url = ledger_database(server)
        app = Celery("shims", broker=broker.url)
        calls = _calls(app)
        print(f"p50 of {_CALLS:,} calls of .delay() each, in turns, counted by telemetry; Redis without a log on disk")
        for way, (publish, wait_for_disk) in _WAYS.items():
            ratios: dict[str, list[float]] = {name: [] for name in calls}
            with _configured(url, publish=publish, wait_for_disk=wait_for_disk):
                for _ in range(setup.rounds):
                    emptied(url)
                    middle = medians(calls, _CALLS)
                    for name, seconds in middle.items():
                        ratios[name].append(seconds / middle["bare"])
                    print(f"  {way}:", ", ".join(f"{name} {seconds * 1e6:.0f} us" for name, seconds in middle.items()))
            for name in ("legacy", "dispatch"):
                print(f"  {way}: {name} takes {Spread.of(ratios[name])} times as long as bare")
    _starts()


def _calls(app: Celery) -> dict[str, Callable[[int], object]]:
    @app.task(name="bare", ignore_result=True)  # type: ignore[untyped-decorator]  # Celery has no types
    def bare(number: int) -> None: ...

    def body(number: int) -> None: ...

    legacy = reroute("work", app=app, name="legacy", mode="legacy", ignore_result=True)(body)
    dispatch = reroute("work", app=app, name="dispatch", mode="dispatch", ignore_result=True)(body)
    app.finalize()
    return {
        "bare": bare.delay,
        "legacy": legacy.delay,
        "dispatch": dispatch.delay,
    }


@contextmanager
def _configured(url: str, *, publish: str, wait_for_disk: bool) -> Iterator[None]:
    configure(url, publish=publish, wait_for_disk=wait_for_disk, workers_first=False)
    try:
        yield
    finally:
        flush_all()
        telemetry = configuration().telemetry
        reset()
        if telemetry is not None:
            telemetry.close()


def _starts() -> None:
    """The difference between the two of each pair; a single one says little on a machine that others use."""
    _start(f"{_LOADED}, spine_shims")
    more = [_start(f"{_LOADED}, spine_shims") - _start(_LOADED) for _ in range(_STARTS)]
    alone = statistics.median(_start(_LOADED) for _ in range(5))
    print(f"import spine_shims adds {statistics.median(more) * 1e3:.0f} ms to the {alone * 1e3:.0f} ms of {_LOADED}")


def _start(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - began
