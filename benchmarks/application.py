"""An application for the benchmarks of a live migration: one mix of statements, several connections, each a process.

Two ways of driving it. At a fixed rate, open-loop: statements are due at times that are drawn beforehand, whether the
last one has been answered or not, and each is measured from when it was due, so that a stall counts for all that it
held up (no coordinated omission). Closed-loop, each connection one statement after the other, as fast as they are
answered: only this says what throughput there is, and nothing of it is said about latencies.
"""

from __future__ import annotations

import itertools
import multiprocessing
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection as Pipe
from typing import Any, LiteralString

import psycopg

from benchmarks.history import History

CONNECTIONS = 4
# Statements a second; no more than this share of what there is time for, else queues would be measured.
RATE, _SHARE = 400.0, 0.15
# Rows of the history that a connection reads and writes, and of one batch.
_KEYS, _BATCH = 4000, 20
# Seconds from the order to the first statement, for all processes to have read it.
_AHEAD = 0.1
_WEIGHTS = {"read": 40, "update": 28, "insert": 14, "delete": 13, "batch": 5}
KINDS = tuple(_WEIGHTS)
_STATEMENTS: dict[str, LiteralString] = {
    "read": "SELECT * FROM executions WHERE execution_id = %s",
    "update": "UPDATE executions SET error = %s, completed_at = now() WHERE execution_id = %s",
    "insert": "INSERT INTO executions (execution_id, pipeline_name, status) VALUES (%s, 'measured', 'completed')",
    "delete": "DELETE FROM executions WHERE execution_id = %s",
    "batch": "UPDATE executions SET error = %s WHERE execution_id = ANY (%s::uuid[])",
}


@dataclass(frozen=True)
class Sample:
    """``due`` on the machine's monotonic clock; ``seconds`` from then to the answer."""

    due: float
    kind: str
    seconds: float


@dataclass
class Measured:
    """``again``: statements that were told to try again (40001), and did."""

    samples: list[Sample] = field(default_factory=list)
    seconds: float = 0.0
    again: int = 0

    def percentile(self, percent: float, *kinds: str) -> float:
        """In seconds, of these kinds of statement, or of all."""
        found = sorted(one.seconds for one in self.samples if not kinds or one.kind in kinds)
        return found[min(len(found) - 1, int(len(found) * percent / 100))]

    @property
    def throughput(self) -> float:
        """Statements per second."""
        return len(self.samples) / self.seconds


class Application:
    """Made by ``application``."""

    def __init__(self, pipes: Sequence[Pipe]) -> None:
        self._pipes = pipes

    def at_rate(self, seconds: float, rate: float) -> Measured:
        """``rate``: statements per second of all connections together."""
        return self._measured(seconds, rate)

    def calm_rate(self, seconds: float) -> float:
        """Well under what it can do on this machine at present, measured for so long; it is warm then, too."""
        return min(RATE, _SHARE * self.at_full_speed(seconds).throughput)

    def at_full_speed(self, seconds: float) -> Measured:
        return self._measured(seconds, None)

    @contextmanager
    def meanwhile(self, rate: float) -> Iterator[Measured]:
        """As ``at_rate``, for as long as the block takes; what was measured is there after it."""
        measured = Measured()
        began = self._order(None, rate)
        try:
            yield measured
        finally:
            measured.seconds = time.monotonic() - began
            for pipe in self._pipes:
                pipe.send("enough")
            self._collect(measured)

    def _measured(self, seconds: float, rate: float | None) -> Measured:
        self._order(seconds, rate)
        measured = Measured(seconds=seconds)
        self._collect(measured)
        return measured

    def _order(self, seconds: float | None, rate: float | None) -> float:
        start = time.monotonic() + _AHEAD
        for pipe in self._pipes:
            pipe.send((start, seconds, None if rate is None else rate / len(self._pipes)))
        return start

    def _collect(self, measured: Measured) -> None:
        for pipe in self._pipes:
            answer = pipe.recv()
            assert isinstance(answer, Measured), answer
            measured.samples += answer.samples
            measured.again += answer.again


@contextmanager
def application(history: History, *, connections: int = CONNECTIONS) -> Iterator[Application]:
    """Sessions of a running application, with default settings. Each has keys of its own, so that what waits for a
    lock waits for ours.
    """
    with history.connect() as connection:
        found = connection.execute("SELECT execution_id::text FROM executions ORDER BY execution_id").fetchall()
    keys = [key for (key,) in found]
    random.Random(7).shuffle(keys)
    # Not forked: the parent has sessions and threads.
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    try:
        for number in range(connections):
            ours, theirs = spawn.Pipe()
            mine = keys[number::connections][:_KEYS]
            processes.append(spawn.Process(target=_session, args=(history.url, number, mine, theirs), daemon=True))
            processes[-1].start()
            # Else its end would not be heard of.
            theirs.close()
            pipes.append(ours)
        for pipe in pipes:
            pipe.recv()
        yield Application(pipes)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(timeout=30)


def _session(url: str, number: int, keys: list[str], pipe: Pipe) -> None:
    session = _Session(url, number, keys)
    pipe.send("ready")
    while True:
        try:
            start, seconds, rate = pipe.recv()
        except EOFError:
            return
        try:
            if seconds is not None:
                answer = session.run(start, rate, until=partial(_is_past, start + seconds))
            else:
                answer = session.run(start, rate, until=pipe.poll)
                pipe.recv()
            pipe.send(answer)
        except psycopg.Error as error:
            pipe.send(repr(error))
            raise


class _Session:
    def __init__(self, url: str, number: int, keys: list[str]) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._random = random.Random(number)
        self._keys = keys
        self._made: deque[uuid.UUID] = deque()

    def run(self, start: float, rate: float | None, *, until: Callable[[], bool]) -> Measured:
        measured = Measured()
        _sleep_until(start)
        for due in self._open(start, rate) if rate is not None else _closed():
            if until():
                break
            _sleep_until(due)
            kind = self._kind()
            values = self._values(kind)
            while not self._done(kind, values):
                measured.again += 1
            measured.samples.append(Sample(due, kind, time.monotonic() - due))
        return measured

    def _open(self, start: float, rate: float) -> Iterator[float]:
        """One moment in each interval, so that sessions keep no step with each other, or with anything."""
        for number in itertools.count():
            yield start + (number + self._random.random()) / rate

    def _kind(self) -> str:
        (kind,) = self._random.choices(KINDS, weights=list(_WEIGHTS.values()))
        return "insert" if kind == "delete" and not self._made else kind

    def _values(self, kind: str) -> list[Any]:
        match kind:
            case "insert":
                key = uuid.uuid4()
                self._made.append(key)
                return [key]
            case "delete":
                return [self._made.popleft()]
            case "batch":
                return ["measured", self._random.sample(self._keys, _BATCH)]
            case "update":
                return ["measured", self._random.choice(self._keys)]
            case _:
                return [self._random.choice(self._keys)]

    def _done(self, kind: str, values: list[Any]) -> bool:
        """False where the server says to try again."""
        try:
            cursor = self._connection.execute(_STATEMENTS[kind], values)
        except psycopg.errors.SerializationFailure:
            return False
        expected = _BATCH if kind == "batch" else 1
        assert cursor.rowcount == expected, (kind, cursor.rowcount)
        return True


def _closed() -> Iterator[float]:
    while True:
        yield time.monotonic()


def _is_past(moment: float) -> bool:
    return time.monotonic() >= moment


def _sleep_until(moment: float) -> None:
    if (left := moment - time.monotonic()) > 0:
        time.sleep(left)
