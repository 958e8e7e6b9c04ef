"""What the model of the protocol (tests/protocol/) takes from PostgreSQL, asked of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import IsolationLevel, errors

from tests.database import Database
from tests.waiting import until

UPSERT = "INSERT INTO target VALUES ('a', 2) ON CONFLICT (k) DO UPDATE SET v = EXCLUDED.v"


class Session:
    """One connection, in REPEATABLE READ unless told otherwise."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.connection.isolation_level = IsolationLevel.REPEATABLE_READ

    def do(self, statement: LiteralString) -> int:
        return self.connection.execute(statement).rowcount

    def ask(self, statement: LiteralString) -> list[Any]:
        return [row[0] for row in self.connection.execute(statement)]

    def commit(self) -> None:
        self.connection.commit()

    @property
    def pid(self) -> int:
        return self.connection.info.backend_pid


Open = Callable[[], Session]


@pytest.fixture
def session(database: Database) -> Iterator[Open]:
    """Sessions on a database with a source and a target, both empty."""
    with ExitStack() as sessions:

        def opened() -> Session:
            return Session(sessions.enter_context(database.connect()))

        first = opened()
        first.do("CREATE TABLE source (k text PRIMARY KEY, v int)")
        first.do("CREATE TABLE target (k text PRIMARY KEY, v int)")
        first.commit()
        yield opened


def waits_for(other: Session, watch: Session, act: Callable[[], Any], then: Callable[[], None]) -> Any:
    """What ``act`` gives after it had to wait for ``other``, which ends by ``then``. Raises what ``act`` raises."""
    watch.connection.rollback()
    watch.connection.autocommit = True
    with ThreadPoolExecutor(1) as pool:
        waiting: Future[Any] = pool.submit(act)

        def blocked() -> bool:
            assert not waiting.done(), f"it did not wait: {waiting.result()!r}"
            query = "SELECT 1 FROM pg_stat_activity WHERE %s = ANY (pg_blocking_pids(pid))"
            return bool(watch.connection.execute(query, [other.pid]).fetchall())

        until(blocked, "it does not wait")
        then()
        return waiting.result(60)


def test_a_delete_neither_sees_nor_awaits_an_uncommitted_insert(session: Open) -> None:
    batch, applier = session(), session()
    batch.do("INSERT INTO target VALUES ('a', 1)")
    assert applier.do("DELETE FROM target WHERE k = 'a'") == 0
    applier.commit()
    batch.commit()
    assert applier.ask("SELECT v FROM target") == [1]


def test_a_delete_passes_over_a_row_that_is_newer_than_its_snapshot(session: Open) -> None:
    batch, applier = session(), session()
    assert applier.ask("SELECT 1 FROM target") == []
    batch.do("INSERT INTO target VALUES ('a', 1)")
    batch.commit()
    assert applier.do("DELETE FROM target WHERE k = 'a'") == 0


def test_an_insert_waits_for_an_uncommitted_one_and_fails_on_it(session: Open) -> None:
    applier, batch, watch = session(), session(), session()
    applier.do("INSERT INTO target VALUES ('a', 2)")
    with pytest.raises(errors.UniqueViolation):
        waits_for(applier, watch, lambda: batch.do("INSERT INTO target VALUES ('a', 1)"), applier.commit)


def test_an_insert_fails_on_a_row_that_its_snapshot_does_not_see(session: Open) -> None:
    applier, batch = session(), session()
    assert batch.ask("SELECT 1 FROM target") == []
    applier.do("INSERT INTO target VALUES ('a', 2)")
    applier.commit()
    with pytest.raises(errors.UniqueViolation):
        batch.do("INSERT INTO target VALUES ('a', 1)")


def test_an_insert_finds_the_place_of_a_row_free_that_came_and_went_since_its_snapshot(session: Open) -> None:
    applier, batch = session(), session()
    assert batch.ask("SELECT 1 FROM target") == []
    applier.do("INSERT INTO target VALUES ('a', 2)")
    applier.commit()
    applier.do("DELETE FROM target")
    applier.commit()
    assert batch.do("INSERT INTO target VALUES ('a', 1)") == 1


def test_an_upsert_fails_on_a_row_that_its_snapshot_does_not_see(session: Open) -> None:
    batch, applier = session(), session()
    assert applier.ask("SELECT 1 FROM target") == []
    batch.do("INSERT INTO target VALUES ('a', 1)")
    batch.commit()
    with pytest.raises(errors.SerializationFailure):
        applier.do(UPSERT)


