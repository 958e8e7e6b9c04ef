"""Two who write one row through the view at once: what a table would do, or a serialization failure, never less."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from secrets import token_hex
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from spine_migrate.db.connect import connect
from tests.database import Database, Role, fresh_database
from tests.legacy import build, uuid
from tests.views import switch

_BOUND = 60


@pytest.fixture(scope="module")
def database(server_url: str, owner: Role) -> Iterator[Database]:
    with fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as created:
        build(created)
        with connect(created.url) as tool:
            switch(tool, "capture-spine/executions")
        yield created


@pytest.fixture
def row(database: Database) -> str:
    """The key of a pending execution, committed."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("DELETE FROM executions")
        connection.execute(
            "INSERT INTO executions (execution_id, pipeline_name, retry_count) VALUES (%s, 'p', 0)", (uuid(1),)
        )
    return uuid(1)


class Second(threading.Thread):
    """A statement in a transaction of its own; ``wait`` says what came of it: rows, SQLSTATE."""

    def __init__(
        self, database: Database, statement: LiteralString, *, isolation: LiteralString = "READ COMMITTED"
    ) -> None:
        super().__init__(daemon=True)
        self.connection = psycopg.connect(database.url)
        self.connection.execute("SET TRANSACTION ISOLATION LEVEL " + isolation)
        self.statement = statement
        self.count = -1
        self.sqlstate: str | None = None

    def run(self) -> None:
        try:
            self.count = self.connection.execute(self.statement).rowcount
            self.connection.commit()
        except psycopg.Error as error:
            self.sqlstate = error.sqlstate
        finally:
            self.connection.close()

    def blocked(self, observer: psycopg.Connection[Any]) -> None:
        """Wait until it waits for another's lock."""
        pid = self.connection.info.backend_pid
        self.start()
        for _ in range(_BOUND * 100):
            with observer.cursor() as cursor:
                ((waits,),) = cursor.execute(
                    "SELECT cardinality(pg_blocking_pids(%s)) > 0 FROM pg_sleep(0.01)", (pid,)
                ).fetchall()
            if waits:
                return
        raise AssertionError("it never waited")

    def wait(self) -> tuple[int, str | None]:
        self.join(_BOUND)
        assert not self.is_alive()
        return self.count, self.sqlstate


def _race(
    database: Database, first: LiteralString, second: LiteralString, *, isolation: LiteralString = "READ COMMITTED"
) -> tuple[int, str | None]:
    """``first`` is done and open while ``second`` begins; then it commits. What came of ``second``: rows, SQLSTATE."""
    with psycopg.connect(database.url) as one, psycopg.connect(database.url, autocommit=True) as observer:
        one.execute(first)
        other = Second(database, second, isolation=isolation)
        other.blocked(observer)
        one.commit()
        return other.wait()


def _now(database: Database, columns: LiteralString) -> Any:
    with psycopg.connect(database.url) as connection:
        return connection.execute(sql.SQL("SELECT {} FROM executions").format(sql.SQL(columns))).fetchone()


def test_what_is_claimed_twice_is_granted_once(database: Database, row: str) -> None:
    claim: LiteralString = "UPDATE executions SET status = 'running' WHERE status = 'pending'"
    assert _race(database, claim, claim) == (-1, "40001")
    with psycopg.connect(database.url, autocommit=True) as connection:
        assert connection.execute(claim).rowcount == 0


def test_no_increment_is_lost(database: Database, row: str) -> None:
    more: LiteralString = "UPDATE executions SET retry_count = retry_count + 1"
    assert _race(database, more, more) == (-1, "40001")
    assert _now(database, "retry_count") == (1,)


def test_columns_that_one_of_them_leaves_alone_are_both_written(database: Database, row: str) -> None:
    first: LiteralString = "UPDATE executions SET status = 'running', params = '{\"a\": 1}'"
    second: LiteralString = "UPDATE executions SET backend_task_id = 'task', feed_id = execution_id"
    assert _race(database, first, second) == (1, None)
    assert _now(database, "status, params, backend_task_id, feed_id::text") == ("running", {"a": 1}, "task", row)


