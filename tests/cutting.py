"""Cutovers and rollbacks as the command line composes them, called by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spine_migrate.carry.known import Known
from spine_migrate.cutover import dependents
from spine_migrate.cutover import rollback as back
from spine_migrate.cutover import switch as there
from spine_migrate.cutover.gates import Gate, examine
from spine_migrate.cutover.group import group
from spine_migrate.cutover.standing import standing, tables_of
from spine_migrate.db import cutovers
from spine_migrate.db.captures import FORWARD, REVERSE
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.db.patience import Patience
from spine_migrate.mapping.load import load
from spine_migrate.sync.appliers import form_of
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
    patience: Patience = PATIENCE

    def begin(self) -> None:
        move_live(self.legacy, *self.entities)
        apply(self.legacy, *self.entities)

    def switch(
        self,
        *,
        with_view: bool = True,
        seconds: float | None = None,
        remade: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> there.Switched:
        """``remade``: views and functions that follow the tables are pointed to the views. ``meanwhile``: what others
        do after the catalog was looked at.
        """
        with connect(self.legacy.url, settings=PINNED) as connection:
            members = self._members(connection)
            turn = turn_of(connection, members, FORWARD)
            again = {
                one.migration.migration_id: there.remade(dependents.followers(connection, one.tables.source))
                for one in (members if remade else [])
            }
            before = standing(connection, tables_of(members))
            meanwhile()
            return there.switch(
                connection,
                members,
                turn,
                with_view=with_view,
                again=again,
                before=before,
                patience=self.patience if seconds is None else replace(self.patience, seconds=seconds),
                stop=threading.Event(),
            )

    def back(self, *, settled: bool = True, meanwhile: Callable[[], None] = lambda: None) -> there.Switched:
        """``settled``: with what the command line does after the switch, and all that was captured since applied.
        ``meanwhile`` as for ``switch``.
        """
        with connect(self.legacy.url, settings=PINNED) as connection:
            members = self._members(connection)
            numbers = [one.migration.migration_id for one in members]
            before = standing(connection, tables_of(members))
            meanwhile()
            done = back.rollback(
                connection,
                members,
                cutovers.cutovers(connection, numbers),
                turn_of(connection, members, REVERSE),
                before=before,
                patience=self.patience,
                stop=threading.Event(),
            )
            back_again = self._members(connection) if settled else []
            for one in back_again:
                settle(connection, one.tables, form_of(connection, one, back_again))
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


def ten_followed(legacy: Legacy) -> None:
    """Ten executions, moved, their changes captured."""
    legacy.many_executions(10)
    Pair(legacy).begin()


def gate_of(legacy: Legacy, name: str, *entities: str, with_view: bool = True, accepted: Sequence[str] = ()) -> Gate:
    with connect(legacy.url, settings=PINNED) as connection:
        names = [one if one.endswith(".toml") else f"capture-spine/{one}" for one in entities or BOTH]
        members = group(connection, [load(name) for name in names])
        found = examine(
            connection,
            members,
            turn_of(connection, members, FORWARD),
            parity=Gate("parity", ok=True, evidence=""),
            with_view=with_view,
            max_lag=0,
            accepted=accepted,
        )
    return next(one for one in found.gates if one.name == name)
