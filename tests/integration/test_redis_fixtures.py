"""The Redis fixtures keep what tests/redis_server.py promises."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil
import pytest
import redis

from tests.redis_server import RedisServer, fresh_database


def test_a_database_is_empty_but_for_its_claim_and_emptied_afterwards(redis_server: RedisServer) -> None:
    """On a server of its own: of one that is shared, somebody else may claim the database as soon as it is empty."""
    with fresh_database(redis_server.url) as other, fresh_database(redis_server.url) as url:
        assert url != other
        with redis.Redis.from_url(url) as client:
            assert client.keys() == [b"spine-test"]
            client.set("left", "over")
    with redis.Redis.from_url(url) as client:
        assert client.dbsize() == 0


def test_a_database_with_something_in_it_is_left_alone(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(_database(redis_server, 15)) as client:
        client.set("somebody's", "value")
        with fresh_database(redis_server.url) as url:
            assert url == _database(redis_server, 14)
        assert client.keys() == [b"somebody's"]


def test_without_an_empty_database_it_says_so(redis_server: RedisServer) -> None:
    for number in range(1, 16):
        with redis.Redis.from_url(_database(redis_server, number)) as client:
            client.set("somebody's", "value")
    with pytest.raises(RuntimeError, match="No database"), fresh_database(redis_server.url):
        pass


def test_a_killed_server_comes_back_with_all_it_has_acknowledged(redis_server: RedisServer) -> None:
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("kept", "value")
        redis_server.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("kept")
        redis_server.start()
        assert client.get("kept") == b"value"


def test_what_a_killed_session_left_is_removed_and_nothing_else() -> None:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    with tempfile.TemporaryDirectory(prefix="spine-sessions-") as folder:
        environment = {**outside, "TMPDIR": folder}
        with RedisServer() as live:
            left = _run(_LEAVE, environment)
            assert left.returncode == -9
            orphan = psutil.Process(int(left.stdout))
            assert orphan.is_running()
            done = _run("from tests.redis_server import discard_remains; discard_remains()", environment)
            assert done.returncode == 0
            with redis.Redis.from_url(live.url) as client:
                assert client.ping()
        assert list(Path(folder).iterdir()) == []
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE


_LEAVE = """
import os, signal, redis
from tests.redis_server import RedisServer
server = RedisServer()
server.__enter__()
print(redis.Redis.from_url(server.url).info()["process_id"], flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def _run(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env=environment,
    )


def _database(server: RedisServer, number: int) -> str:
    return urlunsplit(urlsplit(server.url)._replace(path=f"/{number}"))
