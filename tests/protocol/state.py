"""One state of the world: what is committed, and what each session has read or written and not committed.

Everything is a tuple or a frozenset, so that states compare and hash by value. Keys are small numbers, a version is the
number of the write that made it; forward() is the identity, so a row on the target is its version.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import IntEnum
from typing import NamedTuple, TypeVar

#: The key of an entry that stands for all rows: TRUNCATE.
EVERY = -1
NO_KEYS: frozenset[int] = frozenset()

Move = tuple[str, "State"]
T = TypeVar("T")


class Phase(IntEnum):
    """Of any session; not every session goes through each."""

    IDLE = 0
    LOCKED = 1
    """A batch: holds its shared lock. Cutover: holds the table."""
    PASSED = 2
    """An applier: the barrier is behind it."""
    READ = 3
    """In a transaction, snapshot taken."""
    WRITTEN = 4
    """In a transaction whose writes others wait for."""
    OVER = 5


class Row(NamedTuple):
    version: int
    place: int


class Entry(NamedTuple):
    """Of the log. Without the rule that it is a key alone: ``image`` is the row's version as it was written, None where
    it was deleted, and ``number`` the order of writing.
    """

    key: int
    image: int | None = None
    number: int = 0


class Writer(NamedTuple):
    """A transaction of the application: IDLE, READ while it is open, OVER."""

    phase: Phase = Phase.IDLE
    changes: tuple[tuple[int, Row | None], ...] = ()
    entries: tuple[Entry, ...] = ()
    truncated: bool = False


class Batch(NamedTuple):
    """One range. ``rows``: what it read and is to write. ``known``: which of them were on the target at its snapshot;
    ``stale``: which have been changed there since, by others.
    """

    phase: Phase = Phase.IDLE
    locked: bool = False
    rows: tuple[tuple[int, int], ...] = ()
    known: frozenset[int] = NO_KEYS
    stale: frozenset[int] = NO_KEYS


class Applier(NamedTuple):
    """``again``: the tombstones that it applies. ``alone``: no batch was in flight when it began, and none begins until
    it ends. ``buried``: keys that become tombstones. ``overtaken``: another applier has committed since its snapshot.
    Else as in a batch; a version None is a row that is gone.
    """

    phase: Phase = Phase.IDLE
    entries: tuple[Entry, ...] = ()
    again: frozenset[int] = NO_KEYS
    alone: bool = False
    rows: tuple[tuple[int, int | None], ...] = ()
    known: frozenset[int] = NO_KEYS
    stale: frozenset[int] = NO_KEYS
    buried: frozenset[int] = NO_KEYS
    overtaken: bool = False


class State(NamedTuple):
    """``versions`` counts the application's writes; ``committed`` are those that a commit has made visible."""

    source: tuple[Row | None, ...]
    target: tuple[int | None, ...]
    writers: tuple[Writer, ...]
    batches: tuple[Batch, ...]
    appliers: tuple[Applier, ...]
    log: tuple[Entry, ...] = ()
    tombstones: frozenset[int] = NO_KEYS
    captured: bool = False
    backfilled: bool = False
    cutover: Phase = Phase.IDLE
    operations: int = 0
    versions: int = 0
    committed: frozenset[int] = NO_KEYS

    def with_writer(self, number: int, writer: Writer) -> State:
        return self._replace(writers=replaced(self.writers, number, writer))

    def with_batch(self, number: int, batch: Batch) -> State:
        return self._replace(batches=replaced(self.batches, number, batch))

    def with_applier(self, number: int, applier: Applier) -> State:
        return self._replace(appliers=replaced(self.appliers, number, applier))


def replaced(items: tuple[T, ...], number: int, item: T) -> tuple[T, ...]:
    return (*items[:number], item, *items[number + 1 :])


def in_order(log: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """As they were written; of keys, whose order makes no difference, by key."""
    return tuple(sorted(log, key=lambda entry: (entry.number, entry.key)))


def truncating(state: State) -> bool:
    """Whether an open transaction has the table to itself, so that nobody can read it."""
    return any(writer.truncated for writer in state.writers)


def held(state: State, *, batch: int | None = None, applier: int | None = None) -> set[int]:
    """Keys on the target that other sessions have written and not committed: whoever writes them waits."""
    keys: set[int] = set()
    for number, one in enumerate(state.batches):
        if one.phase == Phase.WRITTEN and number != batch:
            keys.update(key for key, _ in one.rows)
    for number, other in enumerate(state.appliers):
        if other.phase == Phase.WRITTEN and number != applier:
            keys.update(key for key, _ in other.rows)
    return keys


def landed(state: State, rows: Collection[tuple[int, int | None]]) -> State:
    """These rows are committed on the target. Transactions that began before see the old ones, and know by the row
    itself that it was changed when they come to write it.
    """
    if not rows:
        return state
    target = list(state.target)
    for key, version in rows:
        target[key] = version
    changed = {key for key, _ in rows}
    return state._replace(
        target=tuple(target),
        batches=tuple(
            one._replace(stale=one.stale | (changed & one.known)) if one.phase == Phase.READ else one
            for one in state.batches
        ),
        appliers=tuple(
            one._replace(stale=one.stale | (changed & one.known)) if one.phase == Phase.READ else one
            for one in state.appliers
        ),
    )


def name(key: int) -> str:
    return "every row" if key == EVERY else "abcdefgh"[key]


def names(keys: Iterable[int]) -> str:
    return ", ".join(name(key) for key in sorted(keys)) or "nothing"


def shown(rows: Iterable[tuple[int, int | None]]) -> str:
    """``a=1, b gone``."""
    told = (f"{name(key)} gone" if version is None else f"{name(key)}={version}" for key, version in rows)
    return ", ".join(told) or "nothing"
