"""What carries the call of an old task to its end, and how each part of it is taken away."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from tests.asking import ask
from tests.celery_worker import REPOSITORY, CeleryWorker, Place, until
from tests.command import PROGRAM
from tests.database import Database
from tests.redis_server import RedisServer

#: Impatient, so that a test does not wait as long as an operator would; but a lost run is tried again later than a dead
#: process's claim on a chord's callback ends (see tests/chaos/shims_app.py).
_RELAY = ("--poll", "0.1", "--claim-within", "1", "--retry-lost-after", "7")
_GAVE_UP = "Unrecoverable error"
#: Seconds that the claim of a killed worker outlives it.
LEASE = 2.0
#: Seconds. Longer than the relay waits at most before it publishes a run once more.
_LONGEST = 90.0


@dataclass
class Parts:
    """``faults`` counts those that found their victim alive. ``notes`` is where bodies write down what they do."""

    place: Place
    database: Database
    notes: Database
    broker: RedisServer
    worker: CeleryWorker
    faults: Counter[str] = field(default_factory=Counter)
    relay: subprocess.Popen[bytes] | None = None
    given_up: int = 0
    producers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_relay(self) -> None:
        self.relay = self._start(str(PROGRAM), "worker-relay", "--app", "tests.chaos.shims_app:executor", *_RELAY)

    def produce(self, chance: random.Random) -> None:
        words = (sys.executable, "-m", "tests.chaos.shims_producer", str(chance.getrandbits(32)))
        self.producers.append(self._start(*words))

    def at_work(self) -> None:
        """Wait until somebody executes what somebody has called."""
        until(lambda: self.noted("SELECT FROM body LIMIT 1"), "Nothing is executed", self.worker)

    def kill_producer(self, chance: random.Random) -> None:
        """The one that has called longest; another one begins."""
        victim = self.producers.pop(0)
        assert victim.poll() is None
        victim.kill()
        victim.wait()
        self.faults["producer killed"] += 1
        self.produce(chance)

    def kill_relay(self, _: random.Random) -> None:
        if self.relay is not None and self.relay.poll() is None:
            self.faults["relay killed"] += 1
        self.end_relay()
        self.start_relay()

    def kill_worker(self, _: random.Random) -> None:
        """With its children."""
        self.worker.kill()
        self.worker.start()
        self.faults["worker killed"] += 1

    def supervise(self) -> None:
        """Start again what has given up, as somebody does in earnest: a relay that finds no database when it begins,
        and a worker that finds no Redis when it reconnects, where kombu 5.7 stumbles over itself.
        """
        if self.relay is not None and self.relay.poll() is not None:
            self.start_relay()
        gave_up = self.worker.log().count(_GAVE_UP)
        if gave_up > self.given_up:
            self.given_up = gave_up
            self.worker.kill()
            self.worker.start()

    def kill_child(self, chance: random.Random) -> None:
        """A process of the pool that has a body in its hands, some time after it was seen."""
        end = time.monotonic() + 5.0
        while time.monotonic() < end:
            begun = {pid for (pid,) in self.noted("SELECT pid FROM body WHERE ended IS NULL ORDER BY id DESC LIMIT 8")}
            victims = sorted(begun & set(self.worker.children()))
            if victims:
                time.sleep(chance.uniform(0, 0.05))
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(victims), signal.SIGKILL)
                    self.faults["child killed"] += 1
                    return
            time.sleep(0.005)

    def restart_broker(self, chance: random.Random) -> None:
        self.broker.kill()
        time.sleep(chance.uniform(0, 0.3))
        self.broker.start()
        self.faults["broker restarted"] += 1

    def refuse_database(self, chance: random.Random) -> None:
        """Every session ends, and no other one begins for a while."""
        with psycopg.connect(self.database.server_url, autocommit=True) as admin:
            name = sql.Identifier(self.database.name)
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
            self._terminate(admin)
            time.sleep(chance.uniform(0, 0.8))
            admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
        self.faults["database refused"] += 1

    def terminate_sessions(self, _: random.Random) -> None:
        with psycopg.connect(self.database.server_url, autocommit=True) as admin:
            self._terminate(admin)
        self.faults["sessions terminated"] += 1

    def recover(self) -> None:
        """Nobody calls any more; wait until every run and call has come to its end, for as long as more of them do."""
        for producer in self.producers:
            producer.terminate()
            # It may not have come so far as to heed it.
            assert producer.wait(_LONGEST) in {0, -signal.SIGTERM}
        while left := self.waiting():
            told = f"{len(left)} do not end: {left[:5]}."
            until(lambda: len(self.waiting()) < len(left), told, self.worker, seconds=_LONGEST, every=0.1)

    def waiting(self) -> list[tuple[Any, ...]]:
        """Runs that have not ended, and accepted calls that nobody has executed and that have no run."""
        self.supervise()
        runs = self.place.rows(
            "SELECT run_id::text, metadata ->> 'celery_task', status, attempt FROM runs"
            " WHERE status IN ('pending', 'queued', 'running')"
        )
        known = self.place.rows("SELECT coalesce(metadata ->> 'celery_task_id', run_id::text) FROM runs")
        executed = self.noted("SELECT task_id FROM body WHERE ended IS NOT NULL")
        settled = {task_id for (task_id,) in (*known, *executed)}
        calls = self.noted("SELECT task_id, kind FROM accepted")
        return [*runs, *(call for call in calls if call[0] not in settled)]

    def noted(self, query: LiteralString) -> list[tuple[Any, ...]]:
        return ask(self.notes.url, query)

    def end_relay(self) -> None:
        if self.relay is not None:
            self.relay.kill()
            self.relay.wait()
            self.relay = None

    def end(self) -> None:
        self.end_relay()
        for producer in self.producers:
            producer.kill()
            producer.wait()

    def _terminate(self, admin: psycopg.Connection[Any]) -> None:
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self.database.name])

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words,
            cwd=REPOSITORY,
            env=self.place.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@contextmanager
def parts_of(place: Place, database: Database, notes: Database, broker: RedisServer) -> Iterator[Parts]:
    with ExitStack() as stack:
        made = Parts(place, database, notes, broker, stack.enter_context(place.worker(3)))
        stack.callback(made.end)
        made.start_relay()
        yield made
