"""The indexes that cutovers build on a target, by their names: taking them away when nobody needs them any more."""

from __future__ import annotations

from contextlib import suppress

import psycopg
from psycopg import sql

from spine_migrate.db.catalog import Name, Relation
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute


def prefix(migration_id: int) -> str:
    """What their names begin with."""
    return f"spine_key_{migration_id}_"


def drop_all(connection: Connection, target: Relation, migration_id: int) -> None:
    """All that there are of a migration, of whatever mapping, valid or not. One that somebody's open transaction has
    read stays, and one that is not the role's; each write pays for it, yet none fails by it.
    """
    values = {"oid": target.oid, "prefix": prefix(migration_id)}
    for (name,) in connection.execute(query("run_indexes", "of_prefix"), values).fetchall():
        with suppress(psycopg.errors.LockNotAvailable, psycopg.errors.InsufficientPrivilege):
            drop(connection, Name(target.name.schema, name))


def drop(connection: Connection, name: Name) -> None:
    execute(connection, sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(name.identifier))
