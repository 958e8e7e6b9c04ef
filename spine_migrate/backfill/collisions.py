"""Finding, before an insert, the rows of a batch whose key or unique values are taken.

Only a batch that has failed on a constraint pays for this, and those that follow it in the same segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from spine_migrate.backfill.scope import Parameters, Scope
from spine_migrate.backfill.statements import Found, Rejects, Statements
from spine_migrate.db.catalog import UniqueIndex
from spine_migrate.db.connect import Connection
from spine_migrate.db.raw import execute, rows
from spine_migrate.db.row_shape import Filled
from spine_migrate.mapping.emit import unique


@dataclass(frozen=True)
class Guard:
    """What the target watches over: its unique indexes, and the shape of its rows that their expressions speak of."""

    indexes: list[UniqueIndex]
    shape: tuple[Filled, ...]


def find_collisions(
    connection: Connection, statements: Statements, guard: Guard, scope: Scope, rejects: Rejects
) -> None:
    """Add to ``rejects`` what collides, with the row it collides with. Rows that are ours and as they should be already
    are adopted."""
    _taken_keys(connection, statements, scope, rejects)
    for index in guard.indexes:
        _taken_values(connection, statements, guard, index, scope, rejects)
        _rivals(connection, statements, guard, index, scope, rejects)


def _taken_keys(connection: Connection, statements: Statements, scope: Scope, rejects: Rejects) -> None:
    target = statements.binding.target
    composed, values = statements.taken(scope, rejects.handles)
    for handle, ours, same, row in execute(connection, composed, *values):
        if ours and same:
            rejects.adopted.append(handle)
            continue
        whose = "was moved before and has changed since" if ours else "is not ours"
        rejects.found[handle] = Found(
            "key_taken",
            f"the key is taken in {target} by a row that {whose}",
            field=statements.binding.mapping.target.key,
            colliding_row=row,
        )


def _taken_values(
    connection: Connection, statements: Statements, guard: Guard, index: UniqueIndex, scope: Scope, rejects: Rejects
) -> None:
    parameters = Parameters()
    query = unique.with_target(statements.binding, index, _candidates(statements, guard, scope, rejects, parameters))
    for found in rows(connection, query, *parameters.values):
        rejects.found[_handle(scope, found)] = Found(
            "unique_conflict",
            f"{index.name} is taken by {statements.binding.mapping.target.key} {found['colliding_key']}",
            sqlstate="23505",
            constraint=index.name,
            colliding_row=found["colliding_row"],
        )


def _rivals(
    connection: Connection, statements: Statements, guard: Guard, index: UniqueIndex, scope: Scope, rejects: Rejects
) -> None:
    """Of the rows of one batch that want the same place the first gets it."""
    parameters = Parameters()
    query = unique.within(statements.binding, index, _candidates(statements, guard, scope, rejects, parameters))
    for found in rows(connection, query, *parameters.values):
        rejects.found[_handle(scope, found)] = Found(
            "unique_conflict",
            f"{index.name} is taken by source row {found['first_key']}, which came first",
            sqlstate="23505",
            constraint=index.name,
        )


def _candidates(
    statements: Statements, guard: Guard, scope: Scope, rejects: Rejects, parameters: Parameters
) -> sql.Composed:
    condition = scope.without("s", rejects.handles, parameters)
    return unique.candidates(statements.binding, scope.table("s"), condition, guard.shape)


def _handle(scope: Scope, found: dict[str, Any]) -> str:
    return str(found["tid"] if scope.handle_type == "tid" else found["source_key"])
