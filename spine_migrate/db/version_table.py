"""The tool's own Alembic version table, ``spine_migrate.alembic_version``: its lock, its schema, what it remembers.

It never meets an application's ``alembic_version``. Its comment holds the schema that the target tables were created
in: without it, a downgrade with another ``--target-schema`` would drop somebody else's ``runs``.
Used by ``alembic/env.py`` and by the command line's driver, so that both take the same lock.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import sql

from spine_migrate.db.queries import query
from spine_migrate.errors import ConfigurationError, Refused

# Not loaded at run time: a move reads the version table too, and has no use for SQLAlchemy's 30 MB.
if TYPE_CHECKING:
    import sqlalchemy as sa

SCHEMA = "spine_migrate"
TABLE = "alembic_version"
DEFAULT_LOCK_TIMEOUT = "5s"

# Another upgrade gives up within its own lock_timeout per statement; who waits for longer waits for a stuck session.
_WAIT_FOR_OTHER_UPGRADE = "60s"
_DURATION = re.compile(r"[1-9][0-9]*(ms|s|min)?")

Execute = Callable[[sql.SQL | sql.Composed], object]


def begin(execute: Execute, lock_timeout: str) -> None:
    """Take the revision lock, limit every later lock wait of this transaction, and make sure that the schema exists.

    ``execute`` runs one statement or prints it. Raises ConfigurationError where ``lock_timeout`` is not a duration.
    """
    if not _DURATION.fullmatch(lock_timeout):
        raise ConfigurationError(f"The lock timeout {lock_timeout!r} is not a duration such as 500ms, 5s or 1min.")
    # A role's own repeatable read would see the revisions as they were before the wait for the lock.
    execute(sql.SQL("SET TRANSACTION ISOLATION LEVEL READ COMMITTED"))
    execute(_set_lock_timeout(_WAIT_FOR_OTHER_UPGRADE))
    execute(sql.SQL(query("schema", "lock_revisions")))
    execute(_set_lock_timeout(lock_timeout))
    execute(sql.SQL(query("schema", "create_ledger_schema")))


def _set_lock_timeout(duration: str) -> sql.Composed:
    return sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(duration))


def record_target(execute: Execute, target_schema: str | None) -> None:
    if target_schema is None:
        execute(sql.SQL(query("schema", "record_search_path_target")))
        return
    table = sql.Identifier(SCHEMA, TABLE)
    execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(table, sql.Literal(target_schema)))


def remove(execute: Execute) -> None:
    """Drop the version table and, where nothing else lives in it, the schema."""
    execute(sql.SQL(query("schema", "drop_version_table")))
    execute(sql.SQL(query("schema", "drop_ledger_schema")))


def recorded_target(connection: psycopg.Connection[Any]) -> str | None:
    """The schema that holds ``runs`` and ``run_events``; None before the first upgrade."""
    row = connection.execute(query("schema", "recorded_target")).fetchone()
    return None if row is None else row[0]


def resolve_target(connection: psycopg.Connection[Any], target_schema: str | None) -> str:
    """The name of the schema that the revisions work in.

    Raises Refused where it does not exist, or is not the one that an earlier upgrade of this database used.
    """
    if target_schema is None:
        row = connection.execute(query("schema", "current_schema")).fetchone()
        if row is None or row[0] is None:
            raise Refused(
                "target-schema-exists",
                "The search_path of this role names no existing schema to create runs and run_events in: "
                "name one with --target-schema.",
            )
        target_schema = str(row[0])
    elif connection.execute(query("schema", "schema_exists"), {"schema": target_schema}).fetchone() != (True,):
        raise Refused(
            "target-schema-exists",
            f'The target schema "{target_schema}" does not exist: create it first, or name another --target-schema.',
        )
    recorded = recorded_target(connection)
    if recorded is not None and recorded != target_schema:
        raise Refused(
            "target-schema-unchanged",
            f'This database has its runs and run_events in schema "{recorded}", not in "{target_schema}": '
            f"run with --target-schema {recorded}, or downgrade to base there first.",
        )
    return target_schema


def driver_connection(connection: sa.Connection) -> psycopg.Connection[Any]:
    """The psycopg connection under SQLAlchemy's; what runs on it belongs to the same transaction."""
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)
