"""Installing and removing change capture on a table that is being written to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from psycopg import sql
from psycopg.rows import class_row

from spine_migrate import __version__
from spine_migrate.db import captures, ledger
from spine_migrate.db.captures import Captured
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.patience import Patience, patiently
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused
from spine_migrate.mapping.emit.capture import LEDGER, PLAIN, Capture, Installed, Key

_LOCK = "share row exclusive"


@dataclass(frozen=True)
class Member:
    """A table that a statement on the captured table may write to; ``kind`` is that of pg_class."""

    oid: int
    schema: str
    name: str
    kind: str
    partition: bool

    @property
    def table(self) -> Name:
        return Name(self.schema, self.name)


@dataclass(frozen=True)
class Trigger:
    schema: str
    table_name: str
    name: str
    always: bool
    cloned: bool

    @property
    def table(self) -> Name:
        return Name(self.schema, self.table_name)


def members_of(connection: Connection, oid: int) -> list[Member]:
    """Each is locked while triggers are made or dropped; the table itself first."""
    with connection.cursor(row_factory=class_row(Member)) as cursor:
        return cursor.execute(query("capture", "members"), {"oid": oid}).fetchall()


def row_style(connection: Connection, oid: int) -> str | None:
    """Why changes of a table must be captured row by row; None where once per statement will do."""
    if (unseen := _unseen(connection, oid)) is not None:
        return unseen
    ((limited,),) = connection.execute(query("capture", "limited"), {"oid": oid}).fetchall()
    if limited:
        return "temp_file_limit is set, and the rows of a large statement would be kept in a file for its trigger"
    return None


def _unseen(connection: Connection, oid: int) -> str | None:
    """What writes to a table without any statement trigger of its own."""
    members = members_of(connection, oid)
    if members[0].kind == "p":
        return "it is partitioned, and a partition that is added later has its parent's row triggers alone"
    ((above,),) = connection.execute(query("capture", "above"), {"oid": oid}).fetchall()
    if above:
        return f"it is a part of {above}, and a statement on that one fires row triggers of its parts alone"
    ((subscribed,),) = connection.execute(query("capture", "subscribed"), {"oid": oid}).fetchall()
    if subscribed:
        return "logical replication writes to it, which fires row triggers alone (PostgreSQL manual, 29.9)"
    return None


def install(
    connection: Connection,
    *,
    migration_id: int,
    direction: str,
    relation: Name,
    oid: int,
    key: Key,
    patience: Patience,
    stop: threading.Event,
) -> Captured:
    """Capture every write from the moment this returns, and none of those before it. Nothing where it is done already.

    Waits for the writers in flight, in short attempts. Raises Interrupted where the lock cannot be had, Refused
    (``capture-broken``) where triggers of an earlier installation are missing.
    """
    found = captures.captured(connection, migration_id, direction)
    if found is not None:
        verify(connection, found, oid=oid)
        return found

    def make(connection: Connection) -> None:
        put(connection, migration_id=migration_id, direction=direction, relation=relation, oid=oid, key=key)

    tables = [member.table for member in members_of(connection, oid)]
    patiently(connection, make, tables=tables, mode=_LOCK, patience=patience, stop=stop)
    installed = captures.captured(connection, migration_id, direction)
    if installed is None:
        raise Refused("capture-removed", f"The capture of {relation} was removed by somebody while it was installed.")
    return installed


def put(connection: Connection, *, migration_id: int, direction: str, relation: Name, oid: int, key: Key) -> None:
    """Capture every write to a table, in the caller's transaction, which holds its lock."""
    why = row_style(connection, oid)
    values = {
        "migration_id": migration_id,
        "direction": direction,
        "relation": str(relation),
        "style": "statement" if why is None else "row",
        "why": why,
        "tool_version": __version__,
    }
    ((capture_id,),) = connection.execute(query("capture", "add"), values).fetchall()
    _install(connection, capture_id, oid=oid, key=key, by_row=why is not None)
    ledger.audit(connection, "capture installed", migration_id=migration_id, direction=direction, style=values["style"])


