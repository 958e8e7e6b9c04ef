"""Following the application's writes until told otherwise: one session that applies the captures of some migrations.

Migrations whose rows others refer to come first. It can be killed at any moment and started again; a second one for the
same migration is refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import psycopg

from spine_migrate.carry import links
from spine_migrate.carry.control import SETTINGS
from spine_migrate.carry.known import Known, chosen, known
from spine_migrate.carry.tables import lock_name
from spine_migrate.db import captures
from spine_migrate.db.captures import Captured, Lag, barrier
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.db.cutovers import unsettled
from spine_migrate.db.faults import explained, is_transient
from spine_migrate.db.ledger import Migration
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused, ServerFault
from spine_migrate.mapping.model import Mapping
from spine_migrate.notices import NOBODY, Observer, Subject
from spine_migrate.sync.announce import Announcer
from spine_migrate.sync.applier import Applier
from spine_migrate.sync.appliers import applier_of, verify_whole
from spine_migrate.sync.work import Applied, Overtaken

# Every statement is about a few keys of tables that may never have been analyzed: each is a look-up by an index. What
# is applied is out of the log in the same transaction, so a commit lost with the server is applied once more.
APPLIER_SETTINGS = {
    **SETTINGS,
    **PINNED,
    "synchronous_commit": "off",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
# Seconds between two looks: at an empty log, at rows that were put off, at keys that were gone, at quarantine, at the
# triggers.
IDLE, SOON, SETTLING, DEPENDENT, CHECK = 0.2, 0.5, 2.0, 10.0, 30.0
# Rows in quarantine for the sake of others that are tried at a time: each may take transactions of its own.
DEPENDENTS = 200
# Seconds before a lost server is looked for again, and for which another session's lock is waited for.
RECONNECT, LAST_STATEMENT = 0.5, 10.0
CONTENDED = (
    Overtaken,
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.LockNotAvailable,
)
# Transactions for one capture before the next has its turn.
TURN = 20


@dataclass(frozen=True)
class Options:
    """``batch_rows``: entries of one transaction. ``once``: stop as soon as nothing is left that can be
    applied.
    """

    batch_rows: int = 2000
    once: bool = False
    retry_seconds: float = 60.0


@dataclass
class Followed:
    """One migration: what was applied in this run, and what is not applied yet."""

    migration_id: int
    mapping: str
    applied: Applied = field(default_factory=Applied)
    lag: Lag = field(default_factory=Lag)


@dataclass
class _Member:
    known: Known
    captured: Captured
    applier: Applier
    followed: Followed


Report = Callable[[Sequence[Followed]], None]


def follow(
    url: str | None,
    *,
    mappings: Sequence[Mapping] = (),
    options: Options,
    stop: threading.Event,
    report: Report,
    observer: Observer = NOBODY,
) -> list[Followed]:
    """Apply what is captured for these mappings, or for all, until ``stop`` is set; ``report`` hears of it every second
    or so, and so does ``observer``. Captures that are installed meanwhile are taken up.

    Raises Refused (``nothing-captured``, ``already-running``, ``capture-broken``), ServerFault.
    """
    announcer = Announcer(observer)
    loop = _Loop(mappings, options, stop, report, announcer)
    while True:
        try:
            loop.session(url)
        except (psycopg.Error, ServerFault) as error:
            if not stop.is_set() and (not is_transient(error) or loop.silent_for > options.retry_seconds):
                raise error if isinstance(error, ServerFault) else explained(error) from error
            announcer.retry(loop.subjects.values(), error, RECONNECT)
        else:
            return list(loop.followed.values())
        if stop.wait(RECONNECT):
            return list(loop.followed.values())


class _Loop:
    def __init__(
        self,
        mappings: Sequence[Mapping],
        options: Options,
        stop: threading.Event,
        report: Report,
        announcer: Announcer,
    ) -> None:
        self._announcer = announcer
        self._mappings = mappings
        self._options = options
        self._stop = stop
        self._report = report
        self._due: dict[str, float] = {}
        self._well_at = time.monotonic()
        self.followed: dict[int, Followed] = {}
        self.subjects: dict[int, Subject] = {}

    @property
    def silent_for(self) -> float:
        """Seconds since something went well."""
        return time.monotonic() - self._well_at

    def session(self, url: str | None) -> None:
        """As long as one connection lasts."""
        with closing(connect(url, settings=APPLIER_SETTINGS)) as connection:
            members: list[_Member] = []
            self._due.clear()
            while True:
                if self._is_due("members", CHECK if members and self._options.once else SETTLING):
                    members = self._members(connection, members)
                try:
                    busy = self._cycle(connection, members)
                except CONTENDED:
                    # Somebody wrote the same rows; what was not applied is in the log still.
                    busy = not self._stop.wait(IDLE)
                self._well_at = time.monotonic()
                if self._is_due("report", 1.0):
                    self._tell(connection, members)
                if self._stop.is_set() or (self._options.once and not busy and self._caught_up(connection, members)):
                    for member in members:
                        _complete_links(connection, member, judge=not self._stop.is_set())
                    self._tell(connection, members)
                    return
                if not busy:
                    self._stop.wait(IDLE)

    def _is_due(self, what: str, seconds: float) -> bool:
        """Whether something is to be done now that is done every so many seconds."""
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + seconds
        return True

    def _members(self, connection: Connection, before: list[_Member]) -> list[_Member]:
        """The captures there are, those first whose rows others refer to; without those whose rollback goes on."""
        names = [mapping.name for mapping in self._mappings]
        migrations = [one for one in chosen(connection) if not names or one.mapping in names]
        found = {
            one.migration_id: one for one in captures.captures(connection, [one.migration_id for one in migrations])
        }
        there = {member.captured.capture_id: member for member in before}
        unfinished = unsettled(connection, list(found))
        if unfinished and self._options.once:
            raise Refused(
                "rollback-unfinished",
                "A rollback has not set aside yet what only the target holds; give spine-migrate rollback again first.",
            )
        members = []
        for migration in migrations:
            captured = found.get(migration.migration_id)
            if captured is None or migration.migration_id in unfinished:
                continue
            member = there.get(captured.capture_id)
            if member is None:
                member = self._member(connection, migrations, migration, captured)
            members.append(member)
        if not members and not unfinished:
            raise Refused(
                "nothing-captured", "No changes are captured; spine-migrate sync start or --live begins with it."
            )
        return sorted(members, key=lambda one: sum(one.known.needs(other.known) for other in members))

    def _member(
        self, connection: Connection, every: Sequence[Migration], migration: Migration, captured: Captured
    ) -> _Member:
        one = known(connection, migration, self._mappings)
        lock = lock_name(one.tables)
        if not self._locked(connection, lock):
            raise Refused(
                "already-running", f"Another process applies the changes of {one.mapping.name}; one is enough."
            )
        others = [known(connection, other, self._mappings) for other in every if other != migration]
        applier = applier_of(connection, one, captured, others)
        followed = self.followed.setdefault(captured.migration_id, Followed(captured.migration_id, one.mapping.name))
        self.subjects[captured.migration_id] = Subject(
            one.mapping.name, captured.migration_id, str(one.tables.source.name), str(one.tables.target.name)
        )
        return _Member(one, captured, applier, followed)

    def _locked(self, connection: Connection, name: str) -> bool:
        """A process that was killed keeps its lock until the server has done with its last statement."""
        end = time.monotonic() + LAST_STATEMENT
        while True:
            ((had,),) = connection.execute(query("capture", "try_apply"), {"name": name}).fetchall()
            if had or time.monotonic() >= end or self._stop.wait(IDLE):
                return bool(had)

    def _cycle(self, connection: Connection, members: list[_Member]) -> bool:
        """One turn for each capture; whether there was anything in a log. What is in a row's way may be among changes
        that wait; where a log was emptied it is not, however much the application writes.
        """
        busy = behind = False
        for member in members:
            for _ in range(TURN):
                done = member.applier.next(connection, limit=self._options.batch_rows)
                member.followed.applied.add(done)
                busy = busy or done.entries > 0
                if done.entries < self._options.batch_rows or self._stop.is_set():
                    break
            else:
                behind = True
        soon, settling, dependent = (
            self._is_due("soon", SOON),
            self._is_due("settling", SETTLING),
            self._is_due("dependent", DEPENDENT),
        )
        for member in members:
            limit = self._options.batch_rows
            if soon:
                member.followed.applied.add(member.applier.deferred(connection, limit=limit, patient=behind))
            if settling:
                self._settle(connection, member)
                _complete_links(connection, member, judge=dependent)
            if dependent:
                member.followed.applied.add(member.applier.dependent(connection, limit=min(limit, DEPENDENTS)))
        if self._is_due("check", CHECK):
            _verify(connection, members)
        return busy

    def _settle(self, connection: Connection, member: _Member) -> None:
        """Keys that were gone once more, after a barrier."""
        applier, limit = member.applier, self._options.batch_rows
        noted = applier.noted(connection, limit=limit)
        everything = applier.awaits_everything(connection)
        if noted or everything:
            try:
                barrier(connection, applier.lock)
            except psycopg.errors.LockNotAvailable:
                # A batch takes longer than the lock timeout; the next time will do.
                return
            if noted:
                member.followed.applied.add(applier.again(connection, noted))
            while everything and not self._stop.is_set():
                removed = applier.everything(connection, limit=limit)
                if removed is None or not removed.deleted:
                    break
                member.followed.applied.add(removed)

    def _caught_up(self, connection: Connection, members: list[_Member]) -> bool:
        return all(captures.lag(connection, member.captured.capture_id).idle for member in members)

    def _tell(self, connection: Connection, members: list[_Member]) -> None:
        for member in members:
            followed = member.followed
            followed.lag = captures.lag(connection, member.captured.capture_id)
            self._announcer.applied(self.subjects[followed.migration_id], followed.applied, followed.lag)
        self._report([member.followed for member in members])


def _verify(connection: Connection, members: list[_Member]) -> None:
    for member in members:
        # None where a cutover has turned it round since.
        if captures.captured(connection, member.captured.migration_id, member.captured.direction) is not None:
            verify_whole(connection, member.known, member.captured)


def _complete_links(connection: Connection, member: _Member, *, judge: bool) -> None:
    """Links whose rows have come. To ``judge`` those that lead nowhere, all rows must have been moved. After a cutover
    they are the view's.
    """
    if member.captured.direction == captures.REVERSE:
        return
    migration_id = member.captured.migration_id
    ((step,),) = connection.execute(query("capture", "step"), {"migration_id": migration_id}).fetchall()
    everything = judge and step != "backfill"
    connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    links.complete(connection, member.known.tables.binding, migration_id, everything_moved=everything)
