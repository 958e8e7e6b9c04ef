"""The way back after a cutover: the mirror image of the switch.

What was written to the target since, through the view or not, is brought to the legacy tables, the rest of it with the
target locked; then the legacy tables have their names again, and their changes are captured as before. Target rows
without a legacy form stay where they are. A transaction whose snapshot is older and that writes to the tables after the
switch is told to try again (``fence``); one that only reads sees them as they were at its snapshot.

From then on the target follows the legacy tables, rows included that others have made meanwhile: the command line has
that seen to (``sync.settle``), which may be done again and is not a part of the switch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import psycopg
from psycopg import sql

from spine_migrate.carry.known import Known
from spine_migrate.cutover import dependents, view
from spine_migrate.cutover.fence import fence
from spine_migrate.cutover.foreign_keys import point_back, tables, validate
from spine_migrate.cutover.group import facts_of
from spine_migrate.cutover.switch import Switched, ask, catch_up, execute_all, move_to, remade, rename, tell
from spine_migrate.cutover.turning import Turning
from spine_migrate.cutover.view import Facts
from spine_migrate.db import ledger
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.cutovers import Cutover, unquoted
from spine_migrate.db.patience import Budget, Patience, patiently
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused
from spine_migrate.notices import NOBODY, Observer

_FIRES: Mapping[str, sql.SQL] = {
    "O": sql.SQL("ENABLE TRIGGER"),
    "A": sql.SQL("ENABLE ALWAYS TRIGGER"),
    "R": sql.SQL("ENABLE REPLICA TRIGGER"),
}


def rollback(
    connection: Connection,
    members: Sequence[Known],
    cutovers: Mapping[int, Cutover],
    turning: Turning,
    *,
    patience: Patience,
    stop: threading.Event,
    observer: Observer = NOBODY,
) -> Switched:
    """``members`` are bound to the renamed tables. Raises Interrupted where the locks cannot be had, Refused (``lag``,
    ``not-drained``, ``dependents``): nothing was switched then.
    """
    ask(observer, members, "rollback")
    names = {number: unquoted(connection, one.source_table) for number, one in cutovers.items()}
    aside = {number: Name(names[number].schema, f"spine_view_{number}") for number, one in cutovers.items() if one.view}
    made = facts_of(connection, members, aside)
    again = {one.migration.migration_id: _again(connection, one, names) for one in members} if aside else {}
    records = [record for one in cutovers.values() for record in one.foreign_keys]
    pointing = list(dict.fromkeys(tables(connection, records)))
    began = 0.0

    def first(connection: Connection, budget: Budget) -> None:
        nonlocal began
        catch_up(connection, turning, budget, stop)
        began = time.monotonic()
        # LOCK TABLE would lock what the views read as well, in the same mode.
        for number, name in aside.items():
            budget.apply()
            rename(connection, "VIEW", names[number], name.table)
        # Beside those of the target: who reads a legacy table would else be waited for with all of it done.
        for name in (*pointing, *(one.tables.source.name for one in members)):
            budget.lock(name, "access exclusive")

    def work(connection: Connection) -> None:
        turning.finish(connection)
        for one in members:
            number = one.migration.migration_id
            _restore(connection, one, names[number], cutovers[number].triggers)
            if number in aside:
                view.carry_grants(connection, made[number], names[number])
        for one in members:
            execute_all(connection, again.get(one.migration.migration_id, []))
        for one in reversed(members):
            _drop(connection, one, made, aside)
        point_back(connection, records)
        ours = fence(connection)
        for name in names.values():
            ours.guard(connection, name, sql.SQL("INSERT OR UPDATE OR DELETE"))
        turning.turn(connection, names)

    patiently(
        connection,
        work,
        tables=list(dict.fromkeys(one.tables.target.name for one in members)),
        mode="share row exclusive",
        patience=patience,
        stop=stop,
        first=first,
    )
    seconds = time.monotonic() - began
    tell(observer, members, "rollback", "done")
    turning.forget(connection, stop=stop)
    unproven = validate(connection, records)
    return Switched([one.migration.migration_id for one in members], seconds, unproven)


def without_legacy_form(connection: Connection, members: Sequence[Known]) -> dict[int, int]:
    """Target rows that the legacy tables cannot hold, by migration; read in one pass over the target."""
    made = facts_of(connection, members, {})
    found = {}
    for one in members:
        number = one.migration.migration_id
        statement = sql.SQL("SELECT count(*) FROM {} AS t WHERE NOT coalesce({}, false)").format(
            one.tables.target.name.identifier, made[number].form.condition("t")
        )
        ((found[number],),) = execute(connection, statement).fetchall()
    return found


def _restore(connection: Connection, one: Known, name: Name, triggers: Mapping[str, str]) -> None:
    number = one.migration.migration_id
    rename(connection, "TABLE", one.tables.source.name, name.table)
    for trigger, fires in triggers.items():
        with_trigger = sql.SQL("ALTER TABLE {} {} {}").format(name.identifier, _FIRES[fires], sql.Identifier(trigger))
        try:
            with connection.transaction():
                execute(connection, with_trigger)
        except psycopg.errors.UndefinedObject:
            # Dropped since; what is not there is not switched on.
            continue
    connection.execute(query("cutover", "rolled_back"), {"migration_id": number})
    move_to(connection, number, "done", name)
    ledger.audit(connection, "rollback", migration_id=number)


def _again(connection: Connection, one: Known, names: Mapping[int, Name]) -> list[str]:
    """What points the application's views and functions to the table again: as they are now, not at the cutover."""
    name = names[one.migration.migration_id]
    ((oid,),) = connection.execute("SELECT %s::regclass::oid", (str(name),)).fetchall()
    return remade(dependents.followers(connection, replace(one.tables.source, name=name, oid=oid)))


def _drop(connection: Connection, one: Known, made: Mapping[int, Facts], aside: Mapping[int, Name]) -> None:
    number = one.migration.migration_id
    if number not in aside:
        return
    try:
        view.drop(connection, made[number])
    except psycopg.errors.DependentObjectsStillExist as error:
        raise Refused(
            "dependents",
            f"Something that was made since the cutover depends on the view in the legacy table's place "
            f"({error.diag.message_detail}); nothing was switched. Drop it, then give the command again.",
        ) from error
