"""The locks that a cutover takes, as the plan and ``cutover --dry-run`` show them. What ``switch`` does, not done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from psycopg import sql

from spine_migrate.carry.tables import Tables
from spine_migrate.cutover import dependents
from spine_migrate.cutover.foreign_keys import movable
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.cutovers import unquoted
from spine_migrate.db.definition import ForeignKey, definition
from spine_migrate.db.lock_modes import LockMode
from spine_migrate.db.patience import Patience
from spine_migrate.db.queries import query
from spine_migrate.plan.locking import MOMENT, Taking

STAGE = "cutover"
_VALIDATED = "while its rows are read, after the commit"


def takings(
    connection: Connection, members: Sequence[Tables], patience: Patience, *, with_view: bool = True
) -> list[Taking]:
    """In the order in which they are taken. ``members`` are switched together; the session's search_path is pinned."""
    moving = list(_moving(connection, members))
    return [
        *(_key_indexes(members) if with_view else ()),
        *_targets(connection, members, patience),
        *_pointing(moving, patience),
        *_sources(connection, members, patience, with_view=with_view),
        *(_remade(connection, members, patience) if with_view else ()),
        *_validated(moving, patience),
    ]


def _taking(table: Name, mode: LockMode, patience: Patience, *under: str) -> Taking:
    asks = sql.SQL("LOCK TABLE {} IN {} MODE").format(table.identifier, sql.SQL(mode.value)).as_string(None)
    return Taking(STAGE, table, mode, asks, under, MOMENT, patience.lock_timeout)


def _key_indexes(members: Sequence[Tables]) -> Iterator[Taking]:
    for one in members:
        if not one.binding.mapping.key_stands and one.target.kind != "p":
            yield Taking(
                STAGE,
                one.target.name,
                LockMode.SHARE_UPDATE_EXCLUSIVE,
                f"CREATE INDEX CONCURRENTLY … ON {one.target.name} …, by which the view finds a row by its key",
                (),
                "while the index is built, which waits for every transaction that is older",
                None,
                behind=LockMode.SHARE,
            )


def _targets(connection: Connection, members: Sequence[Tables], patience: Patience) -> Iterator[Taking]:
    for oid in dict.fromkeys(one.target.oid for one in members):
        for table in _tree(connection, oid):
            yield _taking(
                table,
                LockMode.SHARE_ROW_EXCLUSIVE,
                patience,
                "INSERT, UPDATE and DELETE of what is left in the log",
                "CREATE TRIGGER and ALTER TABLE … ENABLE ALWAYS TRIGGER, which capture what is written from then on",
            )


def _pointing(moving: Sequence[tuple[Tables, ForeignKey]], patience: Patience) -> Iterator[Taking]:
    for table in dict.fromkeys(key.table for _, key in moving):
        under = [
            f"ALTER TABLE … DROP CONSTRAINT {_quoted(key.name)}, ADD CONSTRAINT {_quoted(key.name)} FOREIGN KEY … "
            f"REFERENCES {tables.target.name} … NOT VALID"
            for tables, key in moving
            if key.table == table
        ]
        yield _taking(table, LockMode.ACCESS_EXCLUSIVE, patience, *under)


def _sources(
    connection: Connection, members: Sequence[Tables], patience: Patience, *, with_view: bool
) -> Iterator[Taking]:
    for one in members:
        itself, *parts = _tree(connection, one.source.oid)
        under = [
            "DROP TRIGGER of the capture, ALTER TABLE … DISABLE TRIGGER for the application's",
            "ALTER TABLE … RENAME",
        ]
        under += ["ALTER VIEW … RENAME: the view, which is made before this lock, takes the name"] if with_view else []
        yield _taking(itself, LockMode.ACCESS_EXCLUSIVE, patience, *under)
        for part in parts:
            yield _taking(part, LockMode.ACCESS_EXCLUSIVE, patience, "DROP TRIGGER of the capture")


def _remade(connection: Connection, members: Sequence[Tables], patience: Patience) -> Iterator[Taking]:
    found = [one for tables in members for one in dependents.followers(connection, tables.source)]
    for name in dict.fromkeys(one.object for one in found if one.kind == "view" and one.statement is not None):
        yield Taking(
            STAGE,
            unquoted(connection, name),
            LockMode.ACCESS_EXCLUSIVE,
            f"CREATE OR REPLACE VIEW {name} AS …",
            (),
            MOMENT,
            patience.lock_timeout,
        )


def _validated(moving: Sequence[tuple[Tables, ForeignKey]], patience: Patience) -> Iterator[Taking]:
    for _, key in moving:
        if not key.definition.endswith(" NOT VALID"):
            yield Taking(
                STAGE,
                key.table,
                LockMode.SHARE_UPDATE_EXCLUSIVE,
                f"ALTER TABLE {key.table} VALIDATE CONSTRAINT {_quoted(key.name)}",
                (),
                _VALIDATED,
                patience.lock_timeout,
            )


def _moving(connection: Connection, members: Sequence[Tables]) -> Iterator[tuple[Tables, ForeignKey]]:
    """Foreign keys of tables that are not switched along, and will point to the target."""
    along = {one.source.oid for one in members}
    for one in members:
        for key in definition(connection, one.source.name, one.source.oid).inbound:
            if key.oid not in along and movable(one, key):
                yield one, key


def _tree(connection: Connection, oid: int) -> list[Name]:
    """What LOCK TABLE locks: the table first, then its partitions and what inherits from it."""
    found = connection.execute(query("capture", "members"), {"oid": oid}).fetchall()
    return [Name(schema, name) for _, schema, name, *_ in found]


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)
