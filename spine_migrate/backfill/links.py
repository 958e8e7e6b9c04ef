"""Completing links: references that were inserted as NULL because the row they name had not arrived."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from spine_migrate.db.connect import Connection
from spine_migrate.db.raw import execute
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.sql import key

BATCH = 5_000


@dataclass(frozen=True)
class Links:
    """``waiting``: the row named is in quarantine or not moved yet; ``broken``: it does not exist at all."""

    completed: int
    waiting: int
    broken: int


def complete(connection: Connection, binding: Binding, migration_id: int, *, everything_moved: bool) -> Links:
    """Fill in every link whose row is there by now, each batch in its own transaction.

    Only once everything has been moved can a link that leads nowhere be called broken.
    """
    completed = 0
    for field in binding.mapping.links:
        statement = _complete(binding, field.target)
        while True:
            with connection.transaction():
                row = execute(connection, statement, migration_id, field.target, BATCH).fetchone()
            done = int(row[0]) if row else 0
            completed += done
            if done < BATCH:
                break
    with connection.transaction():
        if everything_moved and binding.mapping.links:
            execute(connection, _mark_broken(binding), migration_id)
        states = dict(
            execute(
                connection,
                sql.SQL("SELECT state, count(*) FROM spine_migrate.link WHERE migration_id = $1 GROUP BY state"),
                migration_id,
            ).fetchall()
        )
    return Links(completed, states.get("waiting", 0), states.get("broken", 0))


def _complete(binding: Binding, column: str) -> sql.Composed:
    """A link row is deleted in the statement that fills it in. A target row that is gone takes its link along."""
    return sql.SQL(
        "WITH batch AS ("
        " SELECT l.target_key, l.wanted FROM spine_migrate.link AS l"
        " WHERE l.migration_id = $1 AND l.field = $2"
        " AND EXISTS (SELECT FROM {target} AS r WHERE r.{key} = l.wanted::{type})"
        " ORDER BY l.target_key LIMIT $3 FOR UPDATE),"
        " filled AS ("
        " UPDATE {target} AS t SET {column} = b.wanted::{type} FROM batch AS b"
        " WHERE t.{key} = b.target_key::{type} AND t.{column} IS NULL),"
        " gone AS ("
        " DELETE FROM spine_migrate.link AS l USING batch AS b"
        " WHERE l.migration_id = $1 AND l.field = $2 AND l.target_key = b.target_key)"
        " SELECT count(*) FROM batch"
    ).format(
        target=binding.target.identifier,
        key=sql.Identifier(binding.mapping.target.key),
        column=sql.Identifier(column),
        type=_key_type(binding),
    )


def _mark_broken(binding: Binding) -> sql.Composed:
    return sql.SQL(
        "UPDATE spine_migrate.link AS l SET state = CASE WHEN EXISTS ("
        "SELECT FROM {source} AS s WHERE {forward_key} = l.wanted::{type}) THEN 'waiting' ELSE 'broken' END"
        " WHERE l.migration_id = $1"
    ).format(source=binding.source.identifier, forward_key=key(binding, "s"), type=_key_type(binding))


def _key_type(binding: Binding) -> sql.SQL:
    return sql.SQL(binding.mapping.target.columns[binding.mapping.target.key].type.name)
