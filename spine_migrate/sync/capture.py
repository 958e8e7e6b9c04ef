"""Installing and removing change capture on a table that is being written to."""

from __future__ import annotations

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
from spine_migrate.mapping.emit.capture import LEDGER, Capture

_LOCK = "share row exclusive"


@dataclass(frozen=True)
class Member:
    """A table that a statement on the captured table may write to; ``kind`` is that of pg_class."""

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


def row_style(connection: Connection, oid: int) -> str | None:
    """Why changes of a table must be captured row by row; None where once per statement will do."""
    members = _members(connection, oid)
    if members[0].kind == "p":
        return "it is partitioned, and a partition that is added later has its parent's row triggers alone"
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
    key: str,
    patience: Patience,
    stop: threading.Event,
) -> Captured:
    """Capture every write from the moment this returns, and none of those before it. Nothing where it is done already.

    Waits for the writers in flight, in short attempts. Raises Interrupted where the lock cannot be had, Refused
    (``capture-broken``) where triggers of an earlier installation are missing.
    """
    found = captures.captured(connection, migration_id, direction)
    if found is not None:
        verify(connection, found, oid=oid, key=key)
        return found

    def make(connection: Connection) -> None:
        put(connection, migration_id=migration_id, direction=direction, relation=relation, oid=oid, key=key)

    tables = [member.table for member in _members(connection, oid)]
    patiently(connection, make, tables=tables, mode=_LOCK, patience=patience, stop=stop)
    installed = captures.captured(connection, migration_id, direction)
    if installed is None:
        raise Refused("capture-removed", f"The capture of {relation} was removed by somebody while it was installed.")
    return installed


def put(connection: Connection, *, migration_id: int, direction: str, relation: Name, oid: int, key: str) -> None:
    """Capture every write to a table, in the caller's transaction, which holds its lock."""
    why = row_style(connection, oid)
    members = _members(connection, oid)
    values = {
        "migration_id": migration_id,
        "direction": direction,
        "relation": str(relation),
        "style": "statement" if why is None else "row",
        "why": why,
        "tool_version": __version__,
    }
    ((capture_id,),) = connection.execute(query("capture", "add"), values).fetchall()
    made = Capture(capture_id, key, by_row=why is not None)
    execute(connection, made.create_function())
    execute(connection, made.revoke())
    for member in members:
        for statement in made.triggers(member.table, partition=member.partition):
            execute(connection, statement)
    for trigger in _triggers(connection, made):
        if not trigger.always:
            execute(connection, _always(trigger))
    ledger.audit(connection, "capture installed", migration_id=migration_id, direction=direction, style=values["style"])


def remove(connection: Connection, found: Captured, *, key: str, patience: Patience, stop: threading.Event) -> None:
    """Take the triggers away, and the log with them. Raises Interrupted where a lock cannot be had."""

    def drop(connection: Connection) -> None:
        take_away(connection, found, key=key)

    tables = list(dict.fromkeys(trigger.table for trigger in _triggers(connection, _made(found, key))))
    patiently(connection, drop, tables=tables, mode="access exclusive", patience=patience, stop=stop)
    forget(connection, found)


def take_away(connection: Connection, found: Captured, *, key: str) -> None:
    """The triggers, in the caller's transaction, which holds the tables' locks. What was logged stays (``forget``)."""
    _drop_triggers(connection, _made(found, key))
    connection.execute(query("capture", "remove"), {"capture_id": found.capture_id})
    ledger.audit(connection, "capture removed", migration_id=found.migration_id, direction=found.direction)


def _drop_triggers(connection: Connection, made: Capture) -> None:
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


def sweep(connection: Connection, found: Captured, *, key: str, patience: Patience, stop: threading.Event) -> None:
    """Drop the triggers of a capture that is over. Raises Interrupted where the lock cannot be had."""
    made = _made(found, key)

    def drop(connection: Connection) -> None:
        _drop_triggers(connection, made)

    tables = list(dict.fromkeys(trigger.table for trigger in _triggers(connection, made)))
    patiently(connection, drop, tables=tables, mode="access exclusive", patience=patience, stop=stop)


def forget(connection: Connection, found: Captured) -> None:
    """What was logged for a capture that is over."""
    connection.execute(query("capture", "forget"), {"capture_id": found.capture_id})


def verify(connection: Connection, found: Captured, *, oid: int, key: str) -> None:
    """Whether every write to the table is captured still; raises Refused (``capture-broken``) where one is not: a
    trigger was dropped or disabled, a table was attached or made to inherit.
    """
    there = {(trigger.table, trigger.name) for trigger in _triggers(connection, _made(found, key)) if trigger.always}
    for table, name in _wanted(connection, found, oid=oid, key=key):
        if (table, name) not in there:
            raise Refused(
                "capture-broken",
                f"Writes to {table} are not all captured any more: the trigger {name} is missing or does not fire "
                f"always; run spine-migrate sync stop and sync start, which brings all rows up to date.",
            )


def _wanted(connection: Connection, found: Captured, *, oid: int, key: str) -> Iterator[tuple[Name, str]]:
    made = _made(found, key)
    events = ("row", "truncate") if made.by_row else ("insert", "update", "delete", "key", "truncate")
    for member in _members(connection, oid):
        for event in events:
            yield member.table, made.trigger(event)


def _made(found: Captured, key: str) -> Capture:
    return Capture(found.capture_id, key, by_row=found.style == "row")


def _always(trigger: Trigger) -> sql.Composed:
    return sql.SQL("ALTER TABLE {} ENABLE ALWAYS TRIGGER {}").format(
        trigger.table.identifier, sql.Identifier(trigger.name)
    )


def _members(connection: Connection, oid: int) -> list[Member]:
    with connection.cursor(row_factory=class_row(Member)) as cursor:
        return cursor.execute(query("capture", "members"), {"oid": oid}).fetchall()


def _triggers(connection: Connection, made: Capture) -> list[Trigger]:
    with connection.cursor(row_factory=class_row(Trigger)) as cursor:
        return cursor.execute(query("capture", "triggers"), {"function": str(made.function)}).fetchall()
