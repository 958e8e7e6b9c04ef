"""Holding a run back: on the wish of a person, by an order in the ledger or a file, or because the server is busy.

Whoever works in batches asks before each. The readings are made at most once a second on a session of the throttle's
own, however many workers ask, and no transaction is open while somebody waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from spine_migrate.carry import orders
from spine_migrate.carry.orders import Hold
from spine_migrate.carry.settings import Settings, overlaid
from spine_migrate.carry.signals.signal import Signal
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.db.faults import explained, is_lost, is_transient, retrying
from spine_migrate.errors import ConfigurationError, Interrupted, SpineMigrateError

# Seconds between two readings, and between two looks at the wish to stop.
INTERVAL = 1.0
_GLANCE = 0.2
# A commit that waits for a replica would keep us from seeing that the replica lags.
_SESSION = {**PINNED, "synchronous_commit": "off", "statement_timeout": "5s"}

PAUSE, PAUSE_FILE = "pause", "pause-file"


class Throttle:
    """A context manager, safe to share between threads.

    ``settings`` are those of the run's options; what the ledger says goes before. ``signals`` by the name of their
    limit; a limit without its signal is not this one's to keep. Of several throttles of a migration one at a time
    ``records`` what holds it. ``parent`` is a migration whose pause holds this one as well. ``note``: what the run does
    about it, for the ledger.
    """

    def __init__(
        self,
        url: str | None,
        migration_id: int,
        settings: Settings,
        signals: Mapping[str, Signal],
        *,
        stop: threading.Event,
        retry_seconds: float,
        pause_file: Path | None = None,
        parent: int | None = None,
        records: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.note: str | None = None
        self.records = records
        self._url = url
        self._migration_id = migration_id
        self._given = settings
        self._signals = signals
        self._stop = stop
        self._retry_seconds = retry_seconds
        self._pause_file = pause_file
        self._parent = parent
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at: float | None = None
        self._hold: Hold | None = None
        self._connection: Connection | None = None
        self._ordered = False
        # What is being looked at, for the words of an error.
        self._reading = PAUSE

    def __enter__(self) -> Self:
        """The first reading. What cannot be read now is an error, not a reason to wait; what a busy server does not
        come to end is read again.

        Raises ConfigurationError (no place for the pause file, settings that make no sense), Refused
        (``signal-unreadable``), Interrupted, and what a lost server raises.
        """
        if self._pause_file is not None and not self._pause_file.absolute().parent.is_dir():
            raise ConfigurationError(
                f"There is no folder {self._pause_file.absolute().parent} for the pause file; correct --pause-file."
            )
        try:
            self._hold = self._retried(self._begin, also=psycopg.errors.QueryCanceled)
        except psycopg.errors.QueryCanceled as error:
            self._close()
            if self._stop.is_set():
                raise Interrupted("Stopped before anything was done; run the same command to go on.") from error
            raise
        except BaseException:
            self._close()
            raise
        self._looked_at = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # It only informs, and the next run begins with the same.
        if self._hold is not None and self._connection is not None:
            with suppress(psycopg.Error):
                self._record(self._connection, None)
        self._close()

    def wait(self, say: Callable[[Hold | None], None]) -> bool:
        """Return when nothing holds the run back any more, or when it is to stop. Whether a signal has held it back,
        not just a person.

        ``say`` is told what holds it back whenever that changes, and None when it is over. Raises SpineMigrateError
        where the server is lost for longer than ``retry_seconds``.
        """
        said: Hold | None = None
        busy = False
        while not self._stop.is_set():
            hold = self.current()
            if hold != said:
                say(hold)
                said = hold
            if hold is None:
                return busy
            busy = busy or self.is_signal(hold)
            self._stop.wait(_GLANCE)
        if said is not None:
            say(None)
        return busy

    def is_signal(self, hold: Hold) -> bool:
        """Whether the server holds the run back, not a person."""
        return hold.by in self._signals

    def current(self) -> Hold | None:
        """What holds the run back at the last reading, which is a second old at most. Raises as ``wait`` does."""
        with self._lock:
            if self._looked_at is None or self._clock() - self._looked_at >= INTERVAL:
                try:
                    self._hold = self._retried(self._look)
                except (psycopg.Error, SpineMigrateError) as error:
                    # Who is to stop does not wait for a server that is gone.
                    if not (self._stop.is_set() and is_transient(error)):
                        raise _explained(error) from error
                self._looked_at = self._clock()
            return self._hold

    def _begin(self, connection: Connection) -> Hold | None:
        self._ordered = orders.installed(connection)
        if self._ordered and self.records():
            orders.begin(connection, self._migration_id)
        found = self._read_orders(connection)
        limits = self._limits(connection)
        return self._told(connection, found or limits)

    def _look(self, connection: Connection) -> Hold | None:
        try:
            found = self._read_orders(connection) or self._limits(connection)
        except (psycopg.Error, SpineMigrateError) as error:
            if is_transient(error):
                raise
            found = Hold(self._reading, f"it cannot be read: {_explained(error).sentence}")
        return self._told(connection, found)

    def _read_orders(self, connection: Connection) -> Hold | None:
        self._reading = PAUSE
        if self._ordered:
            told = orders.read(connection, self._migration_id, self._parent)
            self.settings = overlaid(self._given, told.settings)
            if told.paused_at is not None:
                which = "" if told.migration_id == self._migration_id else f", with migration {told.migration_id}"
                return Hold(PAUSE, f"paused by {told.paused_by}{which}; spine-migrate resume lets it go on")
        self._reading = PAUSE_FILE
        if self._pause_file is not None and _is_there(self._pause_file):
            return Hold(PAUSE_FILE, f"{self._pause_file} is there; it goes on when that is removed")
        return None

    def _limits(self, connection: Connection) -> Hold | None:
        """All are read, so that each has its reading, and an error, whatever the others say. The first one counts."""
        excess: Hold | None = None
        for name, signal in self._signals.items():
            self._reading = name
            limit = getattr(self.settings, name.replace("-", "_"))
            words = None if limit is None else signal.look(connection, limit)
            excess = excess or (None if words is None else Hold(name, words))
        return excess

    def _told(self, connection: Connection, hold: Hold | None) -> Hold | None:
        # Again while it lasts: another run of the migration, which has ended since, may have had the word.
        if hold is not None or self._hold is not None:
            noted = hold if hold is None or self.note is None else replace(hold, detail=f"{hold.detail}; {self.note}")
            self._record(connection, noted)
        return hold

    def _record(self, connection: Connection, hold: Hold | None) -> None:
        if self._ordered and self.records():
            orders.record(connection, self._migration_id, hold)

    def _retried(
        self, look: Callable[[Connection], Hold | None], also: type[psycopg.Error] | tuple[()] = ()
    ) -> Hold | None:
        def attempt() -> Hold | None:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._url, settings=_SESSION)
            try:
                return look(self._connection)
            except psycopg.Error as error:
                if is_lost(error) or self._connection.closed:
                    self._close()
                raise

        def again(error: BaseException) -> bool:
            return is_transient(error) or isinstance(error, also)

        return retrying(seconds=self._retry_seconds, stop=self._stop, when=again)(attempt)

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _explained(error: psycopg.Error | SpineMigrateError) -> SpineMigrateError:
    return explained(error) if isinstance(error, psycopg.Error) else error


def _is_there(path: Path) -> bool:
    """Only "not found" means no: a folder that is closed to us by now might have it. Raises ConfigurationError."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigurationError(f"The system does not say whether {path} is there ({error.strerror}).") from error
    return True
