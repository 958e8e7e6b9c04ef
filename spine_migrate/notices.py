"""What the stages tell whoever watches a migration: plain facts, without I/O, row values or secrets.

A stage calls ``Observer.notice``; what becomes of it (a hook, a metric, a line of a log) is no concern of the stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

#: Steps of a migration in the ledger.
STEPS = ("backfill", "done", "cutover", "retired", "undoing", "undone")
#: Stages that ask before they begin, and tell when they have ended.
STAGES = ("backfill", "sync-start", "sync-stop", "repair", "cutover", "rollback", "undo", "retire")


@dataclass(frozen=True)
class Subject:
    """The migration that a notice is about. ``migration_id`` is None before the ledger has one; tables are as the
    server writes them, quoted.
    """

    mapping: str
    migration_id: int | None = None
    source_table: str | None = None
    target_table: str | None = None


@dataclass(frozen=True)
class Before:
    """A stage is about to begin, or to go on; nothing was changed yet. An observer may veto by raising Refused.

    ``step`` is where the ledger has the migration, None for one that is new.
    """

    subject: Subject
    stage: str
    step: str | None


@dataclass(frozen=True)
class Transition:
    """The step of a migration has changed, and is committed. ``ends`` is the stage that has ended with it, if one; the
    end of a stage that changes no step has the same one twice.
    """

    subject: Subject
    from_step: str | None
    to_step: str
    ends: str | None = None


@dataclass(frozen=True)
class Progress:
    """Where a run stands, after each batch and at each change of ``phase`` (backfill, sweep, links, ...).

    ``accounted`` rows are of all runs, ``rows`` and the rate of this one; blocks are of the source, of 8 kB.
    """

    subject: Subject
    phase: str
    rows: int
    accounted: int
    blocks: int
    total_blocks: int
    rows_per_second: float
    seconds_left: float | None


@dataclass(frozen=True)
class Batch:
    """A batch was committed. ``seconds`` is None where it was one of several parts that were not timed alone."""

    subject: Subject
    moved: int
    adopted: int
    seconds: float | None


@dataclass(frozen=True)
class Quarantined:
    """Rows came into quarantine: how many, by reason, since the last notice of this kind."""

    subject: Subject
    reasons: Mapping[str, int]


@dataclass(frozen=True)
class Throttle:
    """What holds a run back has changed. ``signal`` does so now, None where nothing does any more; ``before`` did so
    until now, for ``seconds``.
    """

    subject: Subject
    signal: str | None
    detail: str | None = None
    before: str | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class Lag:
    """How far the target is behind: changes not applied, and the age of the oldest one in seconds (0 where none).
    ``applied`` changes were since the last notice of this kind.
    """

    subject: Subject
    direction: str
    rows: int
    seconds: float
    applied: int = 0


@dataclass(frozen=True)
class Waits:
    """Sessions that wait for a lock, and have or want one on either table; ``seconds`` is the longest wait."""

    subject: Subject
    sessions: int
    seconds: float


@dataclass(frozen=True)
class Retry:
    """A fault of the server or the network is outlived. ``cause``: lock_timeout, connection_lost, deadlock,
    serialization, too_many_connections or server.
    """

    subject: Subject
    cause: str
    attempt: int
    wait_seconds: float


@dataclass(frozen=True)
class Compared:
    """One migration of a comparison."""

    subject: Subject
    verdict: str
    differences: int


@dataclass(frozen=True)
class Verdict:
    """What a comparison came to; ``codes`` are those of the reasons where it could not be told."""

    verdict: str
    migrations: Sequence[Compared] = ()
    codes: Sequence[str] = ()

    @property
    def differences(self) -> int:
        return sum(one.differences for one in self.migrations)


@dataclass(frozen=True)
class End:
    """A command has ended. ``code`` is the name of the precondition that was missing, where one was."""

    command: str
    exit_code: int
    code: str | None = None


Notice = Before | Transition | Progress | Batch | Quarantined | Throttle | Lag | Waits | Retry | Verdict | End


class Observer(Protocol):
    def notice(self, notice: Notice, /) -> None:
        """Take note, in any thread, and soon: work that takes time is put off. On a Before alone it may take its time,
        and may raise Refused; on anything else it must not raise.
        """


@dataclass(frozen=True)
class Observers:
    """Several as one, in their order; none of them by default."""

    observers: Sequence[Observer] = field(default=())

    def notice(self, notice: Notice, /) -> None:
        for observer in self.observers:
            observer.notice(notice)


NOBODY: Observer = Observers()
