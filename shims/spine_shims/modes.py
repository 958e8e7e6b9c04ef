"""Which mode an old task is in: its old body, the dispatcher, part of the one and part of the other, or both.

A mode is looked for in the environment, in a file, in the table ``shim_mode``, and is the default where none has it.
The first source that names a task, or all of them with ``*``, decides; in one source a name comes before ``*``. So
``SPINE_SHIM_MODE=legacy`` is the kill switch that nothing overrules, and that works while the database is down.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from spine_migrate.errors import ConfigurationError, SpineMigrateError
from spine_migrate.execution.errors import BackendError
from spine_shims.mode_sources import ALL, FILE, VARIABLE, by_environment, by_file

if TYPE_CHECKING:
    from spine_shims.tables import Tables

_log = logging.getLogger(__name__)

_CANARY = re.compile(r"canary=(?P<percent>[0-9]{1,3}(?:\.[0-9]{1,9})?)%", re.ASCII)
_WHOLE = 1 << 64


class Kind(StrEnum):
    LEGACY = "legacy"
    DISPATCH = "dispatch"
    CANARY = "canary"
    SHADOW = "shadow"


class Side(StrEnum):
    """What becomes of one call."""

    LEGACY = "legacy"
    DISPATCH = "dispatch"
    SHADOW = "shadow"


@dataclass(frozen=True)
class Mode:
    """``percent``, 0 to 100, is how much of a canary's calls are dispatched. ``str()`` gives what ``parse`` takes."""

    kind: Kind
    percent: Decimal = Decimal(0)

    @classmethod
    def parse(cls, text: str) -> Mode:
        """From ``legacy``, ``dispatch``, ``shadow`` or ``canary=N%``. Raises ConfigurationError."""
        words = text.strip()
        if words in _PLAIN:
            return cls(Kind(words))
        found = _CANARY.fullmatch(words)
        if found is None or Decimal(found["percent"]) > 100:  # noqa: PLR2004 - all of them
            raise ConfigurationError(
                f"{text!r} is no mode of a task; it is legacy, dispatch, shadow or canary=N%, with N from 0 to 100."
            )
        return cls(Kind.CANARY, Decimal(found["percent"]).normalize())

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        """Kept, since every call that is counted asks for it."""
        return f"canary={self.percent:f}%" if self.kind is Kind.CANARY else self.kind.value

    def side(self, task_id: str) -> Side:
        """The same for the same task id, on every machine; whoever is dispatched at 10% is dispatched at 20% too."""
        if self.kind is not Kind.CANARY:
            return _SIDES[self.kind]
        import hashlib  # Of a canary alone.

        digest = hashlib.sha256(task_id.encode("utf-8", "surrogatepass")).digest()
        return Side.DISPATCH if int.from_bytes(digest[:8]) < self._bound else Side.LEGACY

    @cached_property
    def _bound(self) -> int:
        """Of the first 64 bits of a digest; exact, so that 100% is all of them."""
        numerator, denominator = self.percent.as_integer_ratio()
        return -(-numerator * _WHOLE // (denominator * 100))


_PLAIN = frozenset({Kind.LEGACY, Kind.DISPATCH, Kind.SHADOW})
_SIDES = {Kind.LEGACY: Side.LEGACY, Kind.DISPATCH: Side.DISPATCH, Kind.SHADOW: Side.SHADOW}

_NOTHING: Mapping[str, Mode] = MappingProxyType({})
LEGACY, DISPATCH, SHADOW = Mode(Kind.LEGACY), Mode(Kind.DISPATCH), Mode(Kind.SHADOW)


def _of(source: Mapping[str, Mode], task: str) -> Mode | None:
    return source.get(task) or source.get(ALL)


@dataclass
class _Read:
    """What one process knows: per source what it said when it was last understood, and what is wrong with it now."""

    environment: Mapping[str, Mode] = field(default_factory=dict)
    file: Mapping[str, Mode] = field(default_factory=dict)
    table: Mapping[str, Mode] | None = None
    #: Tasks that a worker has with its shim, and those that one has without it: read at once, told at once.
    workers: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())
    wrong: dict[str, str] = field(default_factory=dict)
    local_at: float | None = None
    table_at: float | None = None
    reading: threading.Lock = field(default_factory=threading.Lock)
    #: Set once nobody needs to wait for the table any more.
    asked: threading.Event = field(default_factory=threading.Event)


