"""Links: references that are inserted as NULL because the row they name has not arrived, and completed when it has.

After a cutover the application itself writes to the target: rows that it holds are passed over then, until the next
time, so that nobody waits for the other or meets it in a deadlock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from spine_migrate.carry.scope import Parameters, Scope
from spine_migrate.carry.statements import Rejects, Statement, Statements
from spine_migrate.db.connect import Connection
from spine_migrate.db.raw import execute
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit.sql import key
from spine_migrate.mapping.transforms.base import Sql

BATCH = 5_000
# The next links in the order of their keys.
_PART: LiteralString = (
    "WITH part AS ("
    " SELECT max(p.target_key) AS last FROM ("
    " SELECT l.target_key FROM spine_migrate.link AS l WHERE l.migration_id = $1 AND l.field = $2"
    " AND l.target_key > $3 ORDER BY l.target_key LIMIT $4) AS p)"
)


@dataclass(frozen=True)
class Links:
    """``waiting``: the row named is in quarantine or not moved yet; ``broken``: it does not exist at all."""

    completed: int
    waiting: int
    broken: int


def await_links(
    statements: Statements, migration_id: int, scope: Scope, linked: list[str], rejects: Rejects
) -> Statement:
    """Find and remember the links of a batch whose row is neither on the target nor in the batch, before it is
    inserted. ``linked``: its rows with a link, adopted ones included. Rows come back: column, handles of rows.

    Offline there is no foreign key to violate; what leads nowhere is taken out before it is built.
    """
    binding = statements.binding
    parameters = Parameters()
    migration = parameters.add(migration_id, "bigint")
    adopted = scope.listed("s", rejects.adopted, parameters) if rejects.adopted else sql.SQL("false")
    query = sql.SQL(
        "WITH pair AS MATERIALIZED ("
        "SELECT {handle}::text AS handle, ({own_key})::text AS target_key, w.field, w.wanted, {adopted} AS adopted"
        " FROM {table} CROSS JOIN LATERAL (VALUES {links}) AS w (field, wanted)"
        " WHERE {rows} AND {listed} AND w.wanted IS NOT NULL),"
        " here AS MATERIALIZED ("
        # IS TRUE keeps it a filter over the batch; as a join it would be a look-up of each link's row in the source.
        "SELECT {other_key} AS key FROM {other} WHERE {others} AND ({other_key} IN (SELECT wanted FROM pair)) IS TRUE),"
        " waiting AS MATERIALIZED ("
        "SELECT * FROM pair AS w WHERE w.adopted AND {open} OR NOT w.adopted AND w.wanted NOT IN (SELECT key FROM here)"
        # A look-up for each, not a join: the target may have no statistics yet, and would be read whole.
        " AND (SELECT true FROM {target} AS r WHERE r.{key} = w.wanted) IS NULL),"
        " noted AS ("
        "INSERT INTO spine_migrate.link (migration_id, target_key, field, wanted)"
        " SELECT {migration}, target_key, field, wanted::text FROM waiting"
        " ON CONFLICT (migration_id, target_key, field) DO UPDATE SET wanted = EXCLUDED.wanted)"
        " SELECT field, array_agg(handle) FROM waiting GROUP BY field"
    ).format(
        handle=scope.handle("s"),
        own_key=key(binding, "s"),
        adopted=adopted,
        open=_is_open(statements, migration) if rejects.adopted else sql.SQL("false"),
        table=scope.table("s"),
        links=sql.SQL(", ").join(
            sql.SQL("({}, {})").format(sql.Literal(name), statements.columns[name]) for name in statements.links
        ),
        rows=scope.condition("s", parameters),
        listed=scope.listed("s", linked, parameters),
        other_key=key(binding, "p"),
        other=scope.table("p"),
        others=scope.without("p", rejects.handles, parameters),
        target=binding.target.identifier,
        key=sql.Identifier(binding.mapping.target.key),
        migration=migration,
    )
    return query, parameters.values


def _is_open(statements: Statements, migration: Sql) -> Sql:
    """Whether the link of an adopted row is neither as it should be nor on record. Where it is, it is the applier's:
    a record beside a link that is complete, or one that is written again while the applier deletes it, would outlive
    what it says.
    """
    binding = statements.binding
    link = sql.SQL(" ").join(
        sql.SQL("WHEN {} THEN t.{}").format(sql.Literal(name), sql.Identifier(name)) for name in statements.links
    )
    return sql.SQL(
        "NOT EXISTS (SELECT FROM {target} AS t WHERE t.{key} = w.target_key::{type} AND CASE w.field {link} END ="
        " w.wanted) AND NOT EXISTS (SELECT FROM spine_migrate.link AS l WHERE l.migration_id = {migration}"
        " AND l.target_key = w.target_key AND l.field = w.field AND l.wanted = w.wanted::text)"
    ).format(
        target=binding.target.identifier,
        key=sql.Identifier(binding.mapping.target.key),
        type=_key_type(binding),
        link=link,
        migration=migration,
    )


def complete(
    connection: Connection,
    binding: Binding,
    migration_id: int,
    *,
    everything_moved: bool,
    between: Callable[[float], None] = lambda _: None,
) -> Links:
    """Fill in every link whose row is there by now, each batch in its own transaction. ``between`` is called after each
    with the seconds that it took.

    Only once everything has been moved can a link that leads nowhere be called broken.
    """
    completed = _fill(connection, binding, migration_id, beside=False, between=between)
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


def complete_beside(connection: Connection, binding: Binding, migration_id: int) -> int:
    """Fill in links of rows that the application does not hold at this moment; how many."""
    return _fill(connection, binding, migration_id, beside=True, between=lambda _: None)


def _fill(
    connection: Connection, binding: Binding, migration_id: int, *, beside: bool, between: Callable[[float], None]
) -> int:
    if connection.info.transaction_status is TransactionStatus.IDLE:
        # Each statement sees what is committed by then: beside writers a snapshot would only fail.
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    completed = 0
    for field in binding.mapping.links:
        last: str | None = ""
        while last is not None:
            began = time.monotonic()
            with connection.transaction():
                if beside:
                    statement = _complete_beside(binding, field.target)
                    ((last, done),) = execute(connection, statement, migration_id, field.target, last, BATCH).fetchall()
                else:
                    held = _hold(binding)
                    ((last, keys),) = execute(connection, held, migration_id, field.target, last, BATCH).fetchall()
                    statement = _complete(binding, field.target)
                    done = execute(connection, statement, migration_id, field.target, keys).rowcount if keys else 0
            completed += done
            if last is not None:
                between(time.monotonic() - began)
    return completed


def _complete_beside(binding: Binding, column: str) -> sql.Composed:
    """As ``_complete``. Whoever changes what is known of a row's links holds the row: it is locked first here as well,
    and what is known is taken only as it was when it was looked up.
    """
    return sql.SQL(
        "{part}, held AS MATERIALIZED ("
        " SELECT l.target_key, l.wanted FROM spine_migrate.link AS l"
        " JOIN {target} AS r ON r.{key} = l.wanted::{type} JOIN {target} AS t ON t.{key} = l.target_key::{type}"
        " WHERE l.migration_id = $1 AND l.field = $2 AND l.target_key > $3 AND l.target_key <= (SELECT last FROM part)"
        " AND t.{column} IS NULL FOR KEY SHARE OF r SKIP LOCKED FOR NO KEY UPDATE OF t SKIP LOCKED),"
        " {filled} SELECT (SELECT last FROM part), (SELECT count(*) FROM gone)"
    ).format(
        part=sql.SQL(_PART),
        target=binding.target.identifier,
        key=sql.Identifier(binding.mapping.target.key),
        column=sql.Identifier(column),
        type=_key_type(binding),
        filled=_filled(binding, column, "held", sql.SQL(" AND l.wanted = h.wanted")),
    )


def _hold(binding: Binding) -> sql.Composed:
    """The next links in the order of the keys: the last of them, and those whose row is there, which are locked.

    What is done with them is a statement of its own. The applier changes a row, deletes the one that it names and the
    record in one transaction; who has waited for that would go by a snapshot from before it, in which the link was
    complete and its row there, and would delete the record that was written since.
    """
    return sql.SQL(
        "{part}, held AS MATERIALIZED ("
        " SELECT l.target_key FROM spine_migrate.link AS l JOIN {target} AS r ON r.{key} = l.wanted::{type}"
        " WHERE l.migration_id = $1 AND l.field = $2 AND l.target_key > $3 AND l.target_key <= (SELECT last FROM part)"
        " ORDER BY l.target_key FOR UPDATE OF l)"
        " SELECT (SELECT last FROM part), (SELECT array_agg(target_key) FROM held)"
    ).format(
        part=sql.SQL(_PART),
        target=binding.target.identifier,
        key=sql.Identifier(binding.mapping.target.key),
        type=_key_type(binding),
    )


def _complete(binding: Binding, column: str) -> sql.Composed:
    """Fill in links that are held, as far as the row that they name is there still; rows: those that were."""
    return sql.SQL(
        "WITH there AS MATERIALIZED ("
        " SELECT l.target_key FROM unnest($3::text[]) AS h (target_key) JOIN spine_migrate.link AS l"
        " ON l.migration_id = $1 AND l.field = $2 AND l.target_key = h.target_key"
        " JOIN {target} AS r ON r.{key} = l.wanted::{type}"
        # One that is being deleted is waited for, and is not there then.
        " FOR KEY SHARE OF r),"
        " {filled} SELECT FROM gone"
    ).format(
        target=binding.target.identifier,
        key=sql.Identifier(binding.mapping.target.key),
        type=_key_type(binding),
        filled=_filled(binding, column, "there", sql.SQL("")),
    )


def _filled(binding: Binding, column: str, held: LiteralString, as_it_was: Sql) -> sql.Composed:
    """The links of ``held`` are filled in, and deleted in the same statement. A target row that is gone takes its link
    along.
    """
    return sql.SQL(
        "gone AS ("
        " DELETE FROM spine_migrate.link AS l USING {held} AS h"
        " WHERE l.migration_id = $1 AND l.field = $2 AND l.target_key = h.target_key{as_it_was}"
        " RETURNING l.target_key, l.wanted),"
        " filled AS ("
        " UPDATE {target} AS t SET {column} = g.wanted::{type} FROM gone AS g"
        " WHERE t.{key} = g.target_key::{type} AND t.{column} IS NULL)"
    ).format(
        held=sql.SQL(held),
        as_it_was=as_it_was,
        target=binding.target.identifier,
        key=sql.Identifier(binding.mapping.target.key),
        column=sql.Identifier(column),
        type=_key_type(binding),
    )


def _mark_broken(binding: Binding) -> sql.Composed:
    return sql.SQL(
        "UPDATE spine_migrate.link AS l SET state = x.state FROM ("
        "SELECT w.target_key, w.field, CASE WHEN EXISTS ("
        "SELECT FROM {source} AS s WHERE {forward_key} = w.wanted::{type}) THEN 'waiting' ELSE 'broken' END AS state"
        " FROM spine_migrate.link AS w WHERE w.migration_id = $1) AS x"
        " WHERE l.migration_id = $1 AND l.target_key = x.target_key AND l.field = x.field AND l.state <> x.state"
    ).format(source=binding.source.identifier, forward_key=key(binding, "s"), type=_key_type(binding))


def _key_type(binding: Binding) -> sql.SQL:
    return sql.SQL(binding.mapping.target.columns[binding.mapping.target.key].type.name)
