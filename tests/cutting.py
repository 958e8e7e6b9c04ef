"""Cutovers and rollbacks as the command line composes them, called by hand."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from spine_migrate.carry.known import Known
from spine_migrate.cutover import rollback as back
from spine_migrate.cutover import switch as there
from spine_migrate.cutover.group import group
from spine_migrate.db import cutovers
from spine_migrate.db.captures import FORWARD, REVERSE
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.db.patience import Patience
from spine_migrate.mapping.load import load
from spine_migrate.sync.settle import settle
from spine_migrate.sync.turn import turn_of
from tests.legacy import Legacy
from tests.syncing import apply, move_live

PATIENCE = Patience(lock_timeout=500, seconds=30)
BOTH = ("executions", "execution_events")


@dataclass(frozen=True)
class Pair:
    """A legacy database with executions and events whose writes are followed, and the way over and back."""

    legacy: Legacy
    entities: tuple[str, ...] = BOTH

    def begin(self) -> None:
        move_live(self.legacy, *self.entities)
        apply(self.legacy, *self.entities)

    def switch(self, *, with_view: bool = True, seconds: float = PATIENCE.seconds) -> there.Switched:
        with connect(self.legacy.url, settings=PINNED) as connection:
            members = self._members(connection)
            turn = turn_of(connection, members, FORWARD)
            return there.switch(
                connection,
                members,
                turn,
                with_view=with_view,
                again={},
                patience=replace(PATIENCE, seconds=seconds),
                stop=threading.Event(),
            )

    def back(self, *, settled: bool = True) -> there.Switched:
        """``settled``: with what the command line does after the switch, and all that was captured since applied."""
        with connect(self.legacy.url, settings=PINNED) as connection:
            members = self._members(connection)
            numbers = [one.migration.migration_id for one in members]
            done = back.rollback(
                connection,
                members,
                cutovers.cutovers(connection, numbers),
                turn_of(connection, members, REVERSE),
                patience=PATIENCE,
                stop=threading.Event(),
            )
            for one in self._members(connection) if settled else []:
                settle(connection, one.tables, one.migration.migration_id)
        if settled:
            self.apply()
        return done

    def accept(self) -> None:
        """What is in quarantine may stay behind."""
        self.legacy.execute(
            "UPDATE spine_migrate.quarantine SET accepted_at = now(), accepted_by = 'test', accepted_reason = 'known',"
            " accepted_digest = md5(source_row::text)"
        )

    def apply(self) -> None:
        """What is captured, in whatever direction."""
        apply(self.legacy, *self.entities)

    def _members(self, connection: Connection) -> list[Known]:
        return group(connection, [load(f"capture-spine/{entity}") for entity in self.entities])
