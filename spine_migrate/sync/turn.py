"""What a cutover and a rollback ask of change capture: apply all that is left, then turn the direction round.

``drain`` works beside the application and leaves a handful of entries. ``hold``, ``finish`` and ``turn`` are parts of
the caller's transaction, which holds the locks that keep everybody from writing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field

from spine_migrate.carry import links, orders
from spine_migrate.carry.control import broken_off_by
from spine_migrate.carry.known import Known
from spine_migrate.carry.tables import lock_name
from spine_migrate.db import captures
from spine_migrate.db.captures import FORWARD, REVERSE, Captured, Lag
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection, another
from spine_migrate.db.patience import Patience
from spine_migrate.db.queries import query
from spine_migrate.errors import Interrupted, Refused
from spine_migrate.mapping.emit.capture import Key
from spine_migrate.sync import capture
from spine_migrate.sync.appliers import applier_of, reverse_key, verify_whole
from spine_migrate.sync.loop import APPLIER_SETTINGS, IDLE
from spine_migrate.sync.narrowing import CONTENDED, Narrowing
from spine_migrate.sync.state import NAMED
from spine_migrate.sync.work import Overtaken

_ROWS = 2000
# So few entries are applied in some ten milliseconds, with the application waiting; more than the most are not.
FEW, MOST = 200, 5000
_SWEEPING = Patience(lock_timeout=100, seconds=5.0)
# Plans of the applier's statements, see APPLIER_SETTINGS.
_PLANS = {name: value for name, value in APPLIER_SETTINGS.items() if name.startswith("enable_")}


@dataclass(frozen=True)
class Turn:
    """The captures of some migrations in one direction, those first whose rows others refer to. ``ready``: what applies
    the rest, from ``hold`` on. ``cancel``: the wish to break off what ``drain`` does.
    """

    members: Sequence[Known]
    captured: dict[int, Captured]
    direction: str
    ready: list[Narrowing] = field(default_factory=list)
    cancel: threading.Event = field(default_factory=threading.Event)

    def lag(self, connection: Connection) -> dict[int, Lag]:
        """By migration."""
        return {number: captures.lag(connection, one.capture_id) for number, one in self.captured.items()}

    def verify(self, connection: Connection) -> None:
        """Raises Refused (``capture-missing``, ``capture-broken``)."""
        for one in self.members:
            found = self.captured.get(one.migration.migration_id)
            if found is None:
                raise Refused(
                    "capture-missing",
                    f"Changes of {one.tables.source.name} are not captured; run spine-migrate sync start.",
                )
            verify_whole(connection, one, found)

    def drain(self, connection: Connection, *, seconds: float, stop: threading.Event) -> None:
        """Until few entries are left. Another process may be at it as well. A busy server does not hold it back: who
        waits for the switch wants it now. Raises Refused (``paused``, ``lag``, ``not-drained``), Interrupted.
        """
        end = time.monotonic() + seconds

        def more() -> bool:
            return not stop.is_set() and time.monotonic() <= end

        with (
            closing(another(connection, settings=APPLIER_SETTINGS)) as session,
            broken_off_by(self.cancel, lambda: [session]),
        ):
            appliers = self._appliers(session)
            while True:
                self._refuse_paused(session)
                try:
                    self._round(session, appliers, more)
                except CONTENDED:
                    stop.wait(IDLE)
                lag = self.lag(session).values()
                if sum(one.entries for one in lag) <= FEW and not any(one.gone or one.untried for one in lag):
                    # Each of them would be tried once more with the application waiting.
                    self._refuse_rest(session, most=FEW)
                    return
                if stop.is_set():
                    raise Interrupted("Stopped before the switch; nothing was changed.")
                if time.monotonic() > end:
                    raise Refused(
                        "lag",
                        f"The changes could not be caught up with in {seconds:g} s; the application writes faster than "
                        f"they are applied. Try again at a quieter time.",
                    )

    def _refuse_paused(self, connection: Connection) -> None:
        for one in self.members:
            told = orders.read(connection, one.migration.migration_id, None)
            if told.paused_at is not None:
                raise Refused(
                    "paused",
                    f"{one.mapping.name} is paused by {told.paused_by} since {told.paused_at:%Y-%m-%d %H:%M:%S %Z}, "
                    f"so its changes are not applied; spine-migrate resume first.",
                )

    def _round(
        self, connection: Connection, appliers: Sequence[Narrowing], more: Callable[[], bool] = lambda: True
    ) -> None:
        """``more``: asked between two transactions, since entries may come as fast as they are applied."""
        for narrowing in appliers:
            applier = narrowing.applier
            while not narrowing.next(connection, limit=_ROWS)[1] and more():
                pass
            if not more():
                return
            noted = applier.noted(connection, limit=_ROWS)
            everything = applier.awaits_everything(connection)
            if noted or everything:
                captures.barrier(connection, applier.lock)
                narrowing.again(connection, noted)
                if everything:
                    narrowing.remove_all_extra(connection, limit=_ROWS, more=more)
            narrowing.deferred(connection, limit=_ROWS, patient=True)

    def hold(self, connection: Connection) -> None:
        """Every batch is over, and every applier of these waits before it has a lock that we would wait for. What is to
        apply the rest looks at the tables now, with nobody waiting.
        """
        for name in sorted(lock_name(one.tables) for one in self.members):
            connection.execute(query("capture", "exclude_until_end"), {"name": name})
        for one in sorted(self.captured.values(), key=lambda one: one.capture_id):
            connection.execute(query("capture", "hold"), {"capture_id": one.capture_id})
        self.ready[:] = self._appliers(connection)

    def finish(self, connection: Connection) -> None:
        """All that is left. Raises Refused (``lag``, ``not-drained``) where something cannot be, Interrupted."""
        for name, value in _PLANS.items():
            connection.execute("SELECT set_config(%s, %s, true)", (name, value))
        if sum(one.entries for one in self.lag(connection).values()) > MOST:
            raise Refused("lag", "Too much was written while the lock was waited for; try again at a quieter time.")
        before: list[Lag] = []
        while (now := list(self.lag(connection).values())) != before and not all(one.nothing for one in now):
            before = now
            try:
                self._round(connection, self.ready)
            except Overtaken as error:
                raise Interrupted("Somebody wrote the same rows; nothing was switched, try again.") from error
        if self.direction == FORWARD:
            for one in self.members:
                links.complete(connection, one.tables.binding, one.migration.migration_id, everything_moved=False)
        self._refuse_rest(connection)
        for name in _PLANS:
            connection.execute("SELECT set_config(%s, reset_val, true) FROM pg_settings WHERE name = %s", (name, name))

    def _refuse_rest(self, connection: Connection, *, most: int = 0) -> None:
        """``most``: so many rows that are put off may be left."""
        for number, one in self.captured.items():
            lag = captures.lag(connection, one.capture_id)
            if lag.nothing or (most and lag.deferred <= most):
                continue
            values = {"capture_id": one.capture_id, "limit": NAMED}
            # Their keys alone: what the server said may hold values of the row.
            rows = connection.execute(query("capture", "put_off_rows"), values).fetchall()
            raise Refused(
                "not-drained",
                f"{lag.deferred} changed rows of migration {number} cannot be applied yet "
                f"({', '.join(row[0] for row in rows)}); spine-migrate sync status shows why: mend them, then give the "
                f"command again.",
            )

    def turn(self, connection: Connection, sources: Mapping[int, Name]) -> None:
        """Capture the other direction instead; ``sources``: what the legacy tables are called by then."""
        for one in self.members:
            tables, number = one.tables, one.migration.migration_id
            found = self.captured[number]
            if self.direction == FORWARD:
                capture.take_away(connection, found)
                key = reverse_key(connection, one)
                name, oid, direction = tables.target.name, tables.target.oid, REVERSE
            else:
                capture.silence(connection, found)
                key = Key.column(one.mapping.key)
                name, oid, direction = sources[number], tables.source.oid, FORWARD
            capture.put(connection, migration_id=number, direction=direction, relation=name, oid=oid, key=key)
            made = captures.captured(connection, number, REVERSE)
            if made is not None:
                # What was moved is what the legacy table says; there is nothing to look at again.
                connection.execute(query("capture", "caught_up"), {"capture_id": made.capture_id})

    def forget(self, connection: Connection, *, stop: threading.Event) -> None:
        """After the switch: what the log has of the captures that are over, which is applied, and triggers that a
        rollback has left. Where somebody reads the target for long these stay, and do nothing.
        """
        for one in self.members:
            found = self.captured[one.migration.migration_id]
            if self.direction == REVERSE:
                with suppress(Interrupted):
                    capture.sweep(connection, found, patience=_SWEEPING, stop=stop)
            capture.forget(connection, found)

    def _appliers(self, connection: Connection) -> list[Narrowing]:
        return [
            Narrowing(applier_of(connection, one, self.captured[one.migration.migration_id], self.members))
            for one in self.members
            if one.migration.migration_id in self.captured
        ]


def turn_of(
    connection: Connection, members: Sequence[Known], direction: str, *, cancel: threading.Event | None = None
) -> Turn:
    found = captures.captures(connection, [one.migration.migration_id for one in members])
    captured = {one.migration_id: one for one in found if one.direction == direction}
    return Turn(members, captured, direction, cancel=cancel or threading.Event())
