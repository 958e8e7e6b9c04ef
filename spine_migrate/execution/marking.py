"""Marks of published runs that their submitters do not wait for."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

from spine_migrate.execution.per_process import PerProcess
from spine_migrate.execution.runs import RunRecord

_log = logging.getLogger(__name__)

Handed = tuple[RunRecord, str]

#: Seconds in which marks come together; nobody but lists and reports sees the difference.
_PAUSE = 0.05
#: Seconds without a run after which the thread ends.
_IDLE = 5.0


@dataclass
class _Waiting:
    """What one process has: ``lock`` guards ``handed`` and ``thread``, ``marking`` is held by who marks."""

    handed: list[Handed] = field(default_factory=list)
    thread: threading.Thread | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)
    marking: threading.Lock = field(default_factory=threading.Lock)
    more: threading.Event = field(default_factory=threading.Event)


def _waiting() -> _Waiting:
    # Registered once more: what is registered last comes first, and the ledger's pool was opened just now.
    atexit.unregister(flush_all)
    atexit.register(flush_all)
    return _Waiting()


class LaterMarks:
    """``mark`` is called with all that was published since the last time, by a thread, which there is while it has
    something to do. Runs whose mark fails, and the last ones of a process that is killed, are left to the relay, which
    publishes them once more; a claim then refuses the second message.
    """

    def __init__(self, mark: Callable[[list[Handed]], object]) -> None:
        self._mark = mark
        self._own = PerProcess(_waiting)
        _all.add(self)

    def add(self, run: RunRecord, reference: str) -> None:
        own = self._own.get()
        with own.lock:
            own.handed.append((run, reference))
            started = own.thread is not None or self._start(own)
        if started:
            own.more.set()
        else:
            self._flush(own)

    def flush(self) -> None:
        """What is left, in the caller's thread."""
        self._flush(self._own.get())

    def _start(self, own: _Waiting) -> bool:
        thread = threading.Thread(target=self._work, args=(own,), name="spine-marks", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The interpreter is ending.
            return False
        own.thread = thread
        return True

    def _work(self, own: _Waiting) -> None:
        while own.more.wait(_IDLE) or not self._ended(own):
            time.sleep(_PAUSE)
            self._flush(own)

    def _ended(self, own: _Waiting) -> bool:
        with own.lock:
            if own.handed:
                return False
            own.thread = None
            return True

    def _flush(self, own: _Waiting) -> None:
        with own.marking:
            with own.lock:
                taken, own.handed = own.handed, []
                own.more.clear()
            if not taken:
                return
            try:
                self._mark(taken)
            except Exception:  # noqa: BLE001 - a thread that ended here would let all that come after pile up
                _log.exception("%d published runs are not marked; the relay publishes them again", len(taken))


_all: weakref.WeakSet[LaterMarks] = weakref.WeakSet()


def flush_all() -> None:
    """What is left in this process; for the end of one that ends without ``atexit``."""
    for each in list(_all):
        each.flush()
