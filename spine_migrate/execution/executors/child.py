"""A process that runs handlers for one thread at a time, and can be killed without harm to it.

The ledger stays with the thread: the process is given a handler and its context, reports progress, and gives back the
result as JSON text or the words of an exception. It is spawned, as a fork of a process with threads may hang for ever;
so handlers must be importable, and a script that starts an executor needs ``if __name__ == "__main__"``.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import weakref
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from spine_migrate.execution.calling import call
from spine_migrate.execution.context import TaskContext
from spine_migrate.execution.errors import HandlerFailed, OrchestrationError, ResultNotStorable, RunCancelled
from spine_migrate.execution.registry import Handler
from spine_migrate.execution.storable import as_json, describe

#: Seconds within which a cancellation or a death without a last word is noticed.
_LOOK = 0.1


class HandlerNotPortable(OrchestrationError):
    """A handler cannot be sent to another process."""

    category = "VALIDATION"


class WorkerProcessDied(OrchestrationError):
    """The process that ran a handler died: killed by a signal, by the system for want of memory, or by the handler."""

    category = "BACKEND"
    retryable = True


class Child:
    """``usable`` says whether it can be given another handler. ``kill_after_seconds`` is what a handler has to stop in
    once it was told to.
    """

    def __init__(self, kill_after_seconds: float) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._kill_after = kill_after_seconds
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, kill_after_seconds), name="spine-handler")
        self._process.start()
        theirs.close()
        self.usable = True
        # At the interpreter's end multiprocessing waits for its processes, and these wait for us.
        self._finalizer = weakref.finalize(self, _end, self._connection, self._process, os.getpid())

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def call(self, handler: Handler, context: TaskContext) -> Any:
        """As ``calling.call``. Raises HandlerFailed for what the handler raised, RunCancelled where the handler stopped
        or was killed, WorkerProcessDied, HandlerNotPortable.
        """
        try:
            work = pickle.dumps((handler, context.run, context.fence, context.entity_fence))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise HandlerNotPortable(
                f"The handler {handler!r} cannot be sent to a process: {error}; it must be importable by name."
            ) from error
        try:
            self._connection.send_bytes(work)
            kind, value = self._outcome(context)
        except (EOFError, OSError) as error:
            self._discard()
            raise WorkerProcessDied(
                f"The process that ran the handler died (exit code {self._process.exitcode})."
            ) from error
        except BaseException:
            # It may still be at it, and the next caller must not hear the answer to this one.
            self._discard()
            raise
        return _result(kind, value)

    def close(self) -> None:
        """Let it end by itself, at once if it is idle."""
        self.usable = False
        self._finalizer()

    def abandon(self) -> None:
        """In a fork of its owner: it is not ours, but while we held its pipe it would not see its owner die."""
        self._finalizer.detach()
        self._connection.close()

    def _outcome(self, context: TaskContext) -> tuple[str, Any]:
        kill_at: float | None = None
        while True:
            if self._connection.poll(_LOOK):
                kind, value = self._connection.recv()
                if kind != "event":
                    return kind, value
                context.note(value)
            elif not self._process.is_alive() and not self._connection.poll():
                raise EOFError
            elif kill_at is not None and time.monotonic() >= kill_at:
                raise RunCancelled("killed, as it did not stop when asked to")
            if kill_at is None and context.cancelled.is_set():
                kill_at = time.monotonic() + self._kill_after
                self._connection.send_bytes(b"")

    def _discard(self) -> None:
        self.usable = False
        self._process.kill()
        self._process.join()
        self.close()


def _result(kind: str, value: Any) -> Any:
    if kind == "done":
        return json.loads(value)
    if kind == "cancelled":
        raise RunCancelled(value)
    if kind == "unstorable":
        raise ResultNotStorable(value)
    raise HandlerFailed(*value[:2], retryable=value[2])


def _end(connection: Connection, process: SpawnProcess, owner: int) -> None:
    if os.getpid() == owner:
        connection.close()
        process.join()


def _serve(connection: Connection, kill_after_seconds: float) -> None:
    """The process: one handler after the other, until the owner closes its end of the pipe."""
    # A Ctrl-C goes to every process of a terminal, and it is the owner who decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    outbox = _Outbox(connection)
    inbox = _Inbox(connection, kill_after_seconds)
    inbox.start()
    # The pipe breaks where the owner is dead, or closed it while a handler was running.
    with suppress(OSError):
        while (message := inbox.work.get()) is not None:
            work, cancelled = message
            answer = _answer(work, outbox, cancelled)
            # Before the owner has the answer: the next handler may be there as soon as it has.
            inbox.busy = False
            outbox.send(*answer)


class _Inbox(threading.Thread):
    """Hears the owner while a handler is running: an empty message is a cancellation, no message any more its death."""

    def __init__(self, connection: Connection, kill_after_seconds: float) -> None:
        super().__init__(name="spine-inbox", daemon=True)
        self.work: queue.SimpleQueue[tuple[bytes, threading.Event] | None] = queue.SimpleQueue()
        self.busy = False
        self._connection = connection
        self._kill_after = kill_after_seconds

    def run(self) -> None:
        cancelled = threading.Event()
        with suppress(EOFError, OSError):
            while True:
                if work := self._connection.recv_bytes():
                    self.busy, cancelled = True, threading.Event()
                    self.work.put((work, cancelled))
                else:
                    cancelled.set()
        self.work.put(None)
        if self.busy:
            cancelled.set()
            time.sleep(self._kill_after)
            # Nobody hears of the result, and the run will be somebody else's.
            os._exit(1)


class _Outbox:
    """One whole message at a time, from whichever thread of the handler."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, kind: str, value: Any) -> None:
        with self._lock:
            self._connection.send((kind, value))


def _answer(work: bytes, outbox: _Outbox, cancelled: threading.Event) -> tuple[str, Any]:
    try:
        handler, run, fence, entity_fence = pickle.loads(work)  # noqa: S301 from our owner
    except Exception as error:  # noqa: BLE001 it imports the handler's module, which may raise anything
        return "failed", (f"The handler cannot be imported: {describe(error)[0]}", HandlerNotPortable.__name__, False)
    context = TaskContext(run, fence, lambda event: outbox.send("event", event), cancelled, entity_fence)
    try:
        result = call(handler, context)
    except RunCancelled as error:
        return "cancelled", str(error)
    except BaseException as error:  # noqa: BLE001 sys.exit() in a handler is its failure, not the end of this process
        return "failed", (*describe(error), bool(getattr(error, "retryable", True)))
    try:
        return "done", json.dumps(as_json(result))
    except ValueError as error:
        return "unstorable", f"The result {error}."
