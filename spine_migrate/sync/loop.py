"""Following the application's writes until told otherwise: one session that applies the captures of some migrations.

Migrations whose rows others refer to come first. It can be killed at any moment and started again; a second one for the
same migration is refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import psycopg

from spine_migrate.carry import links
from spine_migrate.carry.control import SETTINGS
from spine_migrate.db import captures
from spine_migrate.db.advisory import give_back
from spine_migrate.db.captures import barrier
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.db.faults import explained, is_closed, is_transient
from spine_migrate.db.queries import query
from spine_migrate.errors import ServerFault
from spine_migrate.mapping.model import Mapping
from spine_migrate.notices import NOBODY, Observer
from spine_migrate.sync.announce import Announcer
from spine_migrate.sync.appliers import verify_whole
from spine_migrate.sync.members import Followed, Member, Members, Options
from spine_migrate.sync.narrowing import CONTENDED

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
# Seconds between two turns beside an application that always writes: each costs its writes a little, however few
# changes there are to apply.
PACE = 1.0
# Seconds for which rows are removed after a TRUNCATE before the log has its turn again.
SLICE = 1.0
# Rows in quarantine for the sake of others that are tried at a time: each may take transactions of its own.
DEPENDENTS = 200
# Seconds before a lost server is looked for again.
RECONNECT = 0.5
# Transactions for one capture before the next has its turn; where the log is longer than one, so many are done at once:
# what a transaction costs whatever its size is shared, and of the changes of one row the last alone is written.
TURN, AT_ONCE = 20, 5


Report = Callable[[Sequence[Followed]], None]


def follow(
    url: str | None,
    *,
    mappings: Sequence[Mapping] = (),
    options: Options,
    stop: threading.Event,
    report: Report,
    observer: Observer = NOBODY,
    speaks: Callable[[int], bool] = lambda _: True,
    ours: set[int] | None = None,
    going: bool = False,
) -> list[Followed]:
    """Apply what is captured for these mappings, or for all, until ``stop`` is set; ``report`` hears of it every second
    or so, and so does ``observer``. Captures that are installed meanwhile are taken up. Where a backfill runs beside
    it, ``speaks`` is false for its migration, and ``ours`` are the server processes of both. ``going``: the server has
    answered the run before, so that one where nobody answers is lost, and not the wrong one.

    Raises Refused (``nothing-captured``, ``already-running``, ``capture-broken``), ServerFault.
    """
    announcer = Announcer(observer)
    ours = set() if ours is None else ours
    loop = _Loop(Members(mappings, options, stop, speaks, ours), options, stop, report, announcer)
    loop.answered = going
    while True:
        try:
            loop.session(url)
        except (psycopg.Error, ServerFault) as error:
            worth_it = is_transient(error) if loop.answered else is_closed(error)
            failing = loop.failed()
            if not stop.is_set() and (not worth_it or failing >= options.retry_seconds):
                raise error if isinstance(error, ServerFault) else explained(error) from error
            announcer.retry(loop.found.subjects.values(), error, RECONNECT)
        else:
            return list(loop.found.followed.values())
        if stop.wait(RECONNECT):
            return list(loop.found.followed.values())


class _Loop:
    def __init__(
        self,
        found: Members,
        options: Options,
        stop: threading.Event,
        report: Report,
        announcer: Announcer,
    ) -> None:
        self.found = found
        self._announcer = announcer
        self._options = options
        self._stop = stop
        self._report = report
        self._due: dict[str, float] = {}
        self._failing_since: float | None = None
        self.answered = False

    def failed(self) -> float:
        """Once more; seconds since the first failure after which nothing went well. How long it went well does not
        count, nor does how long one cycle took.
        """
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
        return now - self._failing_since

    def session(self, url: str | None) -> None:
        """As long as one connection lasts."""
        with _opened(url) as connection, closing(self.found):
            self.answered = True
            self.found.ours.add(connection.info.backend_pid)
            members: list[Member] = []
            self._due.clear()
            while True:
                if self._is_due("members", CHECK if members and self._options.once else SETTLING):
                    members = self.found.find(connection, url)
                try:
                    busy, behind = self._cycle(connection, members)
                except CONTENDED:
                    # Somebody wrote the same row; what was not applied is in the log still.
                    self._stop.wait(IDLE)
                    busy = behind = True
                self._failing_since = None
                if self._is_due("report", 1.0):
                    self._tell(connection, members)
                if self._stop.is_set() or (self._options.once and not busy and self._caught_up(connection, members)):
                    for member in members:
                        if not member.brake.holds(connection):
                            _complete_links(connection, member, judge=not self._stop.is_set())
                    self._tell(connection, members)
                    return
                if not behind and not (self._options.once and busy):
                    self._stop.wait(PACE if busy else IDLE)

    def _is_due(self, what: str, seconds: float) -> bool:
        """Whether something is to be done now that is done every so many seconds."""
        now = time.monotonic()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + seconds
        return True

    def _cycle(self, connection: Connection, members: list[Member]) -> tuple[bool, bool]:
        """One turn for each capture; whether there was anything in a log, and whether one was not emptied. What is in a
        row's way may be among changes that wait; where a log was emptied it is not, however much the application
        writes.
        """
        busy = behind = False
        going = []
        for member in members:
            if member.brake.holds(connection):
                continue
            emptied, entries = self._turn(connection, member)
            busy, behind = busy or entries > 0, behind or not emptied
            going.append(member)
        soon, settling, dependent = (
            self._is_due("soon", SOON),
            self._is_due("settling", SETTLING),
            self._is_due("dependent", DEPENDENT),
        )
        patient = behind or len(going) < len(members)
        for member in going:
            limit = member.rows
            if soon:
                member.followed.applied.add(member.narrowing.deferred(connection, limit=limit, patient=patient))
            if settling:
                self._settle(connection, member)
                _complete_links(connection, member, judge=dependent)
            if dependent:
                member.followed.applied.add(member.narrowing.dependent(connection, limit=min(limit, DEPENDENTS)))
        if self._is_due("check", CHECK):
            _verify(connection, members)
        return busy, behind

    def _turn(self, connection: Connection, member: Member) -> tuple[bool, int]:
        """Whether the log was emptied, and how many entries were applied."""
        limit = rows = member.rows
        entries = 0
        for _ in range(TURN):
            done, emptied = member.narrowing.next(connection, limit=limit)
            self._failing_since = None
            member.followed.applied.add(done)
            entries += done.entries
            if emptied or self._stop.is_set():
                return emptied, entries
            if entries >= TURN * rows or member.brake.holds(connection):
                return False, entries
            # No more than is asked for where the server is busy.
            limit = rows if member.brake.held is not None else AT_ONCE * rows
        return False, entries

    def _settle(self, connection: Connection, member: Member) -> None:
        """Keys that were gone once more, after a barrier."""
        applier, limit = member.applier, member.rows
        noted = applier.noted(connection, limit=limit)
        everything = applier.awaits_everything(connection)
        if noted or everything:
            try:
                barrier(connection, applier.lock)
            except psycopg.errors.LockNotAvailable:
                # A batch takes longer than the lock timeout; the next time will do.
                return
            if noted:
                member.followed.applied.add(member.narrowing.again(connection, noted))
            if everything:
                more = self._until(time.monotonic() + SLICE)
                member.followed.applied.add(member.narrowing.remove_all_extra(connection, limit=limit, more=more))
                if applier.place.after is not None:
                    self._due["settling"] = 0.0

    def _until(self, end: float) -> Callable[[], bool]:
        return lambda: not self._stop.is_set() and time.monotonic() < end

    def _caught_up(self, connection: Connection, members: list[Member]) -> bool:
        return all(captures.lag(connection, member.captured.capture_id).idle for member in members)

    def _tell(self, connection: Connection, members: list[Member]) -> None:
        for member in members:
            followed = member.followed
            followed.lag = captures.lag(connection, member.captured.capture_id)
            followed.held, followed.overdue = member.brake.held, member.brake.overdue
            subject = self.found.subjects[followed.migration_id]
            self._announcer.applied(subject, followed.applied, followed.lag)
            if self.found.speaks(followed.migration_id):
                self._announcer.held(subject, followed.held, overdue=followed.overdue)
        self._report([member.followed for member in members])


def _verify(connection: Connection, members: list[Member]) -> None:
    for member in members:
        # None where a cutover has turned it round since.
        if captures.captured(connection, member.captured.migration_id, member.captured.direction) is not None:
            verify_whole(connection, member.known, member.captured)


@contextmanager
def _opened(url: str | None) -> Iterator[Connection]:
    with closing(connect(url, settings=APPLIER_SETTINGS)) as connection:
        try:
            yield connection
        finally:
            give_back(connection)


def _complete_links(connection: Connection, member: Member, *, judge: bool) -> None:
    """Links whose rows have come. To ``judge`` those that lead nowhere, all rows must have been moved. After a cutover
    the view sees to what is known of them, and cannot see a row that comes at the same time as one that wants it.
    """
    migration_id = member.captured.migration_id
    if member.captured.direction == captures.REVERSE:
        links.complete_beside(connection, member.known.tables.binding, migration_id)
        return
    ((step,),) = connection.execute(query("capture", "step"), {"migration_id": migration_id}).fetchall()
    everything = judge and step != "backfill"
    links.complete(connection, member.known.tables.binding, migration_id, everything_moved=everything)
