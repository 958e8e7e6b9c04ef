"""The guard of a single process: for tests, and for tools that have one."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from spine_migrate.execution.guards.protocol import Held, milliseconds


@dataclass
class _Lock:
    held: Held
    expires_at: float


class MemoryGuard:
    """``clock`` gives seconds and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mutex = threading.Lock()
        self._locks: dict[tuple[str, str], _Lock] = {}
        self._fences = itertools.count(1)

    def acquire(self, entity_type: str, entity_id: str, *, holder: str, ttl_seconds: float) -> int | None:
        expires_at = self._expiry(ttl_seconds)
        with self._mutex:
            lock = self._current((entity_type, entity_id))
            if lock is not None and lock.held.holder != holder:
                return None
            fence = next(self._fences)
            self._locks[entity_type, entity_id] = _Lock(Held(holder, fence), expires_at)
            return fence

    def renew(self, entity_type: str, entity_id: str, *, fence: int, ttl_seconds: float) -> bool:
        expires_at = self._expiry(ttl_seconds)
        with self._mutex:
            lock = self._current((entity_type, entity_id))
            if lock is None or lock.held.fence != fence:
                return False
            lock.expires_at = expires_at
            return True

    def release(self, entity_type: str, entity_id: str, *, fence: int) -> bool:
        with self._mutex:
            lock = self._current((entity_type, entity_id))
            if lock is None or lock.held.fence != fence:
                return False
            del self._locks[entity_type, entity_id]
            return True

    def held(self, entity_type: str, entity_id: str) -> Held | None:
        with self._mutex:
            lock = self._current((entity_type, entity_id))
        return None if lock is None else lock.held

    def _expiry(self, ttl_seconds: float) -> float:
        return self._clock() + milliseconds(ttl_seconds) / 1000

    def _current(self, entity: tuple[str, str]) -> _Lock | None:
        lock = self._locks.get(entity)
        if lock is not None and lock.expires_at <= self._clock():
            del self._locks[entity]
            return None
        return lock
