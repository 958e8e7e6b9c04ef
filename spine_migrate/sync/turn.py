"""What a cutover and a rollback ask of change capture: apply all that is left, then turn the direction round.

``drain`` works beside the application and leaves a handful of entries. ``hold``, ``finish`` and ``turn`` are parts of
the caller's transaction, which holds the locks that keep everybody from writing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass

from spine_migrate.carry import links
from spine_migrate.carry.known import Known
from spine_migrate.carry.tables import lock_name
from spine_migrate.db import captures
from spine_migrate.db.captures import FORWARD, REVERSE, Captured, Lag
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection, another
from spine_migrate.db.patience import Patience
from spine_migrate.db.queries import query
from spine_migrate.errors import Interrupted, Refused
from spine_migrate.sync import capture
from spine_migrate.sync.applier import Applier
from spine_migrate.sync.appliers import applier_of, verify_whole
from spine_migrate.sync.loop import APPLIER_SETTINGS, CONTENDED, IDLE
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
    """The captures of some migrations in one direction, those first whose rows others refer to."""

    members: Sequence[Known]
    captured: dict[int, Captured]
    direction: str

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
        """Until few entries are left. Another process may be at it as well. Raises Refused (``lag``), Interrupted."""
        end = time.monotonic() + seconds
        with closing(another(connection, settings=APPLIER_SETTINGS)) as session:
            appliers = self._appliers(session)
            while True:
                try:
                    self._round(session, appliers)
                except CONTENDED:
                    stop.wait(IDLE)
                lag = self.lag(session).values()
                if sum(one.entries for one in lag) <= FEW and not any(one.gone for one in lag):
                    return
                if stop.is_set():
                    raise Interrupted("Stopped before the switch; nothing was changed.")
                if time.monotonic() > end:
                    raise Refused(
                        "lag",
                        f"The changes could not be caught up with in {seconds:g} s; the application writes faster than "
                        f"they are applied. Try again at a quieter time.",
                    )

    def _round(self, connection: Connection, appliers: Sequence[Applier]) -> None:
        for applier in appliers:
            while applier.next(connection, limit=_ROWS).entries >= _ROWS:
                pass
            noted = applier.noted(connection, limit=_ROWS)
            everything = applier.awaits_everything(connection)
            if noted or everything:
                captures.barrier(connection, applier.lock)
                applier.again(connection, noted)
                while everything and (removed := applier.everything(connection, limit=_ROWS)) and removed.deleted:
                    pass
            applier.deferred(connection, limit=_ROWS, patient=True)

    def hold(self, connection: Connection) -> None:
        """Every batch is over, and every applier of these waits before it has a lock that we would wait for."""
        for name in sorted(lock_name(one.tables) for one in self.members):
            connection.execute(query("capture", "exclude_until_end"), {"name": name})
        for one in sorted(self.captured.values(), key=lambda one: one.capture_id):
            connection.execute(query("capture", "hold"), {"capture_id": one.capture_id})

    def finish(self, connection: Connection) -> None:
        """All that is left. Raises Refused (``lag``, ``not-drained``) where something cannot be, Interrupted."""
        for name, value in _PLANS.items():
            connection.execute("SELECT set_config(%s, %s, true)", (name, value))
        appliers = self._appliers(connection)
        if sum(one.entries for one in self.lag(connection).values()) > MOST:
            raise Refused("lag", "Too much was written while the lock was waited for; try again at a quieter time.")
        before: list[Lag] = []
        while (now := list(self.lag(connection).values())) != before and not all(one.nothing for one in now):
            before = now
            try:
                self._round(connection, appliers)
            except Overtaken as error:
                raise Interrupted("Somebody wrote the same rows; nothing was switched, try again.") from error
        if self.direction == FORWARD:
            for one in self.members:
                links.complete(connection, one.tables.binding, one.migration.migration_id, everything_moved=False)
        self._refuse_rest(connection)
        for name in _PLANS:
            connection.execute("SELECT set_config(%s, reset_val, true) FROM pg_settings WHERE name = %s", (name, name))

    def _refuse_rest(self, connection: Connection) -> None:
        for number, one in self.captured.items():
            lag = captures.lag(connection, one.capture_id)
            if lag.nothing:
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
            tables, mapping, number = one.tables, one.mapping, one.migration.migration_id
            found = self.captured[number]
            if self.direction == FORWARD:
                capture.take_away(connection, found, key=mapping.key)
                name, oid, key, direction = tables.target.name, tables.target.oid, mapping.target.key, REVERSE
            else:
                capture.silence(connection, found)
                name, oid, key, direction = sources[number], tables.source.oid, mapping.key, FORWARD
            capture.put(connection, migration_id=number, direction=direction, relation=name, oid=oid, key=key)

    def forget(self, connection: Connection, *, stop: threading.Event) -> None:
        """After the switch: what the log has of the captures that are over, which is applied, and triggers that a
        rollback has left. Where somebody reads the target for long these stay, and do nothing.
        """
        for one in self.members:
            found = self.captured[one.migration.migration_id]
            if self.direction == REVERSE:
                with suppress(Interrupted):
                    capture.sweep(connection, found, key=one.mapping.target.key, patience=_SWEEPING, stop=stop)
            capture.forget(connection, found)

    def _appliers(self, connection: Connection) -> list[Applier]:
        return [
            applier_of(connection, one, self.captured[one.migration.migration_id], self.members)
            for one in self.members
            if one.migration.migration_id in self.captured
        ]


def turn_of(connection: Connection, members: Sequence[Known], direction: str) -> Turn:
    found = captures.captures(connection, [one.migration.migration_id for one in members])
    return Turn(members, {one.migration_id: one for one in found if one.direction == direction}, direction)
