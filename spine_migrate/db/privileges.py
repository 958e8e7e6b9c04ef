"""Which privileges each command needs, as GRANT statements, and which of them a role lacks.

Partitions are named beside their parent, since batches read them directly (PostgreSQL manual, 5.8: a privilege on the
parent is not asked for, nor enough, then). Ownership cannot be granted: membership in the owner stands for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from spine_migrate.db.catalog import Name, Relation, leaves
from spine_migrate.db.connect import Connection
from spine_migrate.db.grant import Grant, ask, merged
from spine_migrate.db.owners import Owner, here, ledger_owner, owner_of, pointing_to
from spine_migrate.db.queries import query
from spine_migrate.db.runtime_tables import EVENTS

LEDGER = "spine_migrate"

DRY_RUN, MOVE, OFFLINE = "dry-run", "move", "offline"
COMPARE, STATUS, QUARANTINE, UNDO, UPGRADE = "compare", "status", "quarantine", "undo", "db upgrade"
REPAIR, SYNC, WATCH = "repair", "sync", "watch"
# sync, once the application writes to the target.
SYNC_BACK = "sync back"
PAUSE, RESUME, SET = "pause", "resume", "set"

_READ: tuple[str, ...] = ("SELECT",)
_SOURCE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((DRY_RUN, MOVE, OFFLINE, COMPARE, QUARANTINE, UNDO, REPAIR), _READ),
    SYNC: ("SELECT", "TRIGGER"),
    SYNC_BACK: ("SELECT", "INSERT", "UPDATE", "DELETE"),
}
_TARGET = {
    DRY_RUN: _READ,
    MOVE: ("SELECT", "INSERT"),
    OFFLINE: ("SELECT", "INSERT"),
    COMPARE: _READ,
    QUARANTINE: ("SELECT", "INSERT"),
    UNDO: ("SELECT", "DELETE"),
    REPAIR: ("SELECT", "INSERT", "UPDATE", "DELETE"),
    SYNC: ("SELECT", "INSERT", "UPDATE", "DELETE"),
    # Links that are completed.
    SYNC_BACK: ("SELECT", "UPDATE"),
}
_INSERTS = (MOVE, OFFLINE, QUARANTINE, REPAIR, SYNC)
_LINKS = (MOVE, OFFLINE, QUARANTINE, UNDO)
_MOVED = {
    "migration": ("SELECT", "INSERT", "UPDATE"),
    "checkpoint": ("SELECT", "INSERT", "UPDATE"),
    "quarantine": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "link": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "deferred_ddl": _READ,
    "capture": _READ,
    "control": ("SELECT", "INSERT", "UPDATE"),
    "audit": ("INSERT",),
}
_ORDERED = {"migration": _READ, "control": ("SELECT", "INSERT", "UPDATE"), "audit": ("INSERT",)}
_STANDING = dict.fromkeys(("migration", "checkpoint", "quarantine", "link"), _READ)
_WATCHED = {
    **_STANDING,
    **dict.fromkeys(("capture", "change_log", "pending", "control", "retirement"), _READ),
}
# What a move hands over to the applier where changes are captured, and what it leaves to it.
_HANDED = {"pending": ("SELECT", "INSERT"), "change_log": _READ}
_LEDGER_TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    DRY_RUN: {"migration": _READ},
    MOVE: _MOVED,
    OFFLINE: {**_MOVED, "deferred_ddl": ("SELECT", "INSERT", "UPDATE", "DELETE")},
    COMPARE: {**_STANDING, "capture": _READ},
    STATUS: _WATCHED,
    WATCH: _WATCHED,
    PAUSE: _ORDERED,
    RESUME: {**_ORDERED, "control": ("SELECT", "UPDATE")},
    SET: _ORDERED,
    QUARANTINE: {
        "migration": ("SELECT", "UPDATE"),
        "checkpoint": ("SELECT", "UPDATE"),
        "quarantine": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "link": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "deferred_ddl": _READ,
        "capture": _READ,
        "audit": ("INSERT",),
    },
    UNDO: {
        "migration": ("SELECT", "UPDATE"),
        "checkpoint": ("SELECT", "UPDATE", "DELETE"),
        "quarantine": ("SELECT", "DELETE"),
        "link": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "deferred_ddl": ("SELECT", "DELETE"),
        "capture": _READ,
        "audit": ("INSERT",),
    },
    REPAIR: {
        "migration": _READ,
        "checkpoint": ("SELECT", "UPDATE"),
        "quarantine": ("SELECT", "INSERT", "UPDATE"),
        "link": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "deferred_ddl": _READ,
        "capture": _READ,
        "audit": ("INSERT",),
        "repair": ("INSERT",),
    },
    SYNC: {
        "migration": _READ,
        "checkpoint": ("SELECT", "UPDATE"),
        "quarantine": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "link": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "deferred_ddl": _READ,
        "capture": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "change_log": ("SELECT", "INSERT", "DELETE"),
        "pending": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "control": ("SELECT", "INSERT", "UPDATE"),
        "cutover": _READ,
        "retirement": _READ,
        "set_aside": ("INSERT",),
        "audit": ("INSERT",),
    },
}
_LEDGER_TABLES[SYNC_BACK] = {
    table: privileges for table, privileges in _LEDGER_TABLES[SYNC].items() if table != "deferred_ddl"
}
COMMANDS = (UPGRADE, *_LEDGER_TABLES)


@dataclass(frozen=True)
class Tables:
    """What privileges are about, for one mapping.

    ``leaves`` are the source's, itself left out; ``links`` are the target's columns that are completed after the load;
    ``sequences`` feed defaults of the target; ``reads`` are the targets of mappings that must have moved before;
    ``pointing`` are tables that have a foreign key to the target, the runtime's and the application's, by their owner;
    ``source_owners`` the source and the tables that have a foreign key to it.
    """

    database: str

    source: Name
    source_owner: Owner | None
    leaves: tuple[Name, ...]
    target: Name
    target_owner: Owner | None
    links: tuple[str, ...]
    sequences: tuple[Name, ...]
    reads: tuple[Name, ...]
    pointing: tuple[tuple[Name, Owner], ...]
    source_owners: tuple[tuple[Name, Owner], ...] = ()
    captured: bool = False
    """Whether the source's changes are captured."""


