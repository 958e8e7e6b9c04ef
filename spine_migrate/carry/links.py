"""Links: references that are inserted as NULL because the row they name has not arrived, and completed when it has."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from spine_migrate.carry.scope import Parameters, Scope
from spine_migrate.carry.statements import Rejects, Statement, Statements
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


def await_links(
    statements: Statements, migration_id: int, scope: Scope, linked: list[str], rejects: Rejects
) -> Statement:
    """Find and remember the links of a batch whose row is neither on the target nor in the batch, before it is
    inserted. ``linked``: its rows with a link, adopted ones included. Rows come back: column, handles of rows.

    Offline there is no foreign key to violate; what leads nowhere is taken out before it is built.
    """
    binding = statements.binding
    parameters = Parameters()
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
        "SELECT * FROM pair AS w WHERE w.adopted OR w.wanted NOT IN (SELECT key FROM here)"
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
        migration=parameters.add(migration_id, "bigint"),
    )
    return query, parameters.values


def complete(connection: Connection, binding: Binding, migration_id: int, *, everything_moved: bool) -> Links:
    """Fill in every link whose row is there by now, each batch in its own transaction.

    Only once everything has been moved can a link that leads nowhere be called broken.
    """
    completed = 0
    for field in binding.mapping.links:
        statement = _complete(binding, field.target)
        last: str | None = ""
        while last is not None:
            with connection.transaction():
                ((last, done),) = execute(connection, statement, migration_id, field.target, last, BATCH).fetchall()
            completed += done
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
    """The next links in the order of the keys: the last of them, how many were completed.

    A link row is deleted in the statement that fills it in. A target row that is gone takes its link along.
    """
    return sql.SQL(
        "WITH part AS ("
        " SELECT max(p.target_key) AS last FROM ("
        " SELECT l.target_key FROM spine_migrate.link AS l WHERE l.migration_id = $1 AND l.field = $2"
        " AND l.target_key > $3 ORDER BY l.target_key LIMIT $4) AS p),"
        " gone AS ("
        " DELETE FROM spine_migrate.link AS l USING {target} AS r"
        " WHERE l.migration_id = $1 AND l.field = $2 AND l.target_key > $3 AND l.target_key <= (SELECT last FROM part)"
        " AND r.{key} = l.wanted::{type} RETURNING l.target_key, l.wanted),"
        " filled AS ("
        " UPDATE {target} AS t SET {column} = g.wanted::{type} FROM gone AS g"
        " WHERE t.{key} = g.target_key::{type} AND t.{column} IS NULL)"
        " SELECT (SELECT last FROM part), (SELECT count(*) FROM gone)"
    ).format(
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
