"""The offline load: into an empty table without indexes and foreign keys, which are built after it.

What is dropped is recorded in the same transaction, so a killed run knows what to build. Nothing watches over
uniqueness while rows come in, so what would have collided is found when an index cannot be built: the first row keeps
its place, the others go to quarantine, and the index is built again. Likewise rows without their parent, before a
foreign key is.
"""

from __future__ import annotations

import threading
from collections.abc import Set as AbstractSet
from dataclasses import asdict
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from spine_migrate.backfill.pace import Pace
from spine_migrate.backfill.setting import Setting
from spine_migrate.carry.rows import REPAIRS
from spine_migrate.carry.statements import AGAIN
from spine_migrate.carry.tables import Tables
from spine_migrate.db import catalog, ledger
from spine_migrate.db.catalog import Name, UniqueIndex
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused
from spine_migrate.mapping.emit.sql import is_ours, key

UNIQUE = "23505"


def check(connection: Connection, tables: Tables) -> None:
    """Raises Refused: ``target-not-empty``, ``not-a-plain-table``, ``not-the-owner``, ``replica-identity``,
    ``published``, ``index-attributes``, ``writers``.
    """
    target = tables.target
    name = target.name
    with connection.cursor(row_factory=dict_row) as cursor:
        facts = cursor.execute(query("offline", "table_facts"), {"oid": target.oid}).fetchone()
    if facts is None or not facts["plain"]:
        raise Refused("not-a-plain-table", f"{name} is partitioned or a partition; --offline works on a plain table.")
    if not facts["owned"]:
        raise Refused("not-the-owner", f"--offline drops and builds the indexes of {name}, which only its owner may.")
    if facts["identity"]:
        raise Refused("replica-identity", f"An index of {name} is its replica identity; --offline would lose that.")
    if facts["published"]:
        raise Refused(
            "published",
            f"The publication {facts['published']} publishes updates or deletes of {name}, which the server refuses "
            f"while the table has no key; take the table out of it for the load, or leave --offline out.",
        )
    if facts["special"]:
        raise Refused(
            "index-attributes",
            f"--offline would lose what is set on {', '.join(facts['special'])} (a comment, a tablespace, a statistics "
            f"target, a key's storage parameters or the CLUSTER mark); take it off for the load, or leave the option "
            f"out.",
        )
    row = execute(connection, sql.SQL("SELECT EXISTS (SELECT FROM {})").format(name.identifier)).fetchone()
    if row is not None and row[0]:
        raise Refused("target-not-empty", f"{name} has rows; --offline needs an empty target, leave the option out.")
    oids = {"oids": [tables.source.oid, target.oid]}
    writers = connection.execute(query("offline", "writers"), oids).fetchone()
    if writers is not None and writers[0]:
        raise Refused(
            "writers",
            f"{writers[0]} other sessions hold locks on {tables.source.name} or {name}; "
            f"--offline needs both to be without writers.",
        )


def take_away(connection: Connection, tables: Tables, migration_id: int) -> None:
    """Drop keys, indexes and foreign keys of the target, and those of others that point to it, in the caller's
    transaction, which also starts the migration: there is no moment at which they are gone and nobody knows.

    Raises Refused (``depended-on``).
    """
    oid = tables.target.oid
    unique = {index.name: index for index in catalog.unique_indexes(connection, oid)}
    with connection.cursor(row_factory=dict_row) as cursor:
        objects = cursor.execute(query("offline", "objects"), {"oid": oid}).fetchall()
    for ordinal, found in enumerate(objects):
        index = unique.get(found["object"]) if found["index_oid"] else None
        facts = asdict(index) if index else {"proves": found["proves"]}
        values = {
            "migration_id": migration_id,
            "ordinal": ordinal,
            "object": found["object"],
            "kind": found["kind"],
            "drop_sql": found["drop_sql"],
            "create_sql": found["create_sql"],
            "facts": Jsonb(facts),
        }
        connection.execute(query("offline", "defer"), values)
    for found in reversed(objects):
        try:
            execute(connection, sql.SQL(found["drop_sql"]))
        except psycopg.errors.DependentObjectsStillExist as error:
            words = " ".join((error.diag.message_detail or str(error)).split())
            raise Refused(
                "depended-on",
                f"--offline cannot take {found['object']} away ({words}); drop what depends on it for the load, or "
                f"leave the option out.",
            ) from error
    names = [found["object"] for found in objects]
    ledger.audit(connection, "offline: objects dropped", migration_id=migration_id, objects=names)


