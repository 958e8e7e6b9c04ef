"""What a worker process makes for itself: connections that are made before a fork are not usable after it."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


class PerProcess(Generic[Made]):
    """``get`` calls ``make`` once in each process, whichever thread comes first."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: tuple[int, Made] | None = None
        _all.add(self)

    def get(self) -> Made:
        with self._lock:
            if self._made is None or self._made[0] != os.getpid():
                self._made = os.getpid(), self._make()
            return self._made[1]

    def forget(self) -> Made | None:
        """What this process has made, if anything; the next ``get`` makes another."""
        with self._lock:
            made, self._made = self._made, None
        return None if made is None or made[0] != os.getpid() else made[1]

    def start_anew(self) -> None:
        """In the child of a fork, which has a lock as it was, and not the thread that held it."""
        self._lock = threading.Lock()


_all: weakref.WeakSet[PerProcess[Any]] = weakref.WeakSet()


def _start_anew() -> None:
    for each in list(_all):
        each.start_anew()


os.register_at_fork(after_in_child=_start_anew)
