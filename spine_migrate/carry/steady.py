"""A few rows that others write all the time, kept as they are for the length of a short transaction.

At REPEATABLE READ a transaction fails where one of its rows was written after its snapshot, as often as it is tried if
that happens all the time. At READ COMMITTED it waits for its turn instead, and each statement sees what is committed by
then. So that they see the same rows all the same, target rows are locked first, before anything else is, and legacy
rows, on which the role may have no more than SELECT, must be the same versions at the end as they were at the start.
An application that writes both sides in one transaction is waiting for the target row by then, or was done before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from spine_migrate.carry.scope import Parameters
from spine_migrate.carry.statements import Statement
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.transforms.base import Sql


def level(*, held: bool) -> psycopg.IsolationLevel:
    """Of a transaction whose rows are held, or of any other that reads and writes rows."""
    return psycopg.IsolationLevel.READ_COMMITTED if held else psycopg.IsolationLevel.REPEATABLE_READ


@contextmanager
def steady(connection: Connection, binding: Binding, keys: Sequence[str], lock: Statement | None) -> Iterator[None]:
    """Around all that a transaction at READ COMMITTED does with legacy rows of these keys, and the target rows that
    ``lock`` locks.

    Raises SerializationFailure where a legacy row was written meanwhile, LockNotAvailable.
    """
    brief(connection)
    if lock is not None:
        execute(connection, lock[0], *lock[1])
    before = _versions(connection, binding, keys)
    yield
    if _versions(connection, binding, keys) != before:
        raise psycopg.errors.SerializationFailure("A legacy row was written meanwhile.")


def brief(connection: Connection) -> None:
    """To the end of the transaction, locks are waited for no longer than half of what the server lets pass before it
    looks for a deadlock and ends somebody's transaction, which might be the application's.
    """
    connection.execute(query("backfill", "brief"))


def target_lock(binding: Binding, going: Sql, parameters: Parameters) -> Statement:
    """Locks target rows, in the order of their keys. ``going``: a query of their keys."""
    statement = sql.SQL("SELECT FROM {target} AS t WHERE t.{key} = ANY(ARRAY({going})) ORDER BY t.{key} FOR UPDATE")
    return (
        statement.format(target=binding.target.identifier, key=sql.Identifier(binding.mapping.target.key), going=going),
        parameters.values,
    )


def _versions(connection: Connection, binding: Binding, keys: Sequence[str]) -> list[tuple[Any, ...]]:
    statement = sql.SQL(
        "SELECT s.tableoid, s.ctid::text, s.xmin::text FROM {source} AS s"
        " WHERE s.{key} = ANY($1::text[]::{type}[]) ORDER BY 1, 2"
    ).format(
        source=binding.source.identifier,
        key=sql.Identifier(binding.mapping.key),
        type=sql.SQL(binding.live[binding.mapping.key].sql_type),
    )
    return execute(connection, statement, list(keys)).fetchall()
