"""The switch: in one transaction the target takes the place of the legacy tables.

The legacy tables are locked, what is left in the log is applied, they are renamed, the views take their names, and what
is written to the target from then on is captured for the way back. If any of it fails, all of it did not happen. A
statement of the application that waits for the lock looks the name up again once it has it, and finds the view
(PostgreSQL manual, 13.3.1, and plan invalidation, 43.11.2).

A transaction whose snapshot is older than the switch, and that touches the tables only after it, is told to try again
(``fence``).

The application's triggers stay on the legacy table, switched off: the applier of the way back writes what is, and a
trigger would act a second time or change it. (session_replication_role does the same for a session, and asks for a
superuser.) A rollback switches them on as they were.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import sql
from psycopg.types.json import Jsonb

from spine_migrate import __version__
from spine_migrate.carry.known import Known, ask, tell
from spine_migrate.cutover import key_index, view
from spine_migrate.cutover.dependent import Dependent
from spine_migrate.cutover.fence import drop, fence
from spine_migrate.cutover.foreign_keys import inbound, point_to_target, validate
from spine_migrate.cutover.group import facts_of
from spine_migrate.cutover.standing import Standing, refuse_changed
from spine_migrate.cutover.turning import Turning
from spine_migrate.cutover.view import Facts
from spine_migrate.db import ledger
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.patience import Budget, Patience, patiently
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused
from spine_migrate.notices import NOBODY, Observer

SUFFIX = "_legacy"
# What is made again in the transaction of a switch, so that it follows the name and not the table.
_REMADE = ("view", "function")
# How long the log may take to be caught up with before the lock, in seconds.
_DRAIN_SECONDS = 60.0


@dataclass(frozen=True)
class Switched:
    """``seconds``: how long the application could not get at the tables, from the first lock to the commit.
    ``unproven``: foreign keys that hold for new rows, and could not be validated for all.
    """

    migrations: list[int]
    seconds: float
    unproven: list[str]


@dataclass(frozen=True)
class Kept:
    """What the ledger keeps of a switch for the way back, beside names and triggers."""

    view: bool
    again: list[str]
    foreign_keys: list[dict[str, Any]]


def legacy_name(one: Known) -> Name:
    """What a legacy table is called after the switch."""
    name = one.tables.source.name
    return Name(name.schema, name.table + SUFFIX)


def remade(found: Sequence[Dependent]) -> list[str]:
    """Statements that point views and functions to whatever has the legacy table's name."""
    return [one.statement for one in found if one.kind in _REMADE and one.blocks and one.statement is not None]


def catch_up(connection: Connection, turning: Turning, budget: Budget, stop: threading.Event) -> None:
    """Before each attempt: what was written during the last one would else be applied with the application waiting."""
    turning.drain(connection, seconds=_DRAIN_SECONDS, stop=stop)
    budget.apply()
    turning.hold(connection)
    budget.over()


