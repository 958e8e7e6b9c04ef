"""The parts of the handoff that the chaos tests kill, and how: kill -9, always."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from spine_migrate.execution import SyncDispatcher
from tests.celery_worker import REPOSITORY, CeleryWorker, Place, until
from tests.command import PROGRAM
from tests.redis_server import RedisServer

#: So many that no run is given up for having met too many kills.
RETRIES = 50
#: Impatient, so that a test does not wait as long as an operator would.
_RELAY = ("--poll", "0.1", "--claim-within", "1", "--retry-lost-after", "0.1")
_GAVE_UP = "Unrecoverable error"
#: Seconds. Twice what the relay waits at most before it publishes a run once more.
_LONGEST = 2 * 64.0


class Handoff:
    """Broker, worker, relay and submitter, each to be killed. ``kills`` counts those that found their victim alive."""

    def __init__(self, place: Place, broker: RedisServer, worker: CeleryWorker, dispatcher: SyncDispatcher) -> None:
        self.place = place
        self.dispatcher = dispatcher
        self.worker = worker
        self.kills: Counter[str] = Counter()
        self._broker = broker
        self._given_up = 0
        self._relay: subprocess.Popen[bytes] | None = None

    def start_relay(self) -> None:
        words = [str(PROGRAM), "worker-relay", "--app", "tests.celery_app:executor", *_RELAY]
        self._relay = subprocess.Popen(
            words, cwd=REPOSITORY, env=self.place.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def submit(self, name: str, count: int, params: dict[str, object]) -> None:
        for _ in range(count):
            self.dispatcher.submit_task(name, params, max_retries=RETRIES, retry_delay_seconds=0)

    def kill_submitters(self, count: int) -> None:
        """Between commit and publish."""
        words = [sys.executable, "-m", "tests.chaos.submitter", str(count)]
        subprocess.run(words, check=True, cwd=REPOSITORY, env=self.place.environment(), timeout=300)
        self.kills["submitter"] += count

    def kill_broker(self, _: random.Random) -> None:
        self._broker.kill()
        self._broker.start()
        self.kills["broker"] += 1

    def kill_relay(self, _: random.Random) -> None:
        if self._relay is not None and self._relay.poll() is None:
            self.kills["relay"] += 1
        self.end_relay()
        self.start_relay()

    def kill_worker(self, _: random.Random) -> None:
        """With its children."""
        self.worker.kill()
        self.worker.start()
        self.kills["worker"] += 1

    def kill_child(self, chance: random.Random) -> None:
        """A process of the pool that has a run in its hands, as far as the ledger knows; the next one that has. One
        more run for each kill sees to it that somebody will.
        """
        self.submit("slow", 1, {"seconds": 0.3})
        until(self.at_work, "No process of the pool gets a run.", self.worker)
        for victim in chance.sample(found := self.at_work(), len(found)):
            with suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                self.kills["child"] += 1
                return

    def supervise(self) -> None:
        """Start a worker again that finds no Redis when it reconnects, where kombu 5.7 stumbles over itself."""
        gave_up = self.worker.log().count(_GAVE_UP)
        if gave_up > self._given_up:
            self._given_up = gave_up
            self.worker.kill()
            self.worker.start()

    def at_work(self) -> list[int]:
        self.supervise()
        claims = self.place.rows(
            "SELECT DISTINCT split_part(h.worker, ':', 2)::int FROM run_handoff h JOIN runs r USING (run_id)"
            " WHERE r.status = 'running'"
        )
        return sorted({pid for (pid,) in claims} & set(self.worker.children()))

    def deliver_again(self, count: int, chance: random.Random) -> None:
        """What the broker may do as well: the same message, once more."""
        runs = [str(run_id) for (run_id,) in self.place.rows("SELECT run_id FROM runs ORDER BY run_id")]
        for run in self.dispatcher.ledger.get_many(chance.sample(runs, min(count, len(runs)))):
            self.dispatcher.executor.submit(run)

    def end_relay(self) -> None:
        if self._relay is not None:
            self._relay.kill()
            self._relay.wait()
            self._relay = None

    def recover(self) -> None:
        """Wait until every run has ended, for as long as more of them do."""
        while waiting := self.waiting():
            until(
                lambda: self.waiting() < waiting,
                f"{waiting} runs do not end.",
                self.worker,
                seconds=_LONGEST,
                every=0.1,
            )

    def waiting(self) -> int:
        self.supervise()
        ((count,),) = self.place.rows("SELECT count(*) FROM runs WHERE status IN ('pending', 'queued', 'running')")
        return int(count)

    def statuses(self) -> dict[str, int]:
        return dict(self.place.rows("SELECT status, count(*) FROM runs GROUP BY status"))

    def prove(self) -> None:
        """By what handlers have written down themselves, and by the runs' events.

        A run whose lease never ran out was executed exactly once. Any other one at least once, and each attempt at most
        once: a lease that is alive keeps everybody else away.
        """
        assert set(self.statuses()) == {"completed"}
        histories = self.place.rows("""
            SELECT r.run_id::text, r.attempt,
                   (SELECT count(*) FROM executed e WHERE e.run_id = r.run_id),
                   (SELECT count(DISTINCT e.attempt) FROM executed e WHERE e.run_id = r.run_id),
                   (SELECT count(*) FROM run_events v WHERE v.run_id = r.run_id AND v.event_type = 'started'),
                   (SELECT count(*) FROM run_events v WHERE v.run_id = r.run_id AND v.event_type = 'retry_scheduled'),
                   (SELECT count(*) FROM run_events v WHERE v.run_id = r.run_id AND v.event_type = 'completed')
              FROM runs r
        """)
        for run_id, attempt, executions, attempts_executed, started, lost, completed in histories:
            assert completed == 1, run_id
            assert executions == attempts_executed, f"An attempt of {run_id} was executed twice"
            assert started == attempt == lost + 1, run_id
            assert 1 <= executions <= attempt, run_id


@contextmanager
def handoff(place: Place, broker: RedisServer) -> Iterator[Handoff]:
    with ExitStack() as stack:
        worker = stack.enter_context(place.worker(2))
        dispatcher = stack.enter_context(place.dispatcher())
        made = Handoff(place, broker, worker, dispatcher)
        stack.callback(made.end_relay)
        made.start_relay()
        yield made
