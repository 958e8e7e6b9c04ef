"""An archive beside the tables as they are now: the same columns, and the same rows in whatever order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from spine_migrate.cutover.archive.catalog import describe
from spine_migrate.cutover.archive.model import Manifest, Table
from spine_migrate.cutover.archive.places import Places
from spine_migrate.cutover.archive.reading import lines, settle, snapshot
from spine_migrate.cutover.archive.streams import Rows
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query


class State(StrEnum):
    EQUAL = "equal"
    MISSING = "missing"
    COLUMNS = "other columns"
    ROWS = "other rows"


@dataclass(frozen=True)
class Compared:
    """``rows_now`` is None where the rows were not read."""

    table: Name
    place: Name
    state: State
    rows_archived: int
    rows_now: int | None = None


def against(
    connection: Connection,
    manifest: Manifest,
    *,
    schema: str | None = None,
    renamed: Mapping[Name, str] = MappingProxyType({}),
    report: Callable[[Compared], None] = lambda _: None,
) -> list[Compared]:
    """Read every table whole, in one snapshot, and compare the number and the digest of its rows, see ``streams.Rows``.

    Generated columns, constraints and indexes are not compared. In a transaction of the caller's, for example one that
    has locked the tables, they are read as it sees them. ``schema`` and ``renamed``: see ``Places``. Raises
    ConfigurationError as ``Places`` does, psycopg.Error where the server fails.
    """
    places = Places(manifest.tables, schema, renamed)
    there = [place for table in manifest.tables if _exists(connection, place := places.table(table.name))]
    compared = []
    with snapshot(connection, there):
        live = {one.name: one for one in describe(connection, there).tables}
        settle(connection, {"client_encoding": manifest.copy_encoding})
        for table in manifest.tables:
            compared.append(_compared(connection, table, places.table(table.name), live))
            report(compared[-1])
        settle(connection, {"client_encoding": "UTF8"})
    return compared


def _compared(connection: Connection, table: Table, place: Name, live: Mapping[Name, Table]) -> Compared:
    now = live.get(place)
    if now is None:
        return Compared(table.name, place, State.MISSING, table.rows)
    if _shape(now) != _shape(table):
        return Compared(table.name, place, State.COLUMNS, table.rows)
    found = Rows()
    if table.partition_by is None:
        for line in lines(connection, place, table):
            found.add(line)
    same = (found.count, found.digest) == (table.rows, table.rows_digest)
    return Compared(table.name, place, State.EQUAL if same else State.ROWS, table.rows, found.count)


def _shape(table: Table) -> tuple[bool, dict[str, str]]:
    """Where the columns stand does not matter."""
    return table.partition_by is not None, {one.name: one.type for one in table.columns if one.generated is None}


def _exists(connection: Connection, place: Name) -> bool:
    parameters = {"schema": place.schema, "name": place.table}
    ((told,),) = connection.execute(query("archive", "taken"), parameters).fetchall()
    return bool(told)