def test_an_upsert_in_read_committed_writes_over_a_row_that_its_snapshot_does_not_see(session: Open) -> None:
    """It waits in the statement, whose snapshot is older than the row it then overwrites."""
    applier, batch, watch = session(), session(), session()
    batch.connection.isolation_level = IsolationLevel.READ_COMMITTED
    applier.do("INSERT INTO target VALUES ('a', 3)")
    assert waits_for(applier, watch, lambda: batch.do(UPSERT), applier.commit) == 1
    assert batch.ask("SELECT v FROM target") == [2]


@pytest.mark.parametrize("statement", [UPSERT, "DELETE FROM target"])
def test_writing_a_row_that_was_changed_since_the_snapshot_fails(session: Open, statement: LiteralString) -> None:
    first, second = session(), session()
    first.do("INSERT INTO target VALUES ('a', 1)")
    first.commit()
    assert second.ask("SELECT v FROM target") == [1]
    first.do("UPDATE target SET v = 3")
    first.commit()
    with pytest.raises(errors.SerializationFailure):
        second.do(statement)


def test_an_upsert_inserts_where_the_row_it_saw_is_gone(session: Open) -> None:
    first, second = session(), session()
    first.do("INSERT INTO target VALUES ('a', 1)")
    first.commit()
    assert second.ask("SELECT v FROM target") == [1]
    first.do("DELETE FROM target")
    first.commit()
    assert second.do(UPSERT) == 1
    second.commit()
    assert first.ask("SELECT v FROM target") == [2]


def test_truncate_waits_for_whoever_has_read_the_table(session: Open) -> None:
    batch, writer, watch = session(), session(), session()
    assert batch.ask("SELECT 1 FROM source") == []
    waits_for(batch, watch, lambda: writer.do("TRUNCATE source"), batch.commit)


def test_after_a_truncate_an_older_snapshot_finds_the_table_empty(session: Open) -> None:
    writer, batch = session(), session()
    writer.do("INSERT INTO source VALUES ('a', 1)")
    writer.commit()
    assert batch.ask("SELECT 1 FROM target") == []
    writer.do("TRUNCATE source")
    writer.do("INSERT INTO source VALUES ('a', 2)")
    writer.commit()
    assert batch.ask("SELECT v FROM source") == []


def test_the_triggers_wait_for_writers_in_flight(session: Open) -> None:
    writer, tool, watch = session(), session(), session()
    tool.do("CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    tool.commit()
    writer.do("INSERT INTO source VALUES ('a', 1)")
    create: LiteralString = "CREATE TRIGGER t AFTER INSERT ON source EXECUTE FUNCTION nothing()"
    waits_for(writer, watch, lambda: tool.do(create), writer.commit)


def test_the_barrier_waits_for_whoever_holds_the_shared_lock_and_a_killed_session_holds_none(session: Open) -> None:
    batch, applier, watch = session(), session(), session()
    batch.do("SELECT pg_advisory_lock_shared(1)")
    batch.commit()

    def kill() -> None:
        watch.connection.execute("SELECT pg_terminate_backend(%s)", [batch.pid])

    waits_for(batch, watch, lambda: applier.do("SELECT pg_advisory_lock(1)"), kill)


def test_a_lock_on_the_table_comes_before_the_snapshot_where_it_is_the_first_statement(session: Open) -> None:
    """What was committed while it waited is seen in the same REPEATABLE READ transaction."""
    writer, cutover, watch = session(), session(), session()
    writer.do("INSERT INTO source VALUES ('a', 1)")
    waits_for(writer, watch, lambda: cutover.do("LOCK TABLE source"), writer.commit)
    assert cutover.ask("SELECT v FROM source") == [1]


def test_a_look_before_the_lock_sees_nothing_of_what_was_committed_in_between(session: Open) -> None:
    writer, cutover, watch = session(), session(), session()
    writer.do("INSERT INTO source VALUES ('a', 1)")
    assert cutover.ask("SELECT v FROM source") == []
    waits_for(writer, watch, lambda: cutover.do("LOCK TABLE source"), writer.commit)
    assert cutover.ask("SELECT v FROM source") == []
