"""Which privileges each command needs, as GRANT statements, and which of them a role lacks.

Partitions are named beside their parent, since batches read them directly (PostgreSQL manual, 5.8: a privilege on the
parent is not asked for, nor enough, then). Ownership cannot be granted: membership in the owner stands for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql
from psycopg.rows import class_row

from spine_migrate.db.catalog import Name, Relation, leaves
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.errors import ConfigurationError

LEDGER = "spine_migrate"

DRY_RUN, MOVE, OFFLINE = "dry-run", "move", "offline"
COMPARE, STATUS, QUARANTINE, UNDO, UPGRADE = "compare", "status", "quarantine", "undo", "db upgrade"
REPAIR, SYNC, WATCH = "repair", "sync", "watch"
PAUSE, RESUME, SET = "pause", "resume", "set"

_READ: tuple[str, ...] = ("SELECT",)
_SOURCE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys((DRY_RUN, MOVE, OFFLINE, COMPARE, QUARANTINE, UNDO, REPAIR), _READ),
    SYNC: ("SELECT", "TRIGGER"),
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
_LEDGER_TABLES: dict[str, dict[str, tuple[str, ...]]] = {
    DRY_RUN: {"migration": _READ},
    MOVE: _MOVED,
    OFFLINE: {**_MOVED, "deferred_ddl": ("SELECT", "INSERT", "UPDATE", "DELETE")},
    COMPARE: _STANDING,
    STATUS: {**_STANDING, "control": _READ},
    WATCH: {**_STANDING, "capture": _READ, "change_log": _READ, "pending": _READ, "control": _READ},
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
        "capture": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "change_log": ("SELECT", "INSERT", "DELETE"),
        "pending": ("SELECT", "INSERT", "UPDATE", "DELETE"),
        "cutover": _READ,
        "audit": ("INSERT",),
    },
}
COMMANDS = (UPGRADE, *_LEDGER_TABLES)


@dataclass(frozen=True)
class Grant:
    """``kind`` is DATABASE, SCHEMA, TABLE, SEQUENCE, or ROLE for membership; ``name`` its parts, unquoted.

    ``columns`` limits the privileges to some of a table's columns. ``superuser``: membership in this role would be more
    than any command needs, so its statement is a comment.
    """

    kind: str
    name: tuple[str, ...]
    privileges: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    superuser: bool = False

    @property
    def object(self) -> str:
        return sql.Identifier(*self.name).as_string(None)

    def statement(self, role: str) -> str:
        """The GRANT, quoted, with its semicolon."""
        grantee = sql.Identifier(role)
        if self.superuser:
            return (
                f"-- Needs what {self.object} owns, a superuser: run the command as that role, or give that "
                "to an ordinary role first, with ALTER TABLE ... OWNER TO."
            )
        if self.kind == "ROLE":
            return sql.SQL("GRANT {} TO {};").format(sql.Identifier(*self.name), grantee).as_string(None)
        columns = sql.SQL(" ({})").format(sql.SQL(", ").join(map(sql.Identifier, self.columns)))
        privileges = [
            sql.SQL("{}{}").format(sql.SQL(privilege), columns) if self.columns else sql.SQL(privilege)
            for privilege in self.privileges
        ]
        return (
            sql.SQL("GRANT {} ON {} {} TO {};")
            .format(sql.SQL(", ").join(privileges), sql.SQL(self.kind), sql.Identifier(*self.name), grantee)
            .as_string(None)
        )


@dataclass(frozen=True)
class Owner:
    name: str
    superuser: bool


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
    )


def ledger_owner(connection: Connection) -> Owner | None:
    """Who installed the ledger; None before the first upgrade."""
    return _owner(connection, "version_table_owner")


def owner_of(connection: Connection, table: Relation) -> Owner | None:
    return _owner(connection, "owner", oid=table.oid)


def pointing_to(connection: Connection, table: Relation) -> list[tuple[Name, Owner]]:
    """Tables that have a foreign key to it, by their owner."""
    found = connection.execute(query("privileges", "pointing"), {"oid": table.oid}).fetchall()
    return [(Name(schema, name), Owner(*held)) for schema, name, *held in found]


def needed(command: str, moves: Iterable[Tables]) -> list[Grant]:
    """The grants for one of ``COMMANDS`` but ``db upgrade``, over the tables of some mappings, each object once."""
    return merged(_needed(command, moves))


def _needed(command: str, moves: Iterable[Tables]) -> Iterator[Grant]:
    yield Grant("SCHEMA", (LEDGER,), ("USAGE",))
    for table, privileges in _LEDGER_TABLES[command].items():
        yield Grant("TABLE", (LEDGER, table), privileges)
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
        # A function is made there, and its triggers are to fire always, which is the owner's to say.
        yield Grant("SCHEMA", (LEDGER,), ("CREATE",))
        if move.source_owner is not None:
            yield Grant("ROLE", (move.source_owner.name,), superuser=move.source_owner.superuser)


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


def here(connection: Connection) -> tuple[str, str]:
    """The database's name and the schema that CREATE TABLE would use."""
    ((database, schema),) = connection.execute(query("privileges", "here")).fetchall()
    return database, schema