def build(connection: Connection, setting: Setting, pace: Pace, stop: threading.Event) -> bool:
    """Build what was taken away, each object in a transaction of its own; goes on where a killed run left off.

    Whether all of it stands; ``stop`` ends it after the object at hand.

    That rows are in order is left to the building, which has to look at them anyway; only what it refuses is mended.
    """
    of_migration = {"migration_id": setting.migration_id}
    with connection.cursor(row_factory=dict_row) as cursor:
        waiting = cursor.execute(query("offline", "deferred"), of_migration).fetchall()
    proven = {name for (name,) in connection.execute(query("offline", "proven_links"), of_migration).fetchall()}
    for found in waiting:
        pace.ready()
        if stop.is_set():
            return False
        pace.stage(f"building {found['object']}")
        unproven = setting.batches.statements.links.keys() - proven if found is waiting[-1] else set[str]()
        try:
            with connection.transaction():
                _cut_links(connection, setting, unproven)
                _create(connection, setting, found)
        except (psycopg.errors.UniqueViolation, psycopg.errors.ForeignKeyViolation):
            _build_mended(connection, setting, found, unproven)
    setting.batches.statements.offline = False
    if waiting:
        execute(connection, sql.SQL("ANALYZE {}").format(setting.tables.target.name.identifier))
        ledger.audit(connection, "offline: objects built", migration_id=setting.migration_id)
    return True


def _build_mended(connection: Connection, setting: Setting, found: dict[str, Any], unproven: AbstractSet[str]) -> None:
    """Raises Refused (``rows-of-others``) where what is in the way is not ours to take out."""
    try:
        with connection.transaction():
            _mend(connection, setting, found)
            # After the mending, which may take away what a link leads to.
            _cut_links(connection, setting, unproven)
            _create(connection, setting, found)
    except psycopg.errors.ForeignKeyViolation as error:
        raise Refused(
            "rows-of-others",
            f"{found['object']} cannot be built again: while it was away, rows of "
            f"{Name(error.diag.schema_name or '', error.diag.table_name or '')} were written that point to none of "
            f"{setting.tables.target.name}; delete or mend them, then run the same command.",
        ) from error
    except psycopg.errors.UniqueViolation as error:
        raise Refused(
            "rows-of-others",
            f"{found['object']} cannot be built again: while it was away, others wrote rows of "
            f"{setting.tables.target.name} that exclude each other; delete or mend them, then run the same command.",
        ) from error


def _mend(connection: Connection, setting: Setting, found: dict[str, Any]) -> None:
    """Take out what keeps an object from being built."""
    match found["kind"]:
        case "primary key":
            _take_out_doubles(connection, setting)
        case "foreign key":
            _cut_links(connection, setting, setting.batches.statements.links.keys())
            _evict_orphans(connection, setting)
        case _:
            _evict_losers(connection, setting, _index(found["facts"]))


def _create(connection: Connection, setting: Setting, found: dict[str, Any]) -> None:
    connection.execute(query("offline", "for_building"))
    execute(connection, sql.SQL(found["create_sql"]))
    values = {"migration_id": setting.migration_id, "ordinal": found["ordinal"]}
    connection.execute(query("offline", "built"), values)


def _index(facts: dict[str, Any]) -> UniqueIndex:
    return UniqueIndex(
        name=facts["name"],
        expressions=tuple(facts["expressions"]),
        predicate=facts["predicate"],
        nulls_distinct=facts["nulls_distinct"],
        columns=tuple(facts["columns"]),
        valid=facts["valid"],
    )


def _take_out_doubles(connection: Connection, setting: Setting) -> None:
    """Our rows whose key stands more than once: a source row that was changed and so met again, or a key that somebody
    else has used meanwhile. They count as not moved; the sweep moves them, with every care, as they are then.
    """
    statement = sql.SQL(
        "WITH doubled AS MATERIALIZED (SELECT {key} AS key FROM {target} GROUP BY {key} HAVING count(*) > 1),"
        " gone AS (DELETE FROM {target} AS t USING doubled AS d WHERE t.{key} = d.key AND {ours} RETURNING 1)"
        " SELECT count(*) FROM gone"
    ).format(
        key=_key(setting),
        target=setting.tables.target.name.identifier,
        ours=is_ours(setting.tables.binding, "t"),
    )
    ((count,),) = execute(connection, statement).fetchall()
    _count_out(connection, setting, moved=count, quarantined=0)


def _count_out(connection: Connection, setting: Setting, *, moved: int, quarantined: int) -> None:
    values = {"migration_id": setting.migration_id, "segment": REPAIRS, "moved": -moved, "adopted": 0}
    connection.execute(query("backfill", "count_repairs"), {**values, "quarantined": quarantined})


def _evict_losers(connection: Connection, setting: Setting, index: UniqueIndex) -> None:
    """Of the rows that want one place in an index, all but the first go to quarantine. A row that is not ours, written
    while the index was gone, comes before all of ours.
    """
    parts = [sql.SQL("({})").format(sql.SQL(part)) for part in index.expressions]
    conditions = [sql.SQL("({})").format(sql.SQL(index.predicate or "true"))]
    if index.nulls_distinct:
        conditions += [sql.SQL("{} IS NOT NULL").format(part) for part in parts]
    table = sql.Identifier(setting.tables.target.name.table)
    losers = sql.SQL(
        "SELECT loser, winner FROM (SELECT {table}.{key} AS loser, first_value({table}.{key}) OVER place AS winner,"
        " row_number() OVER place AS number FROM {target} AS {table} WHERE {conditions}"
        " WINDOW place AS (PARTITION BY {parts} ORDER BY {ours} IS TRUE, {table}.ctid)) AS ranked WHERE number > 1"
    ).format(
        table=table,
        ours=is_ours(setting.tables.binding, setting.tables.target.name.table),
        key=_key(setting),
        target=setting.tables.target.name.identifier,
        conditions=sql.SQL(" AND ").join(conditions),
        parts=sql.SQL(", ").join(parts),
    )
    _evict(
        connection,
        setting,
        losers,
        reason="unique_conflict",
        field=None,
        detail=sql.SQL("concat({}::text, l.winner, ', which came first')").format(
            sql.Literal(f"{index.name} is taken by {setting.tables.binding.mapping.target.key} ")
        ),
        constraint=index.name,
    )