def mend(
    connection: Connection, found: Captured, *, oid: int, key: Key, patience: Patience, stop: threading.Event
) -> None:
    """The triggers and their function once more; what was written without them is the caller's to find. Raises
    Interrupted where a lock cannot be had.
    """

    def again(connection: Connection) -> None:
        _drop_triggers(connection, _installed(found))
        _install(connection, found.capture_id, oid=oid, key=key, by_row=found.style == "row")
        connection.execute(query("capture", "not_caught_up"), {"capture_id": found.capture_id})
        ledger.audit(connection, "capture mended", migration_id=found.migration_id, direction=found.direction)

    tables = [member.table for member in members_of(connection, oid)]
    tables += [trigger.table for trigger in _triggers(connection, _installed(found))]
    patiently(
        connection, again, tables=list(dict.fromkeys(tables)), mode="access exclusive", patience=patience, stop=stop
    )


def _install(connection: Connection, capture_id: int, *, oid: int, key: Key, by_row: bool) -> None:
    made = Capture(capture_id, by_row, key, _key_type(connection, oid, key))
    execute(connection, made.create_function())
    execute(connection, made.revoke())
    members = members_of(connection, oid)
    execute(connection, made.note({member.oid: str(member.table) for member in members}))
    for member in members:
        for statement in made.triggers(member.table, partition=member.partition):
            execute(connection, statement)
    for trigger in _triggers(connection, made):
        if not trigger.always:
            execute(connection, _always(trigger))


def _key_type(connection: Connection, oid: int, key: Key) -> str:
    if key.name is None:
        return PLAIN
    ((key_type,),) = connection.execute(query("capture", "key_type"), {"oid": oid, "key": key.name}).fetchall()
    return str(key_type)


def remove(connection: Connection, found: Captured, *, patience: Patience, stop: threading.Event) -> None:
    """Take the triggers away, and the log with them. Raises Interrupted where a lock cannot be had."""

    def drop(connection: Connection) -> None:
        take_away(connection, found)

    tables = list(dict.fromkeys(trigger.table for trigger in _triggers(connection, _installed(found))))
    patiently(connection, drop, tables=tables, mode="access exclusive", patience=patience, stop=stop)
    forget(connection, found)


def take_away(connection: Connection, found: Captured) -> None:
    """The triggers, in the caller's transaction, which holds the tables' locks. What was logged stays (``forget``)."""
    _drop_triggers(connection, _installed(found))
    connection.execute(query("capture", "remove"), {"capture_id": found.capture_id})
    ledger.audit(connection, "capture removed", migration_id=found.migration_id, direction=found.direction)


def _drop_triggers(connection: Connection, made: Installed) -> None:
    for trigger in _triggers(connection, made):
        if not trigger.cloned:
            drop = sql.SQL("DROP TRIGGER {} ON {}")
            execute(connection, drop.format(sql.Identifier(trigger.name), trigger.table.identifier))
    execute(connection, made.drop_function())