def switch(
    connection: Connection,
    members: Sequence[Known],
    turning: Turning,
    *,
    with_view: bool,
    again: Mapping[int, list[str]],
    before: Standing,
    patience: Patience,
    stop: threading.Event,
    observer: Observer = NOBODY,
) -> Switched:
    """Every gate is green. ``again``: what ``remade`` gave, by migration; ``before``: what the catalog said before
    anything was looked at. Raises Interrupted where the locks cannot be had, Refused (``lag``, ``not-drained``,
    ``quarantine``, ``changed``, or an observer's veto); nothing was switched then.
    """
    refuse_changed(connection, before)
    made = facts_of(connection, members, {})
    aside = {number: view.aside(one.tables.source.name, number) for number, one in made.items() if with_view}
    pointing = [one for one in inbound(connection, members) if one.movable]
    ask(observer, members, "cutover")
    if with_view:
        key_index.build(connection, made.values(), patience=patience, stop=stop)
    began = 0.0

    def first(connection: Connection, budget: Budget) -> None:
        nonlocal began
        _make_views(connection, made, aside)
        catch_up(connection, turning, budget, stop)
        began = time.monotonic()
        for name in dict.fromkeys(one.tables.target.name for one in members):
            budget.lock(name, "share row exclusive")
        for name in dict.fromkeys(one.key.table for one in pointing):
            budget.lock(name, "access exclusive")

    def work(connection: Connection) -> None:
        refuse_changed(connection, before, views=aside.values())
        turning.finish(connection)
        _refuse_unexplained(connection, members)
        for one in members:
            records = [its.record for its in pointing if its.one is one]
            kept = Kept(with_view, again.get(one.migration.migration_id, []), records)
            _rename(connection, one, kept)
        point_to_target(connection, pointing)
        for number, name in aside.items():
            rename(connection, "VIEW", name, made[number].tables.source.name.table)
        if with_view:
            for one in members:
                execute_all(connection, again.get(one.migration.migration_id, []))
        turning.turn(connection, {one.migration.migration_id: legacy_name(one) for one in members})

    patiently(
        connection,
        work,
        tables=[one.tables.source.name for one in members],
        mode="access exclusive",
        patience=patience,
        stop=stop,
        first=first,
    )
    seconds = time.monotonic() - began
    tell(observer, members, "cutover", "cutover")
    turning.forget(connection, stop=stop)
    unproven = validate(connection, [one.record for one in pointing], patience=patience, stop=stop)
    return Switched([one.migration.migration_id for one in members], seconds, unproven)


def _make_views(connection: Connection, made: Mapping[int, Facts], aside: Mapping[int, Name]) -> None:
    """All but their names: they take longer than the rest of a switch, and nobody has to wait for it."""
    ours = fence(connection)
    for number, name in aside.items():
        view.create(connection, view.set_aside(ours.around(made[number]), number))
        ours.guard(connection, name, sql.SQL("INSERT"))


def _refuse_unexplained(connection: Connection, members: Sequence[Known]) -> None:
    """Rows that came into quarantine after the gates were looked at: the view would not show what was written last."""
    for one in members:
        values = {"migration_id": one.migration.migration_id}
        if counts := connection.execute(query("cutover", "open_quarantine"), values).fetchall():
            raise Refused(
                "quarantine",
                f"{sum(count for _, count in counts):,} rows of {one.mapping.name} came into quarantine meanwhile; "
                f"nothing was switched. Mend or accept them (quarantine show), then give the command again.",
            )


def _rename(connection: Connection, one: Known, kept: Kept) -> None:
    """The legacy table, and all that the ledger has to know for the way back."""
    number, source, legacy = one.migration.migration_id, one.tables.source, legacy_name(one)
    drop(connection, source.name)
    triggers = dict(connection.execute(query("cutover", "triggers"), {"oid": source.oid}).fetchall())
    for name in triggers:
        execute(
            connection,
            sql.SQL("ALTER TABLE {} DISABLE TRIGGER {}").format(source.name.identifier, sql.Identifier(name)),
        )
    rename(connection, "TABLE", source.name, legacy.table)
    values = {
        "migration_id": number,
        "tool_version": __version__,
        "source_table": str(source.name),
        "legacy_table": str(legacy),
        "view": kept.view,
        "triggers": Jsonb(triggers),
        "remade": Jsonb(kept.again),
        "foreign_keys": Jsonb(kept.foreign_keys),
    }
    connection.execute(query("cutover", "record"), values)
    move_to(connection, number, "cutover", legacy)
    ledger.audit(connection, "cutover", migration_id=number, view=kept.view, legacy_table=str(legacy))


def rename(connection: Connection, kind: LiteralString, name: Name, to: str) -> None:
    execute(
        connection,
        sql.SQL("ALTER {} {} RENAME TO {}").format(sql.SQL(kind), name.identifier, sql.Identifier(to)),
    )


def move_to(connection: Connection, migration_id: int, step: str, source: Name) -> None:
    """The step of a migration, and the name of its legacy table."""
    values = {"migration_id": migration_id, "step": step, "source_table": str(source)}
    connection.execute(query("cutover", "move_to"), values)


def execute_all(connection: Connection, statements: Sequence[str]) -> None:
    """Statements that the server itself has printed."""
    for statement in statements:
        execute(connection, sql.SQL(statement))
