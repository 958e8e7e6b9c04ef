"""The ledgers that the conformance suites run on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg_pool import ConnectionPool

from spine_shims import configure
from spine_shims.configuration import reset
from tests.database import Role, fresh_database
from tests.ledgers import AWKWARD_SCHEMA, Timed, emptied, in_memory, in_postgres, pool_of
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
def shimmed(server_url: str, owner: Role, redis_server_url: str) -> Iterator[Producer]:
    """A worker with the tasks of tests/shims_tasks.py, a relay and a producer, for all tests of a module."""
    with (
        shims_place(server_url, owner, redis_server_url) as place,
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
