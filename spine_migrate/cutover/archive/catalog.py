"""Tables as the catalog describes them, in the snapshot that the connection is in; the rows are not looked at.

The session's search_path must be that of ``db.connect.PINNED``, so that every name comes with its schema.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from spine_migrate.cutover.archive.model import (
    Column,
    Constraint,
    Index,
    Requirement,
    Sequence,
    Table,
    Type,
    TypeConstraint,
)
from spine_migrate.cutover.archive.streams import Rows
from spine_migrate.db import catalog
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused


@dataclass(frozen=True)
class Described:
    """``tables`` have no rows and no files yet."""

    tables: tuple[Table, ...]
    types: tuple[Type, ...]
    requires: tuple[Requirement, ...]


def describe(connection: Connection, names: Many[Name]) -> Described:
    """The tables with their partitions and children, and what they need.

    Raises Refused as ``db.catalog.find`` does, and ``not-understood`` for a definition that cannot be taken apart.
    """
    roots = [catalog.find(connection, name.table, name.schema).oid for name in names]
    tree = _asked(connection, "tree", oids=roots)
    oids = [row["oid"] for row in tree]
    places = {row["oid"]: Name(row["schema"], row["name"]) for row in tree}
    used = [row["oid"] for row in _asked(connection, "used_types", oids=oids)]
    found = _asked(connection, "types", oids=used)
    requires = _asked(connection, "requires", tables=oids, types=[row["oid"] for row in found])
    return Described(
        tables=tuple(_table(connection, row, places) for row in tree),
        types=_in_order(found),
        requires=tuple(
            Requirement(row["type"], tuple(row["names"]), tuple(row["args"]), row["identity"]) for row in requires
        ),
    )


def type_named(connection: Connection, name: Name) -> Type | None:
    """None where there is no such type, or one that an archive does not hold. Raises Refused as ``describe``."""
    for row in _asked(connection, "type_oid", schema=name.schema, name=name.table):
        for found in _asked(connection, "types", oids=[row["oid"]]):
            if found["oid"] == row["oid"]:
                return _type(found)
    return None


def _asked(connection: Connection, question: str, **parameters: Any) -> list[dict[str, Any]]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query("archive", question), parameters).fetchall()


def _table(connection: Connection, row: dict[str, Any], places: dict[int, Name]) -> Table:
    oid, name = row["oid"], places[row["oid"]]
    parents = tuple(places[parent] for parent in row["parents"] if parent in places)
    left_out = [one["left_out"] for one in _asked(connection, "left_out", oid=oid)]
    if len(parents) < len(row["parents"]):
        left_out.append("its place under a parent that is not in the archive")
    constraints = [_constraint(one, name) for one in _asked(connection, "constraints", oid=oid)]
    left_out += [
        f"foreign key {one.name} to {one.refers}, which is not in the archive"
        for one in constraints
        if one.refers is not None and one.refers not in places.values()
    ]
    return Table(
        name=name,
        partition_by=row["partition_by"],
        bound=row["bound"] if parents else None,
        parents=parents,
        unlogged=row["unlogged"],
        comment=row["comment"],
        columns=tuple(_column(one) for one in _asked(connection, "columns", oid=oid)),
        constraints=tuple(constraints),
        indexes=tuple(_index(one, name) for one in _asked(connection, "indexes", oid=oid)),
        sequences=tuple(_sequence(connection, one) for one in _asked(connection, "sequences", oid=oid)),
        left_out=tuple(left_out),
        rows=0,
        rows_digest=Rows().digest,
        files=(),
    )


def _column(row: dict[str, Any]) -> Column:
    schema, sequence = row.pop("sequence_schema"), row.pop("sequence")
    return Column(**row, sequence=Name(schema, sequence) if sequence else None)


def _constraint(row: dict[str, Any], table: Name) -> Constraint:
    _understood(row, table, "constraint")
    schema, refers = row.pop("refers_schema"), row.pop("refers_table")
    return Constraint(**row, refers=Name(schema, refers) if refers else None)


def _index(row: dict[str, Any], table: Name) -> Index:
    _understood(row, table, "index")
    return Index(**row)


def _understood(row: dict[str, Any], table: Name, kind: str) -> None:
    if not row.pop("understood"):
        raise Refused(
            "not-understood",
            f"The server's definition of the {kind} {row['name']!r} of {table} has a form that is not known here "
            f"({row['definition']}); drop it, or archive the table without this tool.",
        )


def _sequence(connection: Connection, row: dict[str, Any]) -> Sequence:
    """Read behind the snapshot, so that no value in it is beyond the position."""
    place = Name(row.pop("schema"), row.pop("name"))
    statement = sql.SQL("SELECT last_value, is_called FROM {}").format(place.identifier)
    ((last_value, is_called),) = execute(connection, statement).fetchall()
    return Sequence(place=place, **row, last_value=last_value, is_called=is_called)


def _in_order(rows: list[dict[str, Any]]) -> tuple[Type, ...]:
    """What a type is made of comes before it."""
    by_oid = {row["oid"]: row for row in rows}
    needs = {oid: [need for need in row["needs"] if need in by_oid and need != oid] for oid, row in by_oid.items()}
    return tuple(_type(by_oid[oid]) for oid in TopologicalSorter(needs).static_order())


def _type(row: dict[str, Any]) -> Type:
    return Type(
        name=Name(row["schema"], row["name"]),
        kind=row["kind"],
        definition=row["definition"],
        constraints=tuple(TypeConstraint(**one) for one in row["constraints"]),
        comment=row["comment"],
    )
