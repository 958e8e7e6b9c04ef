"""The database under the storm, and its writers."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.context import SpawnProcess
from pathlib import Path

import psycopg
from psycopg import sql

from spine_migrate.db import schema
from spine_migrate.db.embedded import EmbeddedServer
from spine_migrate.demo.generate import generate
from tests.chaos.storm.own import Given
from tests.chaos.storm.record import Told, read
from tests.chaos.storm.writer import Signals, signals, write
from tests.database import create_role, url_for

# Asynchronous commits, as the tool makes them, are lost by a crash for as long as this.
SETTINGS = {"wal_writer_delay": "5s", "wal_writer_flush_after": "64MB", "log_lock_waits": "on"}
# Rows of the history that all writers update, and that each has for itself.
SHARED, EACH = 200, 50
FEEDS = 4
# Seconds in which every writer comes to a halt.
_HALT = 60.0


@dataclass(frozen=True)
class Stage:
    url: str
    given: list[Given]


def prepare(server: EmbeddedServer, *, executions: int, writers: int, seed: int) -> Stage:
    """A history, the target's empty tables, and what the writers need, in the database of an ordinary role."""
    role = create_role(server.url(), "dba")
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE spine OWNER {}").format(sql.Identifier(role.name)))
    url = url_for(server.url(), "spine", role)
    with psycopg.connect(url) as connection:
        generate(connection, executions=executions, jobs=executions // 4, events_per_execution=2, seed=seed, awkward=0)
        connection.execute("CREATE SCHEMA storm")
        connection.execute("CREATE TABLE storm.witness (writer integer, number integer, PRIMARY KEY (writer, number))")
        connection.execute("CREATE TABLE storm.truncated (n integer NOT NULL)")
        connection.execute("INSERT INTO storm.truncated VALUES (0)")
        connection.execute(
            "CREATE TABLE storm.feed AS SELECT gen_random_uuid() AS feed_id FROM generate_series(1, %s)", (FEEDS,)
        )
        connection.execute("ANALYZE")
        rows = connection.execute(
            "SELECT e.execution_id::text, e.status, e.error,"
            " (SELECT count(*) FROM execution_events v WHERE v.execution_id = e.execution_id)"
            " FROM executions e ORDER BY md5(e.execution_id::text) LIMIT %s",
            (SHARED + EACH * writers,),
        ).fetchall()
        feeds = [str(feed) for (feed,) in connection.execute("SELECT feed_id FROM storm.feed")]
    schema.upgrade(url)
    shared = sorted(row[0] for row in rows[:SHARED])
    return Stage(
        url,
        [
            Given({row[0]: (row[1], row[2], row[3]) for row in rows[SHARED + n :: writers]}, shared, feeds)
            for n in range(writers)
        ],
    )


@dataclass
class Writers:
    """``phases``: names, by the numbers that the records have."""

    folder: Path
    signals: Signals
    processes: list[SpawnProcess] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)
    _since: float = 0.0

    def phase(self, name: str) -> None:
        """From now on, what they do counts for this one."""
        self._spend()
        self.phases.append(name)
        self.signals.phase.value = len(self.phases) - 1

    def _spend(self) -> None:
        now = time.monotonic()
        if self.phases:
            self.spent[self.phases[-1]] = self.spent.get(self.phases[-1], 0.0) + now - self._since
        self._since = now

    @contextmanager
    def halted(self) -> Iterator[Told]:
        """Between transactions, with no doubt about any."""
        self.halt()
        yield read(self.paths)
        self._since = time.monotonic()
        self.signals.go.set()

    def halt(self) -> None:
        self._spend()
        self.signals.go.clear()
        end = time.monotonic() + _HALT
        for number in range(len(self.processes)):
            self.signals.idle[number] = 0
        while not all(self.signals.idle[:]):
            self.well()
            assert time.monotonic() < end, "the writers do not come to a halt"
            time.sleep(0.02)

    def well(self) -> None:
        """None has met an error, and all are there."""
        if self.signals.trouble.is_set() or not all(one.is_alive() for one in self.processes):
            time.sleep(0.2)
            met = [entry for entry in self.told().entries if entry.outcome == "error"]
            raise AssertionError(
                f"writers met errors: {[(self.phases[one.phase], one.level, one.acts, one.detail) for one in met]}; "
                f"exit codes {[one.exitcode for one in self.processes]}"
            )

    def told(self) -> Told:
        return read(self.paths, settled=False)


@contextmanager
def writing(stage: Stage, folder: Path, chance: random.Random, *, rate: float) -> Iterator[Writers]:
    """A writer for each of ``stage.given``, halted at first."""
    context = multiprocessing.get_context("spawn")
    writers = Writers(folder, signals(context, len(stage.given)))
    for number, given in enumerate(stage.given):
        path = folder / f"writer-{number}.jsonl"
        path.touch()
        given_to = {"url": stage.url, "number": number, "seed": chance.randrange(10**6), "given": given}
        process = context.Process(
            target=write, kwargs={**given_to, "told": writers.signals, "path": path, "rate": rate}
        )
        process.start()
        writers.processes.append(process)
        writers.paths.append(path)
    try:
        yield writers
    finally:
        writers.signals.stop.set()
        writers.signals.go.set()
        for process in writers.processes:
            process.join(_HALT)
            if process.is_alive():
                process.kill()