def installed(connection: Connection) -> bool:
    """Whether ``db upgrade`` has run on this database."""
    return _owner(connection, "version_table_owner") is not None


def for_upgrade(connection: Connection, target_schema: str | None) -> list[Grant]:
    """The grants for ``db upgrade``: the first time to create, later to own what was created."""
    database, current = here(connection)
    schema = target_schema or current
    found = [Grant("SCHEMA", (schema,), ("USAGE", "CREATE"))]
    if _one(connection, "ledger_schema_exists"):
        found.append(Grant("SCHEMA", (LEDGER,), ("USAGE", "CREATE")))
    else:
        found.append(Grant("DATABASE", (database,), ("CREATE",)))
    owner = _owner(connection, "version_table_owner")
    if owner is not None:
        found.append(Grant("ROLE", (owner.name,), superuser=owner.superuser))
    return merged(found)


def merged(grants: Iterable[Grant]) -> list[Grant]:
    """One grant per object (and per list of columns), in the order of first mention."""
    merged: dict[tuple[str, tuple[str, ...], tuple[str, ...]], Grant] = {}
    for grant in grants:
        place = (grant.kind, grant.name, grant.columns)
        held = merged.get(place)
        both = dict.fromkeys([*(held.privileges if held else ()), *grant.privileges])
        merged[place] = replace(grant, privileges=tuple(both))
    return list(merged.values())


def acting_role(connection: Connection, role: str | None) -> str:
    """``role``, or the session's own. Raises ConfigurationError where there is no such role."""
    if role is None:
        return str(_one(connection, "current_role"))
    if not _one(connection, "role_exists", role=role):
        raise ConfigurationError(f"There is no role {role!r} on this server; create it, or correct --role.")
    return role


def missing(connection: Connection, grants: Iterable[Grant], role: str | None = None) -> list[Grant]:
    """Those of ``grants``, cut down to the privileges that the role (the session's own by default) does not hold.

    What it has through membership, ownership and PUBLIC counts. An object that is not there yet is missing as a whole.
    """
    who = acting_role(connection, role)
    found = []
    for grant in grants:
        if grant.kind == "ROLE":
            if not _held(connection, who, grant, "USAGE"):
                found.append(grant)
            continue
        lacking = tuple(one for one in grant.privileges if not _held(connection, who, grant, one))
        if lacking:
            found.append(replace(grant, privileges=lacking))
    return found


def _held(connection: Connection, role: str, grant: Grant, privilege: str) -> bool:
    kind = "columns" if grant.columns else grant.kind.lower()
    return bool(
        _one(
            connection,
            f"held_{kind}",
            role=role,
            schema=grant.name[0],
            object=grant.name[-1],
            privilege=privilege,
            columns=list(grant.columns),
        )
    )


def _owner(connection: Connection, name: str, **parameters: Any) -> Owner | None:
    with connection.cursor(row_factory=class_row(Owner)) as cursor:
        return cursor.execute(query("privileges", name), parameters).fetchone()


def _one(connection: Connection, name: str, **parameters: Any) -> Any:
    row = connection.execute(query("privileges", name), parameters).fetchone()
    return None if row is None else row[0]