def test_a_condition_on_what_both_leave_to_the_other_is_not_looked_at_again(database: Database, row: str) -> None:
    """As the runbook says; who locks the row first sees it as it is."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("UPDATE executions SET status = 'queued'")
    cancel: LiteralString = "UPDATE executions SET status = 'cancelled' WHERE status = 'queued'"
    assert _race(database, cancel, "UPDATE executions SET error = 'late' WHERE status = 'queued'") == (1, None)
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("UPDATE executions SET status = 'queued'")
    assert _race(database, cancel, "SELECT FROM executions WHERE status = 'queued' FOR UPDATE") == (0, None)


def test_what_the_view_does_not_show_is_no_conflict(database: Database, row: str) -> None:
    assert _race(database, "UPDATE runs SET executor_name = 'celery'", "UPDATE executions SET status = 'failed'") == (
        1,
        None,
    )
    with psycopg.connect(database.url) as connection:
        assert connection.execute("SELECT executor_name, status FROM runs").fetchall() == [("celery", "failed")]


def test_a_row_that_is_gone_is_not_written(database: Database, row: str) -> None:
    assert _race(database, "DELETE FROM executions", "UPDATE executions SET status = 'failed'") == (0, None)
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("INSERT INTO executions (pipeline_name) VALUES ('p')")
    assert _race(database, "DELETE FROM executions", "DELETE FROM executions") == (0, None)


def test_a_row_that_was_moved_to_another_key_is_not_written(database: Database, row: str) -> None:
    first: LiteralString = "UPDATE executions SET execution_id = '00000000-0000-4000-8000-000000000002'"
    assert _race(database, first, "UPDATE executions SET status = 'failed'") == (0, None)
    assert _now(database, "status") == ("pending",)


def test_what_was_changed_is_not_deleted_unseen(database: Database, row: str) -> None:
    assert _race(database, "UPDATE executions SET status = 'queued'", "DELETE FROM executions") == (-1, "40001")
    assert _now(database, "status") == ("queued",)


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_stricter_isolation_fails_as_for_a_table(database: Database, row: str, isolation: LiteralString) -> None:
    first: LiteralString = "UPDATE executions SET status = 'running'"
    second: LiteralString = "UPDATE executions SET error = 'late'"
    assert _race(database, first, second, isolation=isolation) == (-1, "40001")


_REFER: LiteralString = (
    "INSERT INTO executions (execution_id, pipeline_name, parent_execution_id)"
    " VALUES ('00000000-0000-4000-8000-000000000002', 'child', '00000000-0000-4000-8000-000000000001')"
)
_GOES: tuple[LiteralString, ...] = (
    "DELETE FROM executions WHERE pipeline_name = 'p'",
    "UPDATE executions SET execution_id = '00000000-0000-4000-8000-000000000003' WHERE pipeline_name = 'p'",
)


def _refers_to(database: Database) -> object:
    with psycopg.connect(database.url) as connection:
        return connection.execute(
            "SELECT parent_execution_id::text FROM executions WHERE execution_id = %s", (uuid(2),)
        ).fetchone()


@pytest.mark.parametrize("goes", _GOES, ids=["delete", "rename"])
def test_a_key_goes_that_another_begins_to_point_to(database: Database, row: str, goes: LiteralString) -> None:
    """The legacy table has no foreign key, so it is deleted all the same, and the other goes on pointing to it."""
    assert _race(database, _REFER, goes) == (1, None)
    assert _refers_to(database) == (row,)


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("goes", _GOES, ids=["delete", "rename"])
def test_a_key_goes_that_another_points_to_unseen(
    database: Database, row: str, goes: LiteralString, isolation: LiteralString
) -> None:
    assert _race(database, _REFER, goes, isolation=isolation) == (-1, "40001")
    with psycopg.connect(database.url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL " + isolation)
        assert connection.execute(goes).rowcount == 1
    assert _refers_to(database) == (row,)


def test_what_a_native_run_points_to_is_deleted_by_nobody_and_is_followed(database: Database, row: str) -> None:
    with psycopg.connect(database.url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("INSERT INTO runs (kind, name, parent_run_id) VALUES ('task', 'native', %s)", (row,))
        with pytest.raises(psycopg.errors.ForeignKeyViolation) as caught, connection.transaction():
            connection.execute(_GOES[0])
        assert caught.value.diag.constraint_name == "runs_parent_run_id_fkey"
        connection.execute(_GOES[1])
        found = connection.execute("SELECT parent_run_id::text FROM runs WHERE name = 'native'").fetchone()
        assert found == (uuid(3),)
        connection.rollback()


def test_who_deletes_and_who_points_to_it_may_meet_in_a_deadlock(database: Database, row: str) -> None:
    """Which the table, without a foreign key, has no reason for. One of both goes on."""
    with psycopg.connect(database.url) as one, psycopg.connect(database.url, autocommit=True) as observer:
        one.execute(_REFER)
        one.execute("INSERT INTO executions (pipeline_name) VALUES ('other')")
        one.commit()
        one.execute("UPDATE executions SET error = 'late' WHERE pipeline_name = 'child'")
        other = Second(database, "DELETE FROM executions WHERE pipeline_name = 'p'")
        other.blocked(observer)
        state = None
        try:
            one.execute("UPDATE executions SET parent_execution_id = %s WHERE pipeline_name = 'other'", (row,))
            one.commit()
        except psycopg.errors.DeadlockDetected as error:
            state = error.sqlstate
            one.rollback()
        assert {state, other.wait()[1]} == {None, "40P01"}


def test_two_inserts_of_one_key(database: Database, row: str) -> None:
    new: LiteralString = "INSERT INTO executions (execution_id, pipeline_name) VALUES (md5('new')::uuid, 'p')"
    assert _race(database, new, new) == (-1, "23505")


def test_a_row_that_a_join_meets_twice_is_updated_once(database: Database, row: str) -> None:
    """As for a table; in a savepoint too, whose transaction id is another, and beside a transaction that is older."""
    with psycopg.connect(database.url) as older, psycopg.connect(database.url) as connection:
        older.execute("INSERT INTO runs (kind, name) VALUES ('task', 'older')")
        connection.execute("SELECT 1")
        for text in ("a", "b"):
            with connection.transaction():
                updated = connection.execute(
                    "UPDATE executions SET error = coalesce(error, '') || x.text"
                    " FROM (SELECT %s::text FROM generate_series(1, 2)) AS x (text)",
                    (text,),
                )
                assert updated.rowcount == 1
        assert connection.execute("SELECT error FROM executions").fetchall() == [("ab",)]
        assert connection.execute("DELETE FROM executions USING generate_series(1, 2)").rowcount == 1
        older.rollback()


def test_workers_with_skip_locked_share_rows_out(database: Database, row: str) -> None:
    """The lock of a SELECT through the view is on the target's row, and is looked at again when it is had."""
    take: LiteralString = (
        "UPDATE executions SET status = 'running' WHERE execution_id = (SELECT execution_id FROM executions"
        " WHERE status = 'pending' ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING execution_id::text"
    )
    with psycopg.connect(database.url) as one, psycopg.connect(database.url) as other:
        one.execute("INSERT INTO executions (pipeline_name) VALUES ('second')")
        one.commit()
        first, second = one.execute(take).fetchall(), other.execute(take).fetchall()
        assert len(first) == len(second) == 1
        assert first != second
        assert other.execute(take).fetchall() == []


def test_inserts_of_serializable_transactions_do_not_meet(database: Database, row: str) -> None:
    """Neither in the note of writes nor in what a reference that is not there might point to: of a small table that
    was analyzed the server reads every row, and locks all of it.
    """
    with psycopg.connect(database.admin_url, autocommit=True) as superuser:
        superuser.execute("VACUUM ANALYZE runs")
    with psycopg.connect(database.url) as one, psycopg.connect(database.url) as other:
        for connection in (one, other):
            connection.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            connection.execute("SET LOCAL statement_timeout = '30s'")
            connection.execute("INSERT INTO executions (pipeline_name) VALUES ('p')")
        one.commit()
        other.commit()