class Modes:
    """What is asked for is at most ``ttl_seconds`` old, and costs its caller no round trip: the table is read in a
    thread of its own, for which only the first question in a process waits, ``first_wait_seconds`` at most.

    A source that cannot be read or understood is told in the log, once, and goes on counting as it was last understood;
    one that never was, counts as empty. To clear a file, empty it.

    ``file`` is the path of a TOML file; without it ``SPINE_SHIM_MODES_FILE`` names one. ``clock`` gives seconds. Usable
    in threads, and in children that are forked from a process that has used it.
    """

    def __init__(
        self,
        tables: Tables | None = None,
        *,
        file: str | os.PathLike[str] | None = None,
        default: Mode = DISPATCH,
        environment: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        ttl_seconds: float = 5.0,
        first_wait_seconds: float = 2.0,
    ) -> None:
        self._tables = tables
        self._file = file
        self._default = default
        self._environment = os.environ if environment is None else environment
        self._clock = clock
        self._ttl = ttl_seconds
        self._first_wait = first_wait_seconds
        self._by_process = {os.getpid(): _Read()}
        if tables is None:
            self._own().asked.set()

    def mode(self, task: str, default: Mode | None = None) -> Mode:
        """The mode of a task by its full name; ``default`` stands for that of all tasks. Raises nothing."""
        read = self._own()
        if read.local_at is None or self._clock() - read.local_at >= self._ttl:
            self._read_local(read)
        found = _of(read.environment, task) or _of(read.file, task)
        if found is None and self._tables is not None:
            self._keep_table(read)
            found = _of(read.table or _NOTHING, task)
        return found or (self._default if default is None else default)

    def workers_ready(self, task: str) -> bool:
        """Whether a worker that has the shim of this task was seen lately, and none that has the task without it; False
        where nobody could tell, ever.
        """
        read = self._own()
        self._keep_table(read)
        ready, mixed = read.workers
        return task in ready and task not in mixed

    def workers_mixed(self, task: str) -> bool:
        """Whether a worker that has this task without its shim was seen lately."""
        read = self._own()
        self._keep_table(read)
        _, mixed = read.workers
        return task in mixed

    def refresh(self) -> None:
        """Read every source now, in the caller's thread. Raises nothing."""
        read = self._own()
        self._read_local(read)
        with read.reading:
            self._read_table(read)
        # The first question has its answer, and waits for none.
        read.asked.set()

    def _keep_table(self, read: _Read) -> None:
        """Have the table read where what is known of it is old; wait only where nothing is known."""
        now = self._clock()
        if self._tables is not None and (read.table_at is None or now - read.table_at >= self._ttl):
            self._read_aside(read, now)
        if not read.asked.is_set():
            read.asked.wait(self._first_wait)
            read.asked.set()

    def _own(self) -> _Read:
        found = self._by_process.get(os.getpid())
        if found is None:
            (parents,) = self._by_process.values()
            # What the parent knew, but not its lock: a thread that the child does not have may hold it.
            mine = _Read(
                parents.environment,
                parents.file,
                parents.table,
                parents.workers,
                dict(parents.wrong),
                parents.local_at,
            )
            if mine.table is not None or self._tables is None:
                mine.asked.set()
            self._by_process = {os.getpid(): mine}
            found = mine
        return found

    def _read_local(self, read: _Read) -> None:
        read.local_at = self._clock()
        path = self._file if self._file is not None else self._environment.get(FILE)
        read.environment = self._understood(
            read, VARIABLE, lambda: by_environment(self._environment.get(VARIABLE, ""), Mode.parse), read.environment
        )
        read.file = self._understood(read, "file", lambda: {} if not path else by_file(path, Mode.parse), read.file)

    def _read_aside(self, read: _Read, now: float) -> None:
        """In a thread, of which there is one at a time."""
        if not read.reading.acquire(blocking=False):
            return
        read.table_at = now

        def work() -> None:
            try:
                self._read_table(read)
            finally:
                read.reading.release()
                read.asked.set()

        try:
            threading.Thread(target=work, name="spine-shim-modes", daemon=True).start()
        except RuntimeError:
            # The interpreter is ending, and starts no thread any more.
            read.reading.release()
            read.asked.set()

    def _read_table(self, read: _Read) -> None:
        if self._tables is None:
            return
        tables = self._tables

        def ask() -> dict[str, Mode]:
            rows, *workers = tables.modes_and_ready()
            read.workers = workers[0], workers[1]
            return {task: Mode.parse(text) for task, text in rows.items()}

        read.table_at = self._clock()
        read.table = self._understood(read, "table", ask, read.table or _NOTHING)

    def _understood(
        self,
        read: _Read,
        name: str,
        ask: Callable[[], Mapping[str, Mode]],
        last: Mapping[str, Mode],
    ) -> Mapping[str, Mode]:
        """What a source says, or ``last`` where it cannot be read or understood."""
        try:
            said = ask()
        except SpineMigrateError as error:
            # A database that is down is down in several words; a file that is mended may be wrong elsewhere.
            what = "away" if isinstance(error, BackendError) else error.sentence
            if read.wrong.get(name) != what:
                read.wrong[name] = what
                _log.warning("Modes of tasks stay as they were last read: %s", error.sentence)
            return last
        if read.wrong.pop(name, None) is not None:
            _log.info("Modes of tasks are read from the %s again.", name)
        return said
