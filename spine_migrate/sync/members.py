"""The captures that a session of the applier follows, each with its lock and its brake."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from spine_migrate.carry.known import Known, chosen, known
from spine_migrate.carry.orders import Hold
from spine_migrate.carry.settings import Settings
from spine_migrate.carry.signals.every import signals
from spine_migrate.carry.tables import lock_name
from spine_migrate.carry.throttle import Throttle
from spine_migrate.db import captures
from spine_migrate.db.advisory import LAST_STATEMENT, try_lock
from spine_migrate.db.captures import Captured, Lag
from spine_migrate.db.connect import Connection
from spine_migrate.db.cutovers import unsettled
from spine_migrate.db.ledger import Migration
from spine_migrate.db.retirements import allowed
from spine_migrate.errors import Refused, SpineMigrateError
from spine_migrate.mapping.model import Mapping
from spine_migrate.notices import Subject
from spine_migrate.sync.applier import Applier
from spine_migrate.sync.appliers import applier_of
from spine_migrate.sync.brake import Brake
from spine_migrate.sync.narrowing import Narrowing
from spine_migrate.sync.work import Applied

# Entries of one transaction, whatever is set: more would keep locks for long.
MOST_ROWS = 100_000


@dataclass(frozen=True)
class Options:
    """``batch_rows``: entries of one transaction, five times as many where the log is longer. ``once``: stop as soon as
    nothing is left that can be applied. The limits of ``settings`` hold it back until a change is ``max_hold`` seconds
    old, the file ``pause_file`` while it is there.
    """

    batch_rows: int = 2000
    once: bool = False
    retry_seconds: float = 60.0
    settings: Settings = field(default_factory=Settings)
    pause_file: str | None = None
    max_hold: float = 60.0


@dataclass
class Followed:
    """One migration: what was applied in this run, and what is not applied yet; what holds that back, and whether
    changes are applied all the same since they are ``overdue``.
    """

    migration_id: int
    mapping: str
    applied: Applied = field(default_factory=Applied)
    lag: Lag = field(default_factory=Lag)
    held: Hold | None = None
    overdue: bool = False


@dataclass
class Member:
    known: Known
    captured: Captured
    applier: Applier
    followed: Followed
    brake: Brake
    batch_rows: int
    narrowing: Narrowing = field(init=False)

    def __post_init__(self) -> None:
        self.narrowing = Narrowing(self.applier)

    @property
    def rows(self) -> int:
        """Entries of one transaction, as they are told at present."""
        return min(self.brake.throttle.settings.batch_size or self.batch_rows, MOST_ROWS)


class Members:
    """``followed`` and ``subjects`` are by migration, and outlive a session. ``speaks`` says for which migrations the
    applier tells the ledger what holds it back, and nobody else does; ``ours`` are the server processes of the run.
    """

    def __init__(
        self,
        mappings: Sequence[Mapping],
        options: Options,
        stop: threading.Event,
        speaks: Callable[[int], bool],
        ours: set[int],
    ) -> None:
        self._mappings = mappings
        self._options = options
        self._stop = stop
        self.speaks = speaks
        self.ours = ours
        self._there: list[Member] = []
        self.followed: dict[int, Followed] = {}
        self.subjects: dict[int, Subject] = {}

    def close(self) -> None:
        """The session is over."""
        self._keep([])

    def find(self, connection: Connection, url: str | None) -> list[Member]:
        """The captures there are, those first whose rows others refer to; without those whose rollback goes on.

        Raises Refused (``retired`` where one that is named is), ConfigurationError (the pause file), ServerFault.
        """
        names = [mapping.name for mapping in self._mappings]
        migrations = [one for one in chosen(connection) if not names or one.mapping in names]
        found = {
            one.migration_id: one for one in captures.captures(connection, [one.migration_id for one in migrations])
        }
        unfinished = unsettled(connection, list(found))
        if unfinished and self._options.once:
            raise Refused(
                "rollback-unfinished",
                "A rollback has not set aside yet what only the target holds; give spine-migrate rollback again first.",
            )
        kept = allowed(connection, list(found))
        wanted = [
            (migration, found[migration.migration_id])
            for migration in migrations
            if migration.migration_id in found and migration.migration_id not in unfinished | kept
        ]
        self._keep([captured.capture_id for _, captured in wanted])
        there = {member.captured.capture_id for member in self._there}
        for migration, captured in wanted:
            if captured.capture_id not in there:
                self._there.append(self._member(connection, url, migrations, migration, captured))
        if kept and not self._there:
            raise Refused(
                "retire-allowed",
                "The legacy tables are kept as their archive has them, since retire was allowed; spine-migrate retire "
                "drops them, retire --revoke lets changes be carried back again.",
            )
        if not self._there and not unfinished:
            over = [one.mapping for one in chosen(connection, retired=True) if one.step == "retired"]
            chosen(connection, mappings=[name for name in names if name in over])
            raise Refused(
                "nothing-captured", "No changes are captured; spine-migrate sync start or --live begins with it."
            )
        return sorted(self._there, key=lambda one: sum(one.known.needs(other.known) for other in self._there))

    def _keep(self, capture_ids: Sequence[int]) -> None:
        for member in self._there:
            if member.captured.capture_id not in capture_ids:
                member.brake.throttle.__exit__(None, None, None)
        self._there = [member for member in self._there if member.captured.capture_id in capture_ids]

    def _member(
        self,
        connection: Connection,
        url: str | None,
        every: Sequence[Migration],
        migration: Migration,
        captured: Captured,
    ) -> Member:
        one = known(connection, migration, self._mappings)
        number = captured.migration_id
        if one.mapping.digest != migration.mapping_digest:
            raise Refused("mapping-changed", _changed(one.mapping.name, captured.direction))
        name = lock_name(one.tables)
        if not try_lock(connection, ("capture", "try_apply"), name, seconds=LAST_STATEMENT, stop=self._stop):
            raise Refused(
                "already-running", f"Another process applies the changes of {one.mapping.name}; one is enough."
            )
        others = self._others(connection, every, migration)
        applier = applier_of(connection, one, captured, others)
        followed = self.followed.setdefault(number, Followed(number, one.mapping.name))
        self.subjects[number] = one.subject
        parent = next((other.migration.migration_id for other in others if one.needs(other)), None)
        brake = Brake(self._throttle(url, one, parent).__enter__(), captured.capture_id, self._options.max_hold)
        return Member(one, captured, applier, followed, brake, self._options.batch_rows)

    def _others(self, connection: Connection, every: Sequence[Migration], migration: Migration) -> list[Known]:
        """All that may refer to its rows, or they to theirs, whether they are followed by us or by somebody else."""
        found = []
        for other in chosen(connection):
            try:
                found += [known(connection, other, self._mappings)] if other != migration else []
            except SpineMigrateError:
                # One that nobody has asked for, and whose mapping is not to be had.
                if other in every:
                    raise
        return found

    def _throttle(self, url: str | None, one: Known, parent: int | None) -> Throttle:
        options, number = self._options, one.migration.migration_id
        return Throttle(
            url,
            number,
            replace(options.settings, batch_size=options.batch_rows),
            signals(one.tables, self.ours),
            stop=self._stop,
            retry_seconds=options.retry_seconds,
            pause_file=None if options.pause_file is None else Path(options.pause_file),
            parent=parent,
            records=lambda: self.speaks(number),
        )


def _changed(mapping: str, direction: str) -> str:
    """What another file than that of the move would do to what is followed."""
    if direction == captures.REVERSE:
        return (
            f"The file of {mapping} has changed since the move, and what it takes for a row without a legacy form is "
            f"deleted from the legacy table; restore the file."
        )
    return (
        f"The file of {mapping} has changed since the move, and what is applied would be other rows than those that "
        f"were moved; restore the file, or see spine-migrate quarantine retry --accept-mapping."
    )