def silence(connection: Connection, found: Captured) -> None:
    """End a capture without a stronger lock than writers are kept away by: its triggers stay and do nothing, until
    ``sweep``. DROP TRIGGER would wait for everybody who reads the table.
    """
    name = Name(LEDGER, f"capture_{found.capture_id}").identifier
    nothing = sql.SQL("CREATE OR REPLACE FUNCTION {}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    execute(connection, nothing.format(name))
    connection.execute(query("capture", "remove"), {"capture_id": found.capture_id})
    ledger.audit(connection, "capture removed", migration_id=found.migration_id, direction=found.direction)


def sweep(connection: Connection, found: Captured, *, patience: Patience, stop: threading.Event) -> None:
    """Drop the triggers of a capture that is over. Raises Interrupted where the lock cannot be had."""
    made = _installed(found)

    def drop(connection: Connection) -> None:
        _drop_triggers(connection, made)

    tables = list(dict.fromkeys(trigger.table for trigger in _triggers(connection, made)))
    patiently(connection, drop, tables=tables, mode="access exclusive", patience=patience, stop=stop)


def forget(connection: Connection, found: Captured) -> None:
    """What was logged for a capture that is over."""
    connection.execute(query("capture", "forget"), {"capture_id": found.capture_id})


def verify(connection: Connection, found: Captured, *, oid: int) -> None:
    """Whether every write to the table is captured still; raises Refused (``capture-broken``) where one is not: a
    trigger was dropped or disabled, its function replaced, a table was attached, taken away or made to inherit, or
    another has its name.
    """
    made = _installed(found)
    again = (
        "run spine-migrate sync start, which brings all rows up to date."
        if found.direction == captures.REVERSE
        else "run spine-migrate sync stop and sync start, which brings all rows up to date."
    )
    if connection.execute(query("capture", "named"), {"relation": found.relation, "oid": oid}).fetchone() is None:
        raise Refused(
            "capture-broken",
            f"{found.relation} is not the table any more whose writes are captured: it was renamed; {again}",
        )
    unseen = _unseen(connection, oid) if found.style == "statement" else None
    if unseen is not None:
        raise Refused("capture-broken", f"Writes to {found.relation} are not all captured any more: {unseen}; {again}")
    if left := _left(connection, made, oid):
        raise Refused(
            "capture-broken",
            f"{left[0]} is no part of {found.relation} any more, and no trigger fires for rows that leave so; {again}",
        )
    there = {(trigger.table, trigger.name) for trigger in _triggers(connection, made) if trigger.always}
    for table, name in _wanted(connection, found, oid=oid):
        if (table, name) not in there:
            raise Refused(
                "capture-broken",
                f"Writes to {table} are not all captured any more: the trigger {name} is missing or does not fire "
                f"always; {again}",
            )
    if not connection.execute(query("capture", "logs"), {"function": str(made.function)}).fetchall():
        raise Refused(
            "capture-broken",
            f"Writes to {found.relation} are not captured any more: the function {made.function} was replaced; {again}",
        )
    if found.direction == captures.REVERSE and not found.caught_up:
        raise Refused(
            "capture-broken",
            f"The capture of {found.relation} was mended, and what was written before has not been looked at yet; "
            f"{again}",
        )


def broken(connection: Connection, found: Captured) -> str | None:
    """What keeps a write from being captured, and what to do; None where every write is. Reads the catalog alone."""
    place = connection.execute(query("capture", "place"), {"relation": found.relation}).fetchone()
    if place is None:
        what = f"{found.relation}, whose writes are captured, is not there any more: it was dropped or renamed."
    else:
        try:
            verify(connection, found, oid=place[0])
        except Refused as refused:
            what = refused.sentence
        else:
            return None
    # It may have ended between two looks.
    now = captures.captured(connection, found.migration_id, found.direction)
    return what if now is not None and now.capture_id == found.capture_id else None


def _left(connection: Connection, made: Installed, oid: int) -> list[str]:
    """What was a part of the table when it was installed, and is none any more: detached, or dropped."""
    ((noted,),) = connection.execute(query("capture", "noted"), {"function": str(made.function)}).fetchall()
    now = {member.oid for member in members_of(connection, oid)}
    return [name for number, name in json.loads(noted or "{}").items() if int(number) not in now]


def _wanted(connection: Connection, found: Captured, *, oid: int) -> Iterator[tuple[Name, str]]:
    made = _installed(found)
    for member in members_of(connection, oid):
        for event in made.events:
            yield member.table, made.trigger(event)


def _installed(found: Captured) -> Installed:
    return Installed(found.capture_id, by_row=found.style == "row")


def _always(trigger: Trigger) -> sql.Composed:
    return sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(
        trigger.table.identifier, sql.Identifier(trigger.name)
    )


def _triggers(connection: Connection, made: Installed) -> list[Trigger]:
    with connection.cursor(row_factory=class_row(Trigger)) as cursor:
        return cursor.execute(query("capture", "triggers"), {"function": str(made.function)}).fetchall()