def _evict_orphans(connection: Connection, setting: Setting) -> None:
    """Rows that need a parent which is not there."""
    parent = setting.batches.statements.parent
    if parent is None:
        return
    orphans = sql.SQL(
        "SELECT t.{key} AS loser, NULLIF(t.{key}, t.{key}) AS winner FROM {target} AS t"
        " WHERE NOT EXISTS (SELECT FROM {parents} AS p WHERE p.{parent_key} = t.{column})"
    ).format(
        key=_key(setting),
        target=setting.tables.target.name.identifier,
        parents=parent.binding.target.identifier,
        parent_key=sql.Identifier(parent.binding.mapping.target.key),
        column=sql.Identifier(parent.field.target),
    )
    detail = f"{parent.field.column} names no row that {parent.binding.mapping.name} has moved"
    _evict(
        connection,
        setting,
        orphans,
        reason="orphan",
        field=parent.field.name,
        detail=sql.SQL("{}::text").format(sql.Literal(detail)),
        constraint=None,
    )


def _evict(
    connection: Connection,
    setting: Setting,
    losers: sql.Composed,
    *,
    reason: str,
    field: str | None,
    detail: sql.Composed,
    constraint: str | None,
) -> None:
    """Take rows out of the target again and into quarantine, with the row that keeps the place beside them.

    Only rows of ours: another's stay, and the object that they stand in the way of is not built.
    """
    binding = setting.tables.binding
    statement = sql.SQL(
        "WITH l AS MATERIALIZED (SELECT x.* FROM ({losers}) AS x JOIN {target} AS t ON t.{key} = x.loser WHERE {ours}),"
        " put AS (INSERT INTO spine_migrate.quarantine (migration_id, source_key, source_row, reason, field, detail,"
        " sqlstate, constraint_name, colliding_row)"
        " SELECT $1, s.{source_key}::text, row_to_json(s.*), $2, $3, {detail}, $4, $5,"
        " (SELECT row_to_json(w.*) FROM {target} AS w WHERE w.{key} = l.winner)"
        " FROM l JOIN {source} AS s ON {forward_key} = l.loser{again} RETURNING xmax::text = '0' AS new),"
        " gone AS (DELETE FROM {target} AS t USING l WHERE t.{key} = l.loser AND {ours} RETURNING 1)"
        " SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM put WHERE new)"
    ).format(
        losers=losers,
        ours=is_ours(binding, "t"),
        source_key=sql.Identifier(binding.mapping.key),
        detail=detail,
        target=setting.tables.target.name.identifier,
        key=_key(setting),
        source=setting.tables.source.name.identifier,
        forward_key=key(binding, "s"),
        # Refused once, then changed in the source and met again: it is in there already.
        again=sql.SQL(AGAIN),
    )
    sqlstate = UNIQUE if constraint else None
    values = (setting.migration_id, reason, field, sqlstate, constraint)
    ((gone, put),) = execute(connection, statement, *values).fetchall()
    _count_out(connection, setting, moved=gone, quarantined=put)


def _cut_links(connection: Connection, setting: Setting, names: AbstractSet[str]) -> None:
    """Links that lead nowhere become NULL and are recorded, as the online load does it."""
    for name in sorted(names):
        statement = sql.SQL(
            "WITH nowhere AS MATERIALIZED (SELECT t.{key} AS target_key, t.{column} AS wanted FROM {target} AS t"
            " WHERE {ours} AND t.{column} IS NOT NULL"
            " AND NOT EXISTS (SELECT FROM {target} AS r WHERE r.{key} = t.{column})),"
            " cut AS (UPDATE {target} AS t SET {column} = NULL FROM nowhere AS n WHERE t.{key} = n.target_key)"
            " INSERT INTO spine_migrate.link (migration_id, target_key, field, wanted)"
            " SELECT $1, target_key::text, $2, wanted::text FROM nowhere"
        ).format(
            key=_key(setting),
            column=sql.Identifier(name),
            target=setting.tables.target.name.identifier,
            ours=is_ours(setting.tables.binding, "t"),
        )
        execute(connection, statement, setting.migration_id, name)


def _key(setting: Setting) -> sql.Identifier:
    return sql.Identifier(setting.tables.binding.mapping.target.key)
