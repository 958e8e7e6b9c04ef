"""One thread of a process that wakes others when their time has come."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
import weakref
from typing import Protocol

from spine_migrate.execution.per_process import PerProcess

_log = logging.getLogger(__name__)

#: Seconds after which one that could not be woken is tried again.
_AGAIN = 1.0


class Sleeper(Protocol):
    @property
    def over(self) -> bool:
        """Whether nobody is to wake it any more."""
        ...

    def wake(self) -> None:
        """Called once its time has come, from the alarm's thread; must not take long."""
        ...


class Alarm:
    """Most sleepers are over before their time. They cost neither a thread nor a wake-up each: they are forgotten
    together, when the first one that was not over at the last look is due. Keeps none of them alive, and has a thread
    while there are any.
    """

    def __init__(self) -> None:
        self._due: list[tuple[float, int, weakref.ref[Sleeper]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def set(self, at: float, sleeper: Sleeper) -> None:
        """``at`` is a time of ``time.monotonic``. Raises RuntimeError where no thread can be started."""
        with self._changed:
            heapq.heappush(self._due, (at, next(self._numbers), weakref.ref(sleeper)))
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="spine-alarm", daemon=True)
                thread.start()
                self._thread = thread
            elif self._due[0][0] == at:
                self._changed.notify()

    def _run(self) -> None:
        while self._wake_next():
            pass

    def _wake_next(self) -> bool:
        """Whether there was anybody left."""
        sleeper = self._next()
        if sleeper is not None:
            self._wake(sleeper)
        return sleeper is not None

    def _wake(self, sleeper: Sleeper) -> None:
        try:
            sleeper.wake()
        except Exception as error:  # noqa: BLE001 the others are to be woken all the same
            _log.warning("Could not be woken, which is tried again: %s", error)
            self.set(time.monotonic() + _AGAIN, sleeper)

    def _next(self) -> Sleeper | None:
        """Where nobody is left the thread ends; the next one who comes starts another."""
        with self._changed:
            while True:
                sleeper = self._first()
                if sleeper is None:
                    self._thread = None
                    return None
                pause = self._due[0][0] - time.monotonic()
                if pause <= 0:
                    heapq.heappop(self._due)
                    return sleeper
                # Not to be kept alive by this thread while it waits.
                del sleeper
                self._changed.wait(min(pause, threading.TIMEOUT_MAX))

    def _first(self) -> Sleeper | None:
        while self._due:
            sleeper = self._due[0][2]()
            if sleeper is not None and not sleeper.over:
                return sleeper
            heapq.heappop(self._due)
        return None


_alarms = PerProcess(Alarm)


def set_alarm(at: float, sleeper: Sleeper) -> None:
    """With the alarm of this process."""
    _alarms.get().set(at, sleeper)
