"""An application at work on the legacy tables: every kind of write, at every isolation level, with a record of what it
committed to the rows that are its own.
"""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from typing import Any

import psycopg

LEVELS = (
    psycopg.IsolationLevel.READ_COMMITTED,
    psycopg.IsolationLevel.REPEATABLE_READ,
    psycopg.IsolationLevel.SERIALIZABLE,
)
# Rows that all writers update: those of the history, by number.
SHARED = 200


@dataclass
class Told:
    """What a writer tells at its end. ``mine``: key to the error text that its row has, None where it is deleted.
    ``errors`` other than those that concurrent writers of the same rows earn; ``longest`` statement in seconds.
    """

    mine: dict[str, str | None] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    commits: int = 0
    contended: int = 0
    longest: float = 0.0


class _Writer:
    def __init__(self, connection: psycopg.Connection[Any], chance: random.Random) -> None:
        self.connection = connection
        self.chance = chance
        self.told = Told()
        self.feeds = [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(3)]
        self.keys: list[str] = []
        self.active: dict[str, str] = {}

    def run(self, statement: str, *values: object) -> None:
        began = time.monotonic()
        self.connection.execute(statement.encode(), values)
        self.told.longest = max(self.told.longest, time.monotonic() - began)

    def key(self) -> str:
        return str(uuid.UUID(int=self.chance.getrandbits(128), version=4))

    def text(self) -> str:
        return f"{self.chance.getrandbits(64):x}"

    def insert(self, key: str, text: str, *, status: str = "completed", feed: str | None = None) -> None:
        self.run(
            "INSERT INTO executions (execution_id, pipeline_name, status, feed_id, error)"
            " VALUES (%s, 'live', %s, %s, %s)",
            *(key, status, feed, text),
        )

    def act(self) -> dict[str, str | None]:
        """One transaction's writes; gives what it makes of rows that are our own."""
        acts = (self.new, self.new, self.change, self.change, self.remove, self.again, self.rename, self.flip)
        return self.chance.choice((*acts, self.shared, self.event, self.odd, self.link))()

    def new(self) -> dict[str, str | None]:
        key, text = self.key(), self.text()
        self.insert(key, text)
        return {key: text}

    def _own(self) -> str:
        return self.chance.choice(self.keys) if self.keys else ""

    def change(self) -> dict[str, str | None]:
        key, text = self._own(), self.text()
        if not key:
            return self.new()
        self.run("UPDATE executions SET error = %s, retry_count = retry_count + 1 WHERE execution_id = %s", text, key)
        return {key: text}

    def remove(self) -> dict[str, str | None]:
        key = self._own()
        if not key:
            return self.new()
        self.run("DELETE FROM execution_events WHERE execution_id = %s", key)
        self.run("DELETE FROM executions WHERE execution_id = %s", key)
        return {key: None}

    def again(self) -> dict[str, str | None]:
        """Deleted and inserted once more in one transaction."""
        gone = self.remove()
        text = self.text()
        for key in gone:
            self.run("DELETE FROM executions WHERE execution_id = %s", key)
            self.insert(key, text)
        return dict.fromkeys(gone, text)

    def rename(self) -> dict[str, str | None]:
        old, key, text = self._own(), self.key(), self.text()
        if not old:
            return self.new()
        self.run("DELETE FROM execution_events WHERE execution_id = %s", old)
        self.run("UPDATE executions SET execution_id = %s, error = %s WHERE execution_id = %s", key, text, old)
        return {old: None, key: text}

    def flip(self) -> dict[str, str | None]:
        """The active row of a feed ends, another begins."""
        feed, key, text = self.chance.choice(self.feeds), self.key(), self.text()
        self.run("UPDATE executions SET status = 'completed' WHERE feed_id = %s AND status = 'running'", feed)
        self.insert(key, text, status="running", feed=feed)
        return {key: text}

    def shared(self) -> dict[str, str | None]:
        """Rows of the history, many at once, in an order that all writers keep."""
        first = self.chance.randrange(SHARED)
        self.run(
            "UPDATE executions SET result = %s::jsonb WHERE execution_id IN (SELECT execution_id FROM executions"
            " WHERE pipeline_name = 'ingest' ORDER BY execution_id OFFSET %s LIMIT 40)",
            f'{{"n": {self.chance.random()}}}',
            first,
        )
        return {}

    def event(self) -> dict[str, str | None]:
        self.run(
            "INSERT INTO execution_events (execution_id, event_type) SELECT execution_id, 'progress' FROM executions"
            " WHERE pipeline_name = 'ingest' ORDER BY execution_id OFFSET %s LIMIT 5",
            self.chance.randrange(SHARED),
        )
        return {}

    def odd(self) -> dict[str, str | None]:
        """A status that the mapping does not know, in a transaction of its own; it is mended at once."""
        key = self._own()
        if not key:
            return self.new()
        self.run("UPDATE executions SET status = 'odd' WHERE execution_id = %s AND status = 'completed'", key)
        self.connection.commit()
        while True:
            try:
                self.run("UPDATE executions SET status = 'completed' WHERE execution_id = %s AND status = 'odd'", key)
                self.connection.commit()
            except psycopg.errors.SerializationFailure:
                self.connection.rollback()
            else:
                return {}

    def link(self) -> dict[str, str | None]:
        """A child that points to a row which may come, go or never be there."""
        key, text = self.key(), self.text()
        self.insert(key, text)
        self.run("UPDATE executions SET parent_execution_id = %s WHERE execution_id = %s", self._own() or None, key)
        return {key: text}


def write(url: str, seed: int, stop: Event, results: Queue[Told], rate: float) -> None:
    """Until ``stop``, at most ``rate`` transactions a second; in a process of its own."""
    chance = random.Random(seed)
    with psycopg.connect(url) as connection:
        writer = _Writer(connection, chance)
        while not stop.is_set():
            connection.isolation_level = chance.choice(LEVELS)
            _once(connection, writer)
            time.sleep(chance.expovariate(rate))
    results.put(writer.told)


def _once(connection: psycopg.Connection[Any], writer: _Writer) -> None:
    told = writer.told
    try:
        made = writer.act()
        if writer.chance.random() < 0.02:
            time.sleep(writer.chance.uniform(0.2, 1.0))
        if writer.chance.random() < 0.05:
            connection.rollback()
            return
        connection.commit()
    except (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected):
        connection.rollback()
        told.contended += 1
        return
    except psycopg.Error as error:
        connection.rollback()
        told.errors.append(f"{error.sqlstate} {error}")
        return
    told.commits += 1
    told.mine.update(made)
    writer.keys = [key for key, text in told.mine.items() if text is not None][-300:]
