"""What would break with the view and the legacy tables: everything of somebody else that goes by them.

The drop itself is RESTRICT, so that the server refuses what was not seen here. What is only text until it runs it does
not see at all, and that is looked for by words.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from spine_migrate.carry.known import Known
from spine_migrate.cutover import sql_text
from spine_migrate.cutover.dependent import Dependent
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.cutovers import Cutover, unquoted
from spine_migrate.db.definition import definition
from spine_migrate.db.queries import query
from spine_migrate.db.raw import rows

_KINDS = {"v": "view", "m": "materialized view"}
_READS = "It reads {}, which goes."
# What statements of this tool have in them; an application's own schema may be called spine_something.
_OURS = r"\mspine_(migrate|row|view|capture|fence)"
# Statements of pg_stat_statements that are shown, the most frequent first.
_SHOWN = 20


@dataclass(frozen=True)
class Place:
    """Something that is dropped: a legacy table, a view, a sequence that a legacy table owns."""

    name: Name
    oid: int


@dataclass(frozen=True)
class Readers:
    """Statements that name what is dropped, with how often they ran since the server's counters began; ``unknown`` says
    why nothing can be told.
    """

    statements: list[tuple[str, int]]
    unknown: str | None = None


def places(connection: Connection, members: Sequence[Known], cutovers: dict[int, Cutover]) -> list[Place]:
    """The legacy tables and the views that are there."""
    found = [Place(one.tables.source.name, one.tables.source.oid) for one in members]
    for one in members:
        cut = cutovers[one.migration.migration_id]
        ((oid,),) = connection.execute(query("retire", "relation"), {"name": cut.source_table}).fetchall()
        if cut.view and oid is not None:
            found.append(Place(unquoted(connection, cut.source_table), oid))
    return found


def hanging(connection: Connection, members: Sequence[Known], dropped: Sequence[Place]) -> list[Dependent]:
    """What blocks first. The session's search_path is to be pinned (``db.connect.PINNED``)."""
    names = {str(one.name) for one in dropped}
    values = {
        "tables": [one.tables.source.oid for one in members],
        "ours": [one.oid for one in dropped],
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        sequences = cursor.execute(query("retire", "sequences"), values).fetchall()
    found = [
        Dependent(
            table,
            "default",
            f"It takes its values from {Name(one['schema'], one['name'])}, which belongs to a legacy table and goes "
            f"with it.",
            "Give the sequence to the column that uses it.",
            sql.SQL("ALTER SEQUENCE {} OWNED BY NONE;")
            .format(sql.Identifier(one["schema"], one["name"]))
            .as_string(None),
        )
        for one in sequences
        for table in one["used_by"]
    ]
    for place in (*dropped, *(Place(Name(one["schema"], one["name"]), one["oid"]) for one in sequences)):
        found += _of(connection, place, names)
    tables = {one.tables.source.oid for one in members}
    for one in members:
        found += _foreign_keys(connection, one, tables)
    unique = {(one.kind, one.object, one.breaks): one for one in found}
    return sorted(unique.values(), key=lambda one: not one.blocks)


def _of(connection: Connection, place: Place, ours: Collection[str]) -> Iterator[Dependent]:
    yield from _resolved(connection, place, ours)
    for one in _ask(connection, "texts", place):
        if sql_text.mentions(one["text"], place.name.schema, place.name.table):
            yield Dependent(
                one["name"],
                "function",
                f"Its text names {place.name}, so it fails when it is called.",
                "Let it go by the target, or drop it; where its words mean something else, take it on yourself.",
            )
    for one in _ask(connection, "triggers", place):
        name = sql.Identifier(one["name"]).as_string(None)
        yield Dependent(
            one["name"] if one["own"] else f"{one['name']} ON {one['on_table']}",
            "trigger",
            f"Somebody has made it on {one['on_table']}, and it fires.",
            "Drop it, or do what it does in a trigger of the target.",
            f"DROP TRIGGER {name} ON {one['on_table']};",
        )
    for one in _ask(connection, "publications", place):
        yield Dependent(one["name"], "publication", f"It publishes {place.name}.", "Know it.", blocks=False)


def _resolved(connection: Connection, place: Place, ours: Collection[str]) -> Iterator[Dependent]:
    """What the server knows to depend on it, and would not let it be dropped."""
    reads, instead = _READS.format(place.name), "Let it go by the target, or drop it."
    for one in _ask(connection, "views", place):
        if str(unquoted(connection, one["name"])) not in ours:
            yield Dependent(one["name"], _KINDS[one["kind"]], reads, instead)
    for one in _ask(connection, "routines", place):
        if not one["name"].startswith("spine_migrate."):
            yield Dependent(one["name"], "function", reads, instead)
    for kind, column in (("rules", "rule"), ("policies", "policy")):
        for one in _ask(connection, kind, place):
            if not one["own"]:
                name = sql.Identifier(one[column]).as_string(None)
                yield Dependent(f"{name} ON {one['on_table']}", column, reads, instead)
    for one in _ask(connection, "row_type_columns", place):
        yield Dependent(one["name"], "column", f"It holds rows of the type of {place.name}.", "Drop it.")


def _foreign_keys(connection: Connection, one: Known, along: Collection[int]) -> Iterator[Dependent]:
    source = one.tables.source
    for key in definition(connection, source.name, source.oid).inbound:
        if key.oid not in along:
            name = sql.Identifier(key.name).as_string(None)
            yield Dependent(
                f"{name} ON {key.table}",
                "foreign key",
                f"It points to {source.name}.",
                "Drop it, or point it to the target.",
                f"ALTER TABLE {key.table} DROP CONSTRAINT {name};",
            )


def readers(connection: Connection, dropped: Sequence[Place]) -> Readers:
    """Who has sent statements that name what is dropped, where the server keeps such and this role may see them."""
    where = _ask(connection, "statement_statistics", Place(Name("", ""), 0))
    if not where:
        return Readers([], "pg_stat_statements is not there or may not be read, so who reads them cannot be told.")
    found: dict[str, int] = {}
    for place in dropped:
        seen = rows(
            connection,
            sql.SQL(
                "SELECT query, sum(calls)::bigint AS calls FROM {}"
                " WHERE dbid = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())"
                " AND strpos(lower(query), lower($1)) > 0 AND query !~ $2"
                " GROUP BY query"
            ).format(sql.Identifier(where[0]["schema"], "pg_stat_statements")),
            place.name.table,
            _OURS,
        )
        found |= {
            " ".join(one["query"].split()): one["calls"]
            for one in seen
            if sql_text.mentions(one["query"], place.name.schema, place.name.table)
        }
    return Readers(sorted(found.items(), key=lambda one: -one[1])[:_SHOWN])


def _ask(connection: Connection, name: str, place: Place) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("dependents", name), {"oid": place.oid, "table": place.name.table}).fetchall()
