"""Who holds a table for long stops neither the application nor us for long: each attempt ends, and its queue drains."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import LiteralString

import psycopg
import pytest

from spine_migrate.carry.tables import Tables
from spine_migrate.db import schema
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.db.patience import Patience
from spine_migrate.errors import Interrupted, Refused
from spine_migrate.mapping.emit.capture import Key
from spine_migrate.sync import capture
from spine_migrate.sync.start import start, stop_capture
from tests.carried import tables_of
from tests.cutting import Pair
from tests.database import Database
from tests.legacy import Legacy, build
from tests.syncing import capture_of, move_live
from tests.waiting import WAITING, until

_SECONDS = 3.0
# Seconds between two writes, and two looks: an attempt of ours takes 100 ms.
_OFTEN = 0.01
_PATIENCE = Patience(lock_timeout=100, seconds=_SECONDS)
_EXECUTION: LiteralString = "INSERT INTO executions (pipeline_name, status) VALUES ('app', 'pending')"
_RUN: LiteralString = "INSERT INTO runs (kind, name) VALUES ('task', 'app')"
_WRITES: LiteralString = "UPDATE executions SET error = 'held'"
_READS: LiteralString = "SELECT count(*) FROM executions"

# The statement of the application that waits for one of ours, by when it began.
_BEHIND_US: LiteralString = """
    SELECT w.query_start FROM pg_stat_activity w JOIN pg_stat_activity b ON b.pid = ANY (pg_blocking_pids(w.pid))
     WHERE w.application_name = 'app' AND b.application_name = 'spine-migrate' AND w.datname = current_database()"""


class Application:
    """One session that holds a table, one that writes to it all the time, and a look at who waits for whom."""

    def __init__(self, legacy: Legacy, held: LiteralString, write: LiteralString) -> None:
        self.legacy = legacy
        self.held = held
        self.write = write
        self.queued: set[object] = set()
        self.written = 0
        self.failed: list[psycopg.Error] = []
        self.over = threading.Event()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._write), threading.Thread(target=self._look)]
        with psycopg.connect(self.legacy.url, application_name="holder") as holder:
            holder.execute(self.held)
            for thread in threads:
                thread.start()
            try:
                yield
                # It still holds the table: nobody waited for that to end.
                before = self.written
                while self.written == before:
                    assert not self.failed
                    time.sleep(_OFTEN)
            finally:
                self.over.set()
                for thread in threads:
                    thread.join()

    def _write(self) -> None:
        with psycopg.connect(self.legacy.url, autocommit=True, application_name="app") as connection:
            while not self.over.is_set():
                try:
                    connection.execute(self.write)
                except psycopg.Error as error:
                    self.failed.append(error)
                    return
                self.written += 1
                self.over.wait(_OFTEN)

    def _look(self) -> None:
        with self.legacy.connect() as connection:
            while not self.over.is_set():
                self.queued |= {began for (began,) in connection.execute(_BEHIND_US)}
                self.over.wait(_OFTEN)


def install(legacy: Legacy) -> None:
    with connect(legacy.url, settings=PINNED) as connection:
        capture.install(
            connection,
            migration_id=1,
            direction="forward",
            relation=Name("public", "executions"),
            oid=legacy.value("SELECT 'executions'::regclass::oid"),
            key=Key.column("execution_id"),
            patience=_PATIENCE,
            stop=threading.Event(),
        )


def remove(legacy: Legacy) -> None:
    found = capture_of(legacy)
    with connect(legacy.url, settings=PINNED) as connection:
        capture.remove(connection, found, patience=_PATIENCE, stop=threading.Event())


def upgrade(legacy: Legacy) -> None:
    schema.upgrade(legacy.url, lock_timeout="100ms", lock_within=_SECONDS)


@pytest.fixture
def legacy(database: Database) -> Legacy:
    legacy = build(database)
    legacy.executions(1)
    return legacy


def held_up(
    legacy: Legacy, held: LiteralString, write: LiteralString, work: Callable[[], object], sentence: str
) -> None:
    """``work`` gives up with this sentence; writers were behind it more than once, and none of them failed."""
    application = Application(legacy, held, write)
    with application():
        # On a busy machine there are fewer attempts within the bound, and fewer looks.
        while len(application.queued) <= 1:
            with pytest.raises((Interrupted, Refused), match=sentence):
                work()
            assert not application.failed
    assert not application.failed


def test_capture_is_installed_and_removed(legacy: Legacy) -> None:
    legacy.move()
    text = r'within 3 s of attempts \(session \d+ of \S+ \(holder\) has ROW EXCLUSIVE on "public"."executions", idle'
    held_up(legacy, _WRITES, _EXECUTION, lambda: install(legacy), text)
    assert legacy.value("SELECT count(*) FROM spine_migrate.capture") == 0
    move_live(legacy)
    held_up(legacy, _READS, _EXECUTION, lambda: remove(legacy), "could not be locked within 3 s")
    assert legacy.value("SELECT count(*) FROM spine_migrate.capture") == 1
    remove(legacy)


def test_a_reader_of_the_target_does_not_keep_a_capture_from_being_stopped(legacy: Legacy) -> None:
    """What was built beside it for deletions stays until somebody can drop it."""
    move_live(legacy)
    found = capture_of(legacy)
    with legacy.connect() as reader, connect(legacy.url, settings={**PINNED, "lock_timeout": "50ms"}) as connection:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM runs")
        stop_capture(
            connection, tables_of(connection, "executions")[0], found, patience=_PATIENCE, stop=threading.Event()
        )
    assert legacy.value("SELECT count(*) FROM spine_migrate.capture") == 0


def test_an_index_that_waits_for_an_old_transaction_is_given_up(legacy: Legacy) -> None:
    """After the bound, or as soon as it is told to stop; the next start builds it."""
    told = threading.Event()
    with legacy.connect() as older:
        older.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        older.execute("SELECT count(*) FROM runs")
        with pytest.raises(
            Interrupted, match=r"did not end within 0.3 s \(.*session \d+ of \S+, idle in transaction for"
        ):
            begin(legacy, Patience(lock_timeout=100, seconds=0.3), told)

        def tell() -> None:
            """Once it waits for the transaction."""
            waits: LiteralString = WAITING + " AND l.locktype = 'virtualxid'"
            until(lambda: legacy.rows(waits), "nobody waits")
            told.set()

        telling = threading.Thread(target=tell)
        telling.start()
        with pytest.raises(Interrupted, match="Cancelled"):
            begin(legacy, Patience(lock_timeout=100, seconds=300), told)
        telling.join()
    move_live(legacy)
    assert legacy.value("SELECT count(*) FROM pg_index WHERE NOT indisvalid") == 0
    legacy.prove("executions")


def begin(legacy: Legacy, patience: Patience, stop: threading.Event) -> None:
    def prepare(connection: Connection, tables: Tables, migration_id: int) -> None:
        start(connection, tables, migration_id, patience=patience, stop=stop)

    legacy.move(prepare=prepare)


def test_cutover_and_rollback(legacy: Legacy) -> None:
    # What is looked at before each attempt takes longer than the attempt.
    pair = Pair(legacy, patience=Patience(lock_timeout=100, seconds=3 * _SECONDS))
    pair.begin()
    held_up(legacy, _READS, _EXECUTION, pair.switch, "could not be locked within 9 s")
    pair.switch()
    held_up(legacy, _READS, _EXECUTION, pair.back, r'\(holder\) has ACCESS SHARE on "public"."executions", idle')
    pair.back()
    legacy.prove("executions", "execution_events")


def test_the_schema_is_upgraded(legacy: Legacy) -> None:
    """A table that points to runs takes a lock on it that writers wait for."""
    schema.downgrade(legacy.url, revision="spine_0003")
    text = "canceling statement due to lock timeout.* in every attempt; nothing was changed"
    held_up(legacy, "INSERT INTO runs (kind, name) VALUES ('task', 'held')", _RUN, lambda: upgrade(legacy), text)
    assert schema.current(legacy.url).revision == "spine_0003"
    upgrade(legacy)