def tables(
    connection: Connection,
    source: Name | Relation,
    target: Name | Relation,
    *,
    links: Sequence[str] = (),
    reads: Sequence[Name] = (),
) -> Tables:
    """Look up what belongs to the two tables; one that is not there yet is given as its name alone."""
    source_name = source if isinstance(source, Name) else source.name
    parts = [] if isinstance(source, Name) else [leaf.name for leaf in leaves(connection, source.oid)]
    source_owners = []
    if isinstance(source, Relation) and (own := owner_of(connection, source)) is not None:
        source_owners = [(source.name, own), *pointing_to(connection, source)]
    owner, sequences, pointing = None, [], []
    if isinstance(target, Relation):
        owner = owner_of(connection, target)
        found = connection.execute(query("privileges", "default_sequences"), {"oid": target.oid}).fetchall()
        sequences = [Name(*row) for row in found]
        pointing = pointing_to(connection, target)
    return Tables(
        database=here(connection)[0],
        source=source_name,
        source_owner=None if isinstance(source, Name) else owner_of(connection, source),
        leaves=tuple(leaf for leaf in parts if leaf != source_name),
        target=target if isinstance(target, Name) else target.name,
        target_owner=owner,
        links=tuple(links),
        sequences=tuple(sequences),
        reads=tuple(reads),
        pointing=tuple(pointing),
        source_owners=tuple(source_owners),
        captured=isinstance(source, Relation) and bool(ask(connection, "captured", oid=source.oid)),
    )


def needed(command: str, moves: Iterable[Tables]) -> list[Grant]:
    """The grants for one of ``COMMANDS`` but ``db upgrade``, over the tables of some mappings, each object once."""
    return merged(_needed(command, moves))


