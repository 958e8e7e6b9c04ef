"""What a worker process makes for itself: connections that are made before a fork are not usable after it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from spine_migrate.execution.forking import start_in_children

Made = TypeVar("Made")


class PerProcess(Generic[Made]):
    """``get`` calls ``make`` once in each process, whichever thread comes first."""

    def __init__(self, make: Callable[[], Made]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: tuple[int, Made] | None = None
        start_in_children(self)

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
