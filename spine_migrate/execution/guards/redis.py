"""The guard in Redis, from the extra ``redis``: one key for each lock, which expires by the server's clock.

A failover to a replica that had not heard of a lock yet forgets it, as does a server without persistence that starts
again, or one that evicts keys (it needs ``maxmemory-policy noeviction``). Two holders at once are possible then, and
the fence tells the earlier one: it is never given twice, because the server's clock is its floor. Where that is not
enough, use ``PostgresGuard``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from spine_migrate.execution.errors import BackendError
from spine_migrate.execution.guards.protocol import Held, milliseconds

try:
    import redis
    from redis import exceptions
except ImportError as error:
    raise ImportError(
        "The Redis guard needs the package redis; install it with: pip install 'spine-migrate[redis]'"
    ) from error

#: The server or the way to it is at fault, and may be well again later.
_FAULTS = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.ClusterDownError,
    exceptions.MasterDownError,
)
#: The same by their codes, for those that redis-py has no class for, or has in the text of another error: up to version
#: 6 a server wraps what a command says inside a script.
_FAULT_CODE = re.compile(r"(?:^| -)(?:OOM|READONLY|MISCONF|NOREPLICAS|LOADING|BUSY|CLUSTERDOWN|MASTERDOWN) ")


class RedisGuard:
    """``client`` is redis-py's, of one server (Redis 5 or later) or of a cluster. All keys start with ``{prefix}``; the
    braces put them in one slot of a cluster. Guards that share locks have the same prefix.
    """

    def __init__(self, client: redis.Redis | redis.RedisCluster, prefix: str = "spine-guard") -> None:
        self._client: Any = client
        self._prefix = prefix
        self._acquire, self._renew, self._release = (
            self._client.register_script(_script(name)) for name in ("acquire", "renew", "release")
        )

    def acquire(self, entity_type: str, entity_id: str, *, holder: str, ttl_seconds: float) -> int | None:
        keys = [self._key(entity_type, entity_id), f"{{{self._prefix}}}:fence"]
        values: list[str | int] = [holder, milliseconds(ttl_seconds)]
        with _faults():
            fence = self._acquire(keys, values)
        return None if fence is None else int(fence)

    def renew(self, entity_type: str, entity_id: str, *, fence: int, ttl_seconds: float) -> bool:
        values = [fence, milliseconds(ttl_seconds)]
        with _faults():
            return bool(self._renew([self._key(entity_type, entity_id)], values))

    def release(self, entity_type: str, entity_id: str, *, fence: int) -> bool:
        with _faults():
            return bool(self._release([self._key(entity_type, entity_id)], [fence]))

    def held(self, entity_type: str, entity_id: str) -> Held | None:
        with _faults():
            value = self._client.get(self._key(entity_type, entity_id))
        if value is None:
            return None
        text = value.decode() if isinstance(value, bytes) else value
        fence, _, holder = text.partition(":")
        return Held(holder, int(fence))

    def _key(self, entity_type: str, entity_id: str) -> str:
        # The length tells ("a:b", "c") from ("a", "b:c").
        return f"{{{self._prefix}}}:lock:{len(entity_type)}:{entity_type}:{entity_id}"


def _script(name: str) -> str:
    return (files("spine_migrate.execution") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except exceptions.RedisError as error:
        if not isinstance(error, _FAULTS) and not _FAULT_CODE.search(str(error)):
            raise
        raise BackendError(f"The guard cannot be reached: {' '.join(str(error).split())}.") from error