def _needed(command: str, tables: Iterable[Tables]) -> Iterator[Grant]:
    moves = list(tables)
    yield Grant("SCHEMA", (LEDGER,), ("USAGE",))
    for table, privileges in _LEDGER_TABLES[command].items():
        yield Grant("TABLE", (LEDGER, table), privileges)
    if command in (MOVE, COMPARE, QUARANTINE, REPAIR) and any(move.captured for move in moves):
        for table, privileges in _HANDED.items():
            yield Grant("TABLE", (LEDGER, table), _READ if command == COMPARE else privileges)
    if command in _SOURCE:
        for move in moves:
            for name in (move.source, *move.leaves):
                yield from _on_table(name, _SOURCE[command])
            yield from _on_table(move.target, _TARGET[command])
            for parent in move.reads:
                yield from _on_table(parent, _READ)
            yield from _further(command, move)


def _further(command: str, move: Tables) -> Iterator[Grant]:
    """What some commands need on the target beside its rows."""
    if command in _LINKS and move.links:
        yield Grant("TABLE", (move.target.schema, move.target.table), ("UPDATE",), move.links)
    if command in _INSERTS:
        for sequence in move.sequences:
            yield Grant("SCHEMA", (sequence.schema,), ("USAGE",))
            yield Grant("SEQUENCE", (sequence.schema, sequence.table), ("USAGE",))
    if command == UNDO:
        # What must stay is worked out in a temporary table.
        yield Grant("DATABASE", (move.database,), ("TEMPORARY",))
    if command in (UNDO, REPAIR):
        # A row that others point to is looked for.
        for name, _ in move.pointing:
            yield from _on_table(name, _READ)
    if command == OFFLINE:
        yield from _for_offline(move)
    if command == SYNC:
        yield from _for_sync(move)


def _for_sync(move: Tables) -> Iterator[Grant]:
    # A function is made there, and its triggers are to fire always, which is the owner's to say.
    yield Grant("SCHEMA", (LEDGER,), ("CREATE",))
    if move.source_owner is not None:
        yield Grant("ROLE", (move.source_owner.name,), superuser=move.source_owner.superuser)
    # What the runtime has noted of a run goes with it.
    for name, _ in move.pointing:
        if name == replace(move.target, table=EVENTS):
            yield from _on_table(name, ("SELECT", "DELETE"))


def _for_offline(move: Tables) -> Iterator[Grant]:
    # CREATE INDEX asks the one who runs it for CREATE on the schema, and for ownership of the table. A foreign key
    # is taken away and built again by the owner of the table that has it.
    yield Grant("SCHEMA", (move.target.schema,), ("CREATE",))
    for owner in (move.target_owner, *(owner for _, owner in move.pointing)):
        if owner is not None:
            yield Grant("ROLE", (owner.name,), superuser=owner.superuser)
    for name, _ in move.pointing:
        yield Grant("SCHEMA", (name.schema,), ("USAGE",))


def _on_table(name: Name, privileges: tuple[str, ...]) -> Iterator[Grant]:
    yield Grant("SCHEMA", (name.schema,), ("USAGE",))
    yield Grant("TABLE", (name.schema, name.table), privileges)


def for_upgrade(connection: Connection, target_schema: str | None) -> list[Grant]:
    """The grants for ``db upgrade``: the first time to create, later to own what was created."""
    database, current = here(connection)
    schema = target_schema or current
    found = [Grant("SCHEMA", (schema,), ("USAGE", "CREATE"))]
    if ask(connection, "ledger_schema_exists"):
        found.append(Grant("SCHEMA", (LEDGER,), ("USAGE", "CREATE")))
    else:
        found.append(Grant("DATABASE", (database,), ("CREATE",)))
    owner = ledger_owner(connection)
    if owner is not None:
        found.append(Grant("ROLE", (owner.name,), superuser=owner.superuser))
    return merged(found)
