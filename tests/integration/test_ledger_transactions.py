"""The ledger in an application's transaction and on its pool: what it joins, what it must not break, what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import IsolationLevel
from psycopg.rows import dict_row, namedtuple_row
from psycopg.types.json import set_json_dumps, set_json_loads
from psycopg_pool import ConnectionPool

from spine_migrate.execution import (
    BackendError,
    ConcurrencyError,
    ExecutionNotFoundError,
    InvalidSpecError,
    RunEvent,
    RunRecord,
    RunStatus,
    WorkSpec,
)
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.ledgers.protocol import RunFilter
from tests.conftest import StartServer
from tests.ledgers import Timed, kinds, pool_of

Pool = ConnectionPool[Any]
Connection = psycopg.Connection[Any]

FEED = {"entity_type": "feed", "entity_id": "7"}


def new(**fields: Any) -> RunRecord:
    return RunRecord(WorkSpec("task", "work", **fields))


@pytest.fixture
def caller(ledger_pool: Pool, postgres: Timed) -> Iterator[Connection]:
    """The application's own connection, and a table of its own."""
    with psycopg.connect(str(ledger_pool.conninfo)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS orders (n int PRIMARY KEY)")
        connection.execute("TRUNCATE orders")
        connection.commit()
        yield connection
        connection.rollback()


def orders(pool: Pool) -> list[int]:
    with pool.connection() as connection:
        return [n for (n,) in connection.execute("SELECT n FROM orders ORDER BY n")]


@pytest.mark.parametrize("order", ["run first", "data first"])
@pytest.mark.parametrize("commit", [True, False])
def test_a_run_shares_the_fate_of_the_callers_data(
    ledger_pool: Pool, postgres: Timed, caller: Connection, order: str, *, commit: bool
) -> None:
    ledger, run = postgres.ledger, new()
    if order == "data first":
        caller.execute("INSERT INTO orders VALUES (1)")
    ledger.create(run, connection=caller)
    ledger.record(RunEvent(run.run_id, "progress"), connection=caller)
    if order == "run first":
        caller.execute("INSERT INTO orders VALUES (1)")
    assert ledger.get(run.run_id) is None
    assert ledger.get(run.run_id, connection=caller) is not None
    caller.commit() if commit else caller.rollback()
    assert (ledger.get(run.run_id) is not None, orders(ledger_pool)) == (commit, [1] if commit else [])
    if commit:
        assert kinds(postgres, run.run_id) == ["created", "progress"]


def test_an_event_as_the_first_thing_of_a_transaction(postgres: Timed, caller: Connection) -> None:
    run_id = postgres.made()
    postgres.ledger.record(RunEvent(run_id, "progress"), connection=caller)
    caller.rollback()
    assert kinds(postgres, run_id) == ["created"]


@pytest.mark.parametrize("first", [True, False])
def test_a_refusal_does_not_break_the_callers_transaction(
    ledger_pool: Pool, postgres: Timed, caller: Connection, *, first: bool
) -> None:
    ledger = postgres.ledger
    busy = postgres.made(metadata=FEED)
    if not first:
        caller.execute("INSERT INTO orders VALUES (1)")
    with pytest.raises(ConcurrencyError) as caught:
        ledger.create(new(metadata=FEED), connection=caller)
    assert caught.value.run_id == busy
    with pytest.raises(InvalidSpecError, match="does not exist"):
        ledger.create(new(parent_run_id="12345678-1234-5678-1234-567812345678"), connection=caller)
    with pytest.raises(ExecutionNotFoundError):
        ledger.record(RunEvent("12345678-1234-5678-1234-567812345678", "progress"), connection=caller)
    with pytest.raises(InvalidSpecError, match="already"):
        ledger.create(RunRecord(WorkSpec("task", "work"), run_id=busy), connection=caller)
    stored = ledger.create(new(idempotency_key="k"), connection=caller)
    assert ledger.create(new(idempotency_key="k"), connection=caller) == stored
    caller.execute("INSERT INTO orders VALUES (2)")
    caller.commit()
    assert orders(ledger_pool) == ([2] if first else [1, 2])
    assert {run.run_id for run in ledger.list_runs()} == {busy, stored.run_id}


def test_a_caller_in_autocommit_mode_has_it_at_once(postgres: Timed, caller: Connection) -> None:
    caller.autocommit = True
    run = postgres.ledger.create(new(), connection=caller)
    assert postgres.ledger.get(run.run_id) == run
    with caller.transaction(force_rollback=True):
        other = postgres.ledger.create(new(), connection=caller)
    assert postgres.ledger.get(other.run_id) is None


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
@pytest.mark.parametrize("fields", [{"idempotency_key": "k"}, {"metadata": FEED}], ids=["key", "entity"])
def test_a_run_that_the_callers_snapshot_does_not_show(
    ledger_pool: Pool, postgres: Timed, caller: Connection, level: IsolationLevel, fields: dict[str, Any]
) -> None:
    """A clear error, after which the transaction can go on."""
    caller.isolation_level = level
    caller.execute("INSERT INTO orders VALUES (1)")
    first = postgres.made(**fields)
    with pytest.raises(ConcurrencyError, match=r"this transaction cannot see|has an active run already\.") as caught:
        postgres.ledger.create(new(**fields), connection=caller)
    assert caught.value.retryable
    caller.execute("INSERT INTO orders VALUES (2)")
    caller.commit()
    assert orders(ledger_pool) == [1, 2]
    assert [run.run_id for run in postgres.ledger.list_runs()] == [first]


def _strange(connection: Connection) -> None:
    """An application's own ways, all at once."""
    connection.row_factory = namedtuple_row
    connection.cursor_factory = psycopg.RawCursor
    connection.isolation_level = IsolationLevel.SERIALIZABLE
    connection.read_only = True
    connection.prepare_threshold = 0
    set_json_loads(lambda _: "an application's own", connection)
    set_json_dumps(lambda _: '"an application\'s own"', connection)
    connection.adapters.register_loader("uuid", psycopg.types.string.TextLoader)
    connection.adapters.register_loader("timestamptz", psycopg.types.string.TextLoader)
    connection.execute("SET DateStyle = 'German'")
    connection.execute("SET TimeZone = 'Asia/Kathmandu'")
    connection.execute("SET IntervalStyle = 'sql_standard'")
    connection.execute("SET standard_conforming_strings = off")
    connection.execute("SET default_transaction_isolation = 'repeatable read'")
    connection.commit()


def _dicts(connection: Connection) -> None:
    connection.row_factory = dict_row


def _autocommit(connection: Connection) -> None:
    connection.autocommit = True


def _read_only(connection: Connection) -> None:
    connection.read_only = True


def everything(ledger: PostgresLedger) -> None:
    """Every method once."""
    run = ledger.create(new(params={"a": [1]}, idempotency_key="k", metadata=FEED), lane_bound=5)
    assert ledger.create(new(idempotency_key="k")) == run == ledger.get(run.run_id)
    assert run.created_at.utcoffset() is not None
    assert run.spec.params == {"a": [1]}
    with pytest.raises(ConcurrencyError):
        ledger.create(new(metadata=FEED))
    assert ledger.get_many([run.run_id]) == [run]
    (summary,) = ledger.list_runs(RunFilter(since=run.created_at))
    assert summary == run.summary()
    assert ledger.publishable(1, again_in_seconds=0) == [run]
    ledger.mark_queued(run.run_id, "r", "e", claim_within_seconds=0)
    assert [one.run_id for one in ledger.unclaimed(1, again_in_seconds=0)] == [run.run_id]
    claim = ledger.claim(run.run_id, "w", lease_seconds=-1)
    ledger.renew(run.run_id, claim.fence, lease_seconds=-1)
    assert [one.status for one in ledger.reap(1, backoff_seconds=-1)] == ["pending"]
    fence = ledger.claim(run.run_id, "w", lease_seconds=60).fence
    ledger.record(RunEvent(run.run_id, "progress", {"n": [1]}))
    ledger.fail(run.run_id, "no", None, dead=True, fence=fence)
    ledger.reprocess(run.run_id)
    ledger.claim(run.run_id, "w", lease_seconds=60)
    assert ledger.complete(run.run_id, {"b": 1}).result == {"b": 1}
    assert [event.event_type for event in ledger.events(run.run_id)] == [
        "created", "queued", "started", "retry_scheduled", "started", "progress", "dead_lettered", "reprocessed",
        "started", "completed",
    ]  # fmt: skip
    assert ledger.events(run.run_id)[5].data == {"n": [1]}


@pytest.mark.parametrize("configure", [_strange, _dicts, _autocommit, _read_only])
def test_what_an_application_has_set_makes_no_difference_and_stays(
    ledger_pool: Pool, postgres: Timed, configure: Callable[[Connection], None]
) -> None:
    def facts(connection: Connection) -> list[object]:
        names = ("autocommit", "isolation_level", "read_only", "row_factory", "cursor_factory", "prepare_threshold")
        return [getattr(connection, name) for name in names]

    with ConnectionPool(str(ledger_pool.conninfo), min_size=1, max_size=1, configure=configure) as pool:
        with pool.connection() as connection:
            before = facts(connection)
        everything(PostgresLedger(pool))
        with pool.connection() as connection:
            assert facts(connection) == before


def test_a_database_whose_default_is_repeatable_read(ledger_pool: Pool, postgres: Timed) -> None:
    options = "-c default_transaction_isolation=serializable"
    with ConnectionPool(str(ledger_pool.conninfo), min_size=1, kwargs={"options": options}) as pool:
        everything(PostgresLedger(pool))


@contextmanager
def patient_pool(url: str, *, timeout: float) -> Iterator[Pool]:
    with ConnectionPool(url, min_size=1, max_size=1, timeout=timeout, reconnect_timeout=60) as pool:
        pool.wait()
        yield pool


def test_a_pool_without_a_free_connection(ledger_pool: Pool, postgres: Timed) -> None:
    run_id = postgres.made()
    with patient_pool(str(ledger_pool.conninfo), timeout=1.0) as pool:
        ledger = PostgresLedger(pool)
        with pool.connection(), pytest.raises(BackendError, match="The ledger cannot be reached") as caught:
            ledger.get(run_id)
        assert caught.value.retryable
        assert ledger.get(run_id) is not None
    with pytest.raises(BackendError, match="closed"):
        ledger.get(run_id)


@pytest.mark.parametrize(
    ("setting", "says"),
    [("statement_timeout=50", "statement timeout"), ("lock_timeout=50", "lock timeout")],
)
def test_a_server_that_gives_up_waiting(
    ledger_pool: Pool, postgres: Timed, caller: Connection, setting: str, says: str
) -> None:
    run_id = postgres.made()
    caller.execute("SELECT FROM run_handoff WHERE run_id = %s FOR UPDATE", [run_id])
    options = {"options": f"-c {setting}"}
    with ConnectionPool(str(ledger_pool.conninfo), min_size=1, kwargs=options) as pool:
        with pytest.raises(BackendError, match=says):
            PostgresLedger(pool).claim(run_id, "w", lease_seconds=60)
        caller.rollback()
    # A busy machine may take longer for any statement than that session may.
    assert postgres.ledger.claim(run_id, "w", lease_seconds=60).run.status is RunStatus.RUNNING


def test_a_standby_in_the_place_of_the_primary(ledger_pool: Pool, postgres: Timed) -> None:
    """What a server in recovery says, by way of a setting that says the same."""
    with ConnectionPool(str(ledger_pool.conninfo), min_size=1, configure=_only_reads) as pool:
        with pytest.raises(BackendError, match="read-only transaction"):
            PostgresLedger(pool).create(new())
        assert PostgresLedger(pool).list_runs() == []


def _only_reads(connection: Connection) -> None:
    connection.execute("SET default_transaction_read_only = on")
    connection.commit()


def test_a_session_that_is_ended(ledger_pool: Pool, postgres: Timed, caller: Connection) -> None:
    with patient_pool(str(ledger_pool.conninfo), timeout=20) as pool:
        ledger = PostgresLedger(pool)
        with pool.connection() as connection:
            pid = connection.info.backend_pid
        assert caller.execute("SELECT pg_terminate_backend(%s, 60000)", [pid]).fetchall() == [(True,)]
        with pytest.raises(BackendError, match=r"terminating connection|closed"):
            ledger.create(new())
        assert ledger.create(new()).status is RunStatus.PENDING


def test_a_server_that_goes_away_and_comes_back(start_server: StartServer) -> None:
    with start_server() as server, pool_of(server.url()) as pool:
        ledger = PostgresLedger(pool)
        run = ledger.create(new())
        server.stop()
        with pytest.raises(BackendError, match="The ledger cannot be reached"):
            ledger.claim(run.run_id, "w", lease_seconds=60)
        server.start()
        pool.check()
        assert ledger.claim(run.run_id, "w", lease_seconds=60).run.status is RunStatus.RUNNING
