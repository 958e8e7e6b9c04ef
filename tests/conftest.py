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
from shutil import disk_usage
from types import MappingProxyType
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings

from spine_migrate.db.embedded import EmbeddedServer
from spine_migrate.errors import ConfigurationError, Refused
from tests import redis_server as own_redis
from tests.database import Database, Role, create_role, drop_role, fresh_database, templates
from tests.redis_server import RedisServer

# Of all tests that say nothing else. A busy machine is no failure.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")

_VERSION = int(os.environ.get("SPINE_TEST_PG_VERSION", "18"))

# Without fsync an aborted server still loses nothing, only an aborted machine would.
SERVER_SETTINGS = {"fsync": "off", "full_page_writes": "off", "max_connections": "60", "shared_buffers": "32MB"}

# Not in pytest's tmp_path: as root that is closed to the account the server runs as. In memory where there is plenty:
# the files of a database are made and removed for each test.
_MEMORY, _PLENTY = Path("/dev/shm"), 8 * 2**30  # noqa: S108 - each folder in it has a name of its own
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
    named = Path(tempfile.gettempdir())
    for cluster in (file for folder in {named, _folder()} for file in folder.glob(f"{_PREFIX}*/cluster")):
        # Another session may be removing it at this moment.
        with suppress(Refused, ConfigurationError, PermissionError, FileNotFoundError):
            EmbeddedServer.discard(cluster.parent)
    own_redis.discard_remains()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder in {"integration", "acceptance", "chaos"}:
            item.add_marker(folder)
        fixtures = {*getattr(item, "fixturenames", ())}
        if {"redis_url", "redis_server_url"} & fixtures:
            item.add_marker("redis")
        if {"start_server", "start_module_server"} & fixtures and "server_url" not in fixtures:
            item.add_marker("own_server")


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that a developer's shell names is nothing that a test may touch."""
    for name in ("SPINE_DATABASE_URL", "SPINE_SOURCE_URL", "SPINE_TARGET_URL"):
        monkeypatch.delenv(name, raising=False)


def _folder() -> Path:
    """Where the servers' folders are made, which TMPDIR may name."""
    with suppress(OSError):
        if "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK) and disk_usage(_MEMORY).free > _PLENTY:
            return _MEMORY
    return Path(tempfile.gettempdir())


@contextmanager
def _embedded(version: int, settings: Mapping[str, str], port: int | None = None) -> Iterator[EmbeddedServer]:
    folder = _folder() / f"{_PREFIX}{token_hex(6)}"
    with EmbeddedServer(folder, version, {**SERVER_SETTINGS, **settings}, port=port, delete_on_close=True) as server:
        yield server


def _starting() -> Iterator[StartServer]:
    with ExitStack() as servers:

        def start(
            version: int = _VERSION, settings: Mapping[str, str] = MappingProxyType({}), *, port: int | None = None
        ) -> EmbeddedServer:
            return servers.enter_context(_embedded(version, settings, port))

        yield start


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """For tests that crash, stop or configure a server: starts one, or several, and removes them after the test."""
    yield from _starting()


@pytest.fixture(scope="module")
def start_module_server() -> Iterator[StartServer]:
    """For tests that need a server beside the session's and leave it as it is: removed after the module."""
    yield from _starting()


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
    templates(server_url, role).drop()
    drop_role(server_url, role)


@pytest.fixture
def database(server_url: str, owner: Role) -> Iterator[Database]:
    """A fresh, empty database; dropped after the test, connections that are still open included. It is created when it
    is first asked for: ``arrange``, ``tests.legacy.build`` with it, make it a copy of what other tests began with.
    """
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
