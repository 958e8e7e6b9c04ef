"""Who still calls what: counted where it happens, at the cost of a look-up, and added to the table ``shim_call`` by a
thread every few seconds. No argument is ever looked at.

What is lost: at most what was counted since the last time it was added, where a process is killed. What was counted
while the database is away is added once it is back. Where the connection is lost in the very moment of a commit, the
same counts may be added twice.

A forked child counts anew, with a thread and a session of its own. Where a pool of processes ends its children without
``atexit`` (Celery's prefork does), have ``close`` called on ``worker_process_shutdown``. Under gevent and eventlet the
thread is a greenlet, once they have patched the standard library, and nothing in ``note`` switches; without the patches
it is an ordinary thread, which works too.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spine_migrate import __version__
from spine_migrate.execution.errors import BackendError

if TYPE_CHECKING:
    from spine_shims.caller import CallSite
    from spine_shims.modes import Mode, Side
    from spine_shims.tables import Tables

_log = logging.getLogger(__name__)

#: The caller under which calls are counted beyond ``most_keys``.
OTHER = "other"
#: The caller where nobody could tell.
UNKNOWN = "unknown"
#: Characters. A key of the table has to fit into a page of its index, some 2,700 bytes, and a character may take four.
_LONGEST = {"task": 255, "caller": 250, "host": 100, "version": 50}

#: Seconds between two announcements of a process.
_ANNOUNCED_FOR = 30.0
#: Seconds. How long an end waits for counts that are just being added.
_LAST_WAIT = 15.0

#: Task, caller, mode, side.
_Key = tuple[str, "CallSite | str | None", str, "Side"]


@dataclass(slots=True)
class _Count:
    """``first`` and ``last`` by the clock."""

    number: int
    first: float
    last: float

    def add(self, more: _Count) -> None:
        self.number += more.number
        self.first = min(self.first, more.first)
        self.last = max(self.last, more.last)


@dataclass
class _Own:
    """What one process has. ``lock`` guards the counts, and lets a signal's handler in that calls a task itself;
    ``writing`` is held by the one thread that adds them.
    """

    counts: dict[_Key, _Count] = field(default_factory=dict)
    announced_at: float | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    writing: threading.Lock = field(default_factory=threading.Lock)
    #: Set where the thread has something to do before its time.
    wake: threading.Event = field(default_factory=threading.Event)
    stopped: bool = False
    thread: threading.Thread | None = None
    wrong: str | None = None


class Telemetry:
    """``host`` and ``version`` say where the calls come from; without them the machine's name and that of this package.

    ``interval_seconds`` pass between two times that counts are added. Of distinct callers ``most_keys`` are told apart.
    ``clock`` gives seconds; its differences alone count, the times in the table are the server's.
    """

    def __init__(
        self,
        tables: Tables,
        *,
        host: str | None = None,
        version: str | None = None,
        interval_seconds: float = 5.0,
        most_keys: int = 2000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tables = tables
        self._host = _fitting("host", host or socket.gethostname())
        self._version = _fitting("version", version or __version__)
        self._interval = interval_seconds
        self._most_keys = most_keys
        self._clock = clock
        #: Since when, by the clock.
        self._announced: dict[str, float] = {}
        self._by_process: dict[int, _Own] = {}

    def note(self, task: str, caller: CallSite | str | None, mode: Mode, side: Side, *, count: int = 1) -> None:
        """Count calls of a task. ``caller`` is a line, or a text that says who it was: a beat entry, the sender of a
        message. No I/O.
        """
        own = self._own()
        now, key = self._clock(), (task, caller, str(mode), side)
        with own.lock:
            found = own.counts.get(key)
            if found is None:
                self._add(own.counts, key, _Count(count, now, now))
            else:
                found.number += count
                found.last = now
        if own.thread is None:
            self._start(own)

    def announce(self, tasks: Iterable[str]) -> None:
        """Say that this process is a worker that has the shims of these tasks, again and again for as long as it lives:
        what ``Modes.workers_ready`` looks for, and what shows that somebody was there to count.
        """
        own, now = self._own(), self._clock()
        with own.lock:
            for task in tasks:
                self._announced.setdefault(task, now)
            own.announced_at = None
        if own.thread is None:
            self._start(own)
        # Producers wait for it.
        own.wake.set()

    def flush(self) -> bool:
        """Add what was counted, now and in the caller's thread; whether that worked. Where not, it stays counted."""
        return self._flush(self._own())

    def close(self) -> None:
        """Add what was counted, end the thread and close the session. What is noted afterwards begins anew."""
        atexit.unregister(self.close)
        own = self._by_process.pop(os.getpid(), None)
        if own is None:
            return
        own.stopped = True
        own.wake.set()
        if own.thread is not None:
            own.thread.join(_LAST_WAIT)
        if not self._flush(own):
            lost = sum(counted.number for counted in own.counts.values())
            _log.warning("Calls of old tasks that were counted and are not stored: %d.", lost)
        self._tables.close()

    def _own(self) -> _Own:
        """Never a parent's: a thread that the child does not have may have held its lock."""
        found = self._by_process.get(os.getpid())
        if found is None:
            found = self._by_process.setdefault(os.getpid(), _Own())
            atexit.register(self.close)
        return found

    def _start(self, own: _Own) -> None:
        thread = threading.Thread(target=self._work, args=(own,), name="spine-shim-telemetry", daemon=True)
        with own.lock:
            if own.thread is not None:
                return
            # Where the interpreter is ending no thread starts any more; the end adds what there is.
            with suppress(RuntimeError):
                thread.start()
                own.thread = thread

    def _work(self, own: _Own) -> None:
        while not own.stopped:
            own.wake.wait(self._interval)
            own.wake.clear()
            # The end flushes itself, and tells what is lost.
            if not own.stopped:
                self._flush(own)

    def _flush(self, own: _Own) -> bool:
        with own.writing:
            with own.lock:
                taken, own.counts = own.counts, {}
                announced = dict(self._announced) if self._due(own) else {}
            if not taken and not announced:
                return True
            now = self._clock()
            try:
                self._tables.write(
                    self._host,
                    self._version,
                    _columns(taken, now),
                    {_fitting("task", task): now - since for task, since in announced.items()},
                )
            except BackendError as error:
                self._put_back(own, taken, error)
                return False
            if announced:
                own.announced_at = now
            if own.wrong is not None:
                own.wrong = None
                _log.info("Calls of old tasks are stored again.")
            return True

    def _due(self, own: _Own) -> bool:
        return own.announced_at is None or self._clock() - own.announced_at >= _ANNOUNCED_FOR

    def _put_back(self, own: _Own, taken: Mapping[_Key, _Count], error: BackendError) -> None:
        with own.lock:
            for key, counted in taken.items():
                self._add(own.counts, key, counted)
        if own.wrong is None:
            _log.warning("Calls of old tasks are counted, but cannot be stored for now. %s", error.sentence)
        own.wrong = error.sentence

    def _add(self, counts: dict[_Key, _Count], key: _Key, more: _Count) -> None:
        found = counts.get(key)
        if found is None and len(counts) >= self._most_keys:
            # One more for each task in each mode, of which there are as many as the application has written.
            key = (key[0], OTHER, *key[2:])
            found = counts.get(key)
        if found is None:
            counts[key] = more
        else:
            found.add(more)


def _columns(taken: Mapping[_Key, _Count], now: float) -> dict[str, list[Any]]:
    """The parameters of the query ``count``, a list each, with every key once."""
    rows: dict[tuple[str, str, str, str], _Count] = {}
    for (task, caller, mode, side), counted in taken.items():
        key = _fitting("task", task), _fitting("caller", str(caller or UNKNOWN)), mode, side.value
        found = rows.setdefault(key, counted)
        if found is not counted:
            # A copy: what was counted may have to go back as it is.
            rows[key] = _Count(found.number, found.first, found.last)
            rows[key].add(counted)
    tasks, callers, modes, sides = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [], [])
    return {
        "tasks": tasks,
        "callers": callers,
        "modes": modes,
        "sides": sides,
        "counts": [counted.number for counted in rows.values()],
        "first_ages": [now - counted.first for counted in rows.values()],
        "last_ages": [now - counted.last for counted in rows.values()],
    }


def _fitting(what: str, text: str) -> str:
    """As PostgreSQL takes it: without NUL and lone surrogates, and no longer than its key may be. The end of a caller
    says more than its beginning.
    """
    plain = text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
    longest = _LONGEST[what]
    return plain if len(plain) <= longest else f"…{plain[1 - longest :]}"
