"""The ledgers that the conformance suites run on, and dispatchers on them."""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg_pool import ConnectionPool

from spine_migrate.db import schema
from spine_migrate.execution import (
    SyncDispatcher,
)
from spine_migrate.execution.ledgers.memory import MemoryLedger
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.ledgers.protocol import Ledger
from spine_migrate.parity.options import Finding
from spine_shims import configure
from spine_shims.configuration import reset
from tests import views
from tests.carrier import Carrier
from tests.comparing import using
from tests.database import Database, Role, fresh_database
from tests.ledgers import AWKWARD_SCHEMA, Timed, emptied, in_memory, in_postgres, pool_of
from tests.legacy import build, filled
from tests.lives import Moved, compared, fill
from tests.shims_place import Producer, Site, producing, relay_of, shims_place
from tests.shims_tasks import MODES


@pytest.fixture(scope="session")
def ledger_pool(server_url: str, owner: Role) -> Iterator[ConnectionPool[Any]]:
    """One database for all tests of a session: making the tables takes longer than most of them."""
    with fresh_database(server_url, f"{owner.name}_ledger", owner) as database, pool_of(database.url) as pool:
        yield pool


@pytest.fixture(scope="session")
def awkward_pool(server_url: str, owner: Role) -> Iterator[ConnectionPool[Any]]:
    with fresh_database(server_url, f"{owner.name}_awkward", owner) as database:
        with psycopg.connect(database.url) as connection:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(AWKWARD_SCHEMA)))
        with pool_of(database.url, AWKWARD_SCHEMA) as pool:
            yield pool


@pytest.fixture
def postgres(ledger_pool: ConnectionPool[Any]) -> Timed:
    emptied(ledger_pool)
    return in_postgres(ledger_pool)


@pytest.fixture(params=["memory", "postgres", "postgres in an awkward schema"])
def timed(request: pytest.FixtureRequest) -> Timed:
    if request.param == "memory":
        return in_memory()
    if request.param == "postgres":
        found: Timed = request.getfixturevalue("postgres")
        return found
    pool = request.getfixturevalue("awkward_pool")
    emptied(pool, AWKWARD_SCHEMA)
    return in_postgres(pool, AWKWARD_SCHEMA)


@pytest.fixture(scope="module")
def place(server_url: str, owner: Role) -> Iterator[Database]:
    """One for the module: each test has runs of its own."""
    with fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database:
        database.arrange(schema.upgrade)
        yield database


@pytest.fixture(params=["memory", "postgres"])
def ledger(request: pytest.FixtureRequest) -> Iterator[Ledger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    with ConnectionPool(request.getfixturevalue("place").url, min_size=1, max_size=4) as pool:
        yield PostgresLedger(pool)


@pytest.fixture
def carrier() -> Carrier:
    return Carrier()


@pytest.fixture
def dispatcher(carrier: Carrier, ledger: Ledger) -> SyncDispatcher:
    return SyncDispatcher(carrier, ledger)


@pytest.fixture(scope="module")
def shimmed(server_url: str, owner: Role, redis_server_url: str) -> Iterator[Producer]:
    """A worker with the tasks of tests/shims_tasks.py, a relay and a producer, for all tests of a module."""
    with (
        shims_place(server_url, owner, redis_server_url, variables={"SPINE_TEST_PATIENT": "1"}) as place,
        place.worker() as worker,
        relay_of(place),
        producing(place, worker) as producer,
    ):
        yield producer


@pytest.fixture(params=MODES)
def site(request: pytest.FixtureRequest, shimmed: Producer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The producer in one mode; what was executed before is forgotten."""
    monkeypatch.setenv("SPINE_TEST_NOTES_URL", shimmed.place.url)
    configure(shimmed.dispatcher)
    shimmed.app.set_current()
    shimmed.forget()
    yield shimmed.site(request.param)
    reset()


@pytest.fixture(params=[Finding.JOIN, Finding.BUCKETS], ids=lambda method: method.value)
def method(request: pytest.FixtureRequest) -> Iterator[None]:
    with using(request.param):
        yield


@pytest.fixture(scope="module")
def moved_lives(server_url: str, owner: Role) -> Iterator[Moved]:
    with fresh_database(server_url, f"{owner.name}_lives", owner) as database:
        legacy = build(database)
        fill(legacy)
        for entity in ("executions", "execution_events"):
            legacy.move(entity)
        yield Moved(legacy, compared(database.url).comparisons)


@pytest.fixture(scope="module")
def strict(server_url: str, owner: Role) -> Iterator[Database]:
    """``tests.views.strict``; what the tests of a module do there is rolled back."""
    with fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as database:
        filled(database, views.strict)
        yield database


@pytest.fixture
def application(strict: Database) -> Iterator[psycopg.Connection[Any]]:
    """Whatever a test does is rolled back."""
    with psycopg.connect(strict.url) as connection:
        # From here on, a further transaction is a savepoint.
        connection.execute("SELECT")
        yield connection
        connection.rollback()
