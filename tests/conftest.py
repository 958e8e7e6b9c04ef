"""Servers and databases for the tests.

Each pytest process (so each xdist worker) has one embedded PostgreSQL for its whole session. SPINE_TEST_PG_VERSION
picks its major version, 18 or 16; SPINE_TEST_PG_URL, a superuser's URL, names a real server to be used in its place.
Fixtures: ``server_url``, ``database`` (tests/database.py) and, for tests that crash or configure one, ``start_server``.
Likewise for Redis: ``redis_url``, an empty database of one server, which SPINE_TEST_REDIS_URL replaces by a real one,
and ``redis_server`` (tests/redis_server.py), a server of the test's own, to be killed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex
from types import MappingProxyType
from typing import Protocol

import pytest

from spine_migrate.db.embedded import EmbeddedServer
from spine_migrate.errors import ConfigurationError, Refused
from tests import redis_server as own_redis
from tests.database import Database, Role, create_role, drop_role, fresh_database
from tests.redis_server import RedisServer

_VERSION = int(os.environ.get("SPINE_TEST_PG_VERSION", "18"))

# Without fsync an aborted server still loses nothing, only an aborted machine would.
_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "60", "shared_buffers": "32MB"}

# Not in pytest's tmp_path: as root that is closed to the account the server runs as.
_FOLDERS = Path(tempfile.gettempdir())
_PREFIX = "spine-test-"


class StartServer(Protocol):
    """Start a server of the test's own with the session's version and settings, unless told otherwise."""

    def __call__(
        self, version: int = ..., settings: Mapping[str, str] = ..., *, port: int | None = None
    ) -> EmbeddedServer: ...


def pytest_sessionstart() -> None:
    """Remove what killed test runs left behind; a live run holds a lock on its folder and is passed over."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    for cluster in _FOLDERS.glob(f"{_PREFIX}*/cluster"):
        # Another session may be removing it at this moment.
        with suppress(Refused, ConfigurationError, PermissionError, FileNotFoundError):
            EmbeddedServer.discard(cluster.parent)
    own_redis.discard_remains()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in {"integration", "acceptance", "chaos"}:
            item.add_marker(folder)
        if {"redis_url", "redis_server_url"} & {*getattr(item, "fixturenames", ())}:
            item.add_marker("redis")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that a developer's shell names is nothing that a test may touch."""
    for name in ("SPINE_DATABASE_URL", "SPINE_SOURCE_URL", "SPINE_TARGET_URL"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def _embedded(version: int, settings: Mapping[str, str], port: int | None = None) -> Iterator[EmbeddedServer]:
    folder = _FOLDERS / f"{_PREFIX}{token_hex(6)}"
    with EmbeddedServer(folder, version, {**_SETTINGS, **settings}, port=port, delete_on_close=True) as server:
        yield server


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """For tests that crash, stop or configure a server: starts one, or several, and removes them after the test."""
    with ExitStack() as servers:

        def start(
            version: int = _VERSION, settings: Mapping[str, str] = MappingProxyType({}), *, port: int | None = None
        ) -> EmbeddedServer:
            return servers.enter_context(_embedded(version, settings, port))

        yield start


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A superuser's URL of the session's server."""
    if given := os.environ.get("SPINE_TEST_PG_URL"):
        yield given
        return
    with _embedded(_VERSION, {}) as server:
        yield server.url()


@pytest.fixture(scope="session")
def owner(server_url: str) -> Iterator[Role]:
    """The ordinary role, new in each session, that owns every test database."""
    role = create_role(server_url, f"spine_{token_hex(4)}")
    yield role
    drop_role(server_url, role)


@pytest.fixture
def database(server_url: str, owner: Role) -> Iterator[Database]:
    """A fresh, empty database; dropped after the test, connections that are still open included."""
    with fresh_database(server_url, f"{owner.name}_{token_hex(4)}", owner) as created:
        yield created


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """For tests that kill one."""
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server_url() -> Iterator[str]:
    """The session's server; a test takes ``redis_url``."""
    if given := os.environ.get("SPINE_TEST_REDIS_URL"):
        yield given
        return
    with RedisServer() as server:
        yield server.url


@pytest.fixture
def redis_url(redis_server_url: str) -> Iterator[str]:
    """redis://127.0.0.1:PORT/NUMBER of an empty database; emptied after the test."""
    with own_redis.fresh_database(redis_server_url) as url:
        yield url
