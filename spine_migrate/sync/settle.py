"""After a rollback: the target follows the legacy table again, in every row.

Rows that others made in the target and that were carried to the legacy table are the migration's from now on, and get
its mark. Rows with its mark that have lost their legacy form, or never had one (a copy of another's metadata), are its
own no more and lose the mark, by which the applier would take them for rows whose legacy rows are gone. What the former
hold beyond what the rules make of their legacy rows, and rows that others changed, gives way when the applier writes
them; so they are set aside as they were, in ``spine_migrate.set_aside``.

Each step is a transaction, and all of it may be done again.
"""

from __future__ import annotations

from psycopg import sql

from spine_migrate.carry.tables import Tables
from spine_migrate.db import captures
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.legacy_form import LegacyForm
from spine_migrate.mapping.emit.repair import repairs
from spine_migrate.mapping.emit.sql import is_ours, key
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.mapping.types import literal
from spine_migrate.sync.start import catch_up

BATCH = 2000


def settle(connection: Connection, tables: Tables, form: LegacyForm) -> int:
    """Leave to the applier what differs. Gives the number of rows that were set aside."""
    migration_id = form.migration_id
    captured = captures.captured(connection, migration_id, captures.FORWARD)
    if captured is None:
        return 0
    count = 0
    while _disown(connection, tables, form):
        pass
    while adopted := _adopt(connection, tables, migration_id):
        count += adopted
    with connection.transaction():
        count += execute(connection, _set_differing_aside(tables), migration_id).rowcount
        catch_up(connection, tables, captured)
        connection.execute(query("cutover", "settled"), {"migration_id": migration_id})
    return count


def _disown(connection: Connection, tables: Tables, form: LegacyForm) -> int:
    binding = tables.binding
    statement = sql.SQL(
        "UPDATE {target} AS t SET {column} = {unmarked} WHERE t.{key} IN (SELECT t.{key} FROM {target} AS t"
        " WHERE {ours} AND NOT coalesce({form}, false)"
        " AND NOT EXISTS (SELECT FROM {source} AS s WHERE {forward} = t.{key}) LIMIT $1 FOR UPDATE OF t)"
    ).format(
        target=binding.target.identifier,
        column=sql.Identifier(binding.mapping.origin.target),
        unmarked=_unmarked(tables),
        key=sql.Identifier(binding.mapping.target.key),
        ours=is_ours(binding, "t"),
        form=form.condition("t"),
        source=binding.source.identifier,
        forward=key(binding, "s"),
    )
    with connection.transaction():
        return execute(connection, statement, BATCH).rowcount


def _adopt(connection: Connection, tables: Tables, migration_id: int) -> int:
    binding = tables.binding
    statement = sql.SQL(
        "WITH taken AS (SELECT t.{key} AS target_key, to_json(t.*) AS before FROM {target} AS t"
        " JOIN {source} AS s ON {forward} = t.{key} WHERE NOT coalesce({ours}, false)"
        " AND NOT EXISTS (SELECT FROM spine_migrate.quarantine AS q"
        " WHERE q.migration_id = $1 AND q.source_key = s.{source_key}::text) LIMIT $2 FOR UPDATE OF t),"
        " kept AS (INSERT INTO spine_migrate.set_aside (migration_id, target_key, before)"
        " SELECT $1, target_key::text, before FROM taken)"
        " UPDATE {target} AS t SET {column} = {mark} FROM taken WHERE t.{key} = taken.target_key"
    ).format(
        key=sql.Identifier(binding.mapping.target.key),
        target=binding.target.identifier,
        source=binding.source.identifier,
        source_key=sql.Identifier(binding.mapping.key),
        forward=key(binding, "s"),
        ours=is_ours(binding, "t"),
        column=sql.Identifier(binding.mapping.origin.target),
        mark=_mark(tables),
    )
    with connection.transaction():
        return execute(connection, statement, migration_id, BATCH).rowcount


def _mark(tables: Tables) -> Sql:
    """The column of the mark, over the target row ``t``, with the mark in it."""
    origin, name = tables.binding.mapping.origin, tables.binding.mapping.name
    if not origin.path:
        return literal(name, "text")
    return sql.SQL("jsonb_set(coalesce({}, '{{}}'), {}::text[], to_jsonb({}::text))").format(
        sql.Identifier("t", origin.target), sql.Literal(list(origin.path)), sql.Literal(name)
    )


def _unmarked(tables: Tables) -> Sql:
    origin = tables.binding.mapping.origin
    if not origin.path:
        return sql.SQL("DEFAULT")
    return sql.SQL("{} #- {}::text[]").format(sql.Identifier("t", origin.target), sql.Literal(list(origin.path)))


def _set_differing_aside(tables: Tables) -> sql.Composed:
    binding = tables.binding
    return sql.SQL(
        "INSERT INTO spine_migrate.set_aside (migration_id, target_key, before)"
        " SELECT $1, t.{key}::text, to_json(t.*) FROM ({found}) AS x JOIN {target} AS t ON t.{key}::text = x.target_key"
        " WHERE x.kind = 'differing' AND NOT EXISTS (SELECT FROM spine_migrate.set_aside AS a"
        " WHERE a.migration_id = $1 AND a.target_key = x.target_key AND a.at > (SELECT c.rolled_back_at"
        " FROM spine_migrate.cutover AS c WHERE c.migration_id = $1))"
    ).format(
        key=sql.Identifier(binding.mapping.target.key),
        target=binding.target.identifier,
        found=repairs(binding, tables.target.columns).found(),
    )
