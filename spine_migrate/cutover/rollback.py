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

from spine_migrate.carry.known import Known, ask, tell
from spine_migrate.cutover import dependents, view
from spine_migrate.cutover.fence import fence
from spine_migrate.cutover.foreign_keys import point_back, still_there, tables, validate
from spine_migrate.cutover.gates import unchanged
from spine_migrate.cutover.group import facts_of
from spine_migrate.cutover.standing import TABLES, Standing, followers, refuse_changed, refuse_other_followers
from spine_migrate.cutover.switch import Switched, catch_up, execute_all, move_to, remade, rename
from spine_migrate.cutover.turning import Turning
from spine_migrate.cutover.view import Facts
from spine_migrate.db import ledger, retirements
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
    before: Standing,
    patience: Patience,
    stop: threading.Event,
    observer: Observer = NOBODY,
) -> Switched:
    """``members`` are bound to the renamed tables; ``before``: what the catalog said of them before anything was looked
    at. Raises Interrupted where the locks cannot be had, Refused (``lag``, ``not-drained``, ``dependents``,
    ``changed``, ``mapping-changed``, ``name-taken``): nothing was switched then.
    """
    _refuse_other_rules(members)
    names = {number: unquoted(connection, one.source_table) for number, one in cutovers.items()}
    there = {number for number, one in cutovers.items() if _has_view(connection, one)}
    aside = {number: view.aside(names[number], number) for number in there}
    ask(observer, members, "rollback")
    made = facts_of(connection, members, aside)
    shown = {one.migration.migration_id: one for one in members if one.migration.migration_id in aside}
    again: dict[int, list[str]] = {}
    recorded = [record for one in cutovers.values() for record in one.foreign_keys]
    records = still_there(connection, members, recorded)
    pointing = list(dict.fromkeys(tables(connection, records)))
    began = 0.0

    def first(connection: Connection, budget: Budget) -> None:
        nonlocal began
        catch_up(connection, turning, budget, stop)
        # As late as can be: what is made over the view now follows it, and what it becomes is by its name.
        views = [_oid(connection, names[number]) for number in shown]
        hanging = followers(connection, views)
        again.update({number: _again(connection, one, names[number]) for number, one in shown.items()})
        began = time.monotonic()
        # LOCK TABLE would lock what the views read as well, in the same mode.
        for number, name in aside.items():
            budget.apply(names[number])
            rename(connection, "VIEW", names[number], name.table)
        # Who was waited for may have replaced one of them.
        refuse_other_followers(connection, hanging, views)
        # Beside those of the target: who reads a legacy table would else be waited for with all of it done.
        for name in (*pointing, *(one.tables.source.name for one in members)):
            budget.lock(name, "access exclusive")

    def work(connection: Connection) -> None:
        # The views have another name since a moment ago; what hangs on them is looked at when they are dropped.
        refuse_changed(connection, before, kinds=TABLES)
        turning.finish(connection)
        for one in members:
            number = one.migration.migration_id
            _restore(connection, one, names[number], cutovers[number].triggers)
            if number in aside:
                view.carry_grants(connection, made[number], names[number])
        for one in members:
            execute_all(connection, again.get(one.migration.migration_id, []))
        for one in reversed(members):
            _drop(connection, made[one.migration.migration_id])
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
    unproven = validate(connection, records, patience=patience, stop=stop)
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
    if retirements.installed(connection):
        connection.execute(query("retire", "revoke"), {"migration_id": number})
    move_to(connection, number, "done", name)
    ledger.audit(connection, "rollback", migration_id=number)


def _again(connection: Connection, one: Known, name: Name) -> list[str]:
    """What points the application's views and functions to the table again: as they are now, not at the cutover."""
    relation = replace(one.tables.source, name=name, oid=_oid(connection, name))
    return remade(dependents.followers(connection, relation))


def _oid(connection: Connection, name: Name) -> int:
    ((oid,),) = connection.execute("SELECT %s::regclass::oid", (str(name),)).fetchall()
    return int(oid)


def _refuse_other_rules(members: Sequence[Known]) -> None:
    gate = unchanged(members)
    if not gate.ok:
        raise Refused(
            "mapping-changed",
            f"{gate.evidence} The way back goes by the rules that the rows have come by; nothing was switched. "
            f"{gate.remedy}",
        )


def _has_view(connection: Connection, one: Cutover) -> bool:
    """Whether the view is in the legacy table's place; somebody may have dropped it since. Raises Refused
    (``name-taken``) where something else is there.
    """
    values = {"name": one.source_table, "migration_id": one.migration_id}
    ((place,),) = connection.execute(query("cutover", "place"), values).fetchall()
    if place == "another":
        raise Refused(
            "name-taken",
            f"{one.source_table}, the name that the legacy table gets back, is something else's by now; nothing was "
            f"switched. Rename or drop that, then give the command again.",
        )
    return bool(place == "view")


def _drop(connection: Connection, made: Facts) -> None:
    try:
        view.drop(connection, made)
    except psycopg.errors.DependentObjectsStillExist as error:
        raise Refused(
            "dependents",
            f"Something that was made since the cutover depends on the view in the legacy table's place "
            f"({error.diag.message_detail}); nothing was switched. Drop it, then give the command again.",
        ) from error
