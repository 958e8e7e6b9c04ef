"""Who points to a target table: foreign keys, and what it costs to delete where no index serves one.

The server looks for referencing rows once per deleted row (PostgreSQL manual, 5.5.5); without an index each look is a
scan, which makes a million deletions impossible. The target's own links have no index in the seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg import sql
from psycopg.rows import class_row

from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused

# A table of this size is scanned faster than an index would pay.
SMALL_BYTES = 1 << 20


@dataclass(frozen=True)
class Reference:
    """A foreign key. ``own``: of the target itself; ``owned``: the role may build indexes; ``bytes`` of its table."""

    schema: str
    table_name: str
    name: str
    columns: list[str]
    referenced: list[str]
    own: bool
    indexed: bool
    owned: bool
    partitioned: bool
    bytes: int

    @property
    def table(self) -> Name:
        return Name(self.schema, self.table_name)

    @property
    def index(self) -> Name:
        """Of ours, for as long as an undo takes."""
        return Name(self.schema, f"spine_undo_{self.columns[0]}")

    def build(self) -> sql.Composed:
        """Without blocking writers, and only over rows that point anywhere."""
        return sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} ({}) WHERE {} IS NOT NULL").format(
            sql.Identifier(self.index.table),
            self.table.identifier,
            sql.Identifier(self.columns[0]),
            sql.Identifier(self.columns[0]),
        )


def references(connection: Connection, oid: int) -> list[Reference]:
    """All foreign keys that point to a table or to a partition of it."""
    with connection.cursor(row_factory=class_row(Reference)) as cursor:
        return cursor.execute(query("undo", "references"), {"oid": oid}).fetchall()


def needed(found: Sequence[Reference]) -> list[Reference]:
    """The references that an index must be built for.

    Raises Refused (``index-missing``) where one is missing that is not ours to build.
    """
    missing = [one for one in found if not one.indexed and one.bytes > SMALL_BYTES]
    for one in missing:
        if not one.own or not one.owned or one.partitioned:
            statement = one.build().as_string(None)
            if one.partitioned:
                statement = statement.replace(" CONCURRENTLY", "", 1)
            raise Refused(
                "index-missing",
                f"Each row that is removed makes the server look through {one.table} for rows that point to it "
                f"({one.name}), and no index serves that; have its owner run: {statement}",
            )
    return list({one.index: one for one in missing}.values())


def build(connection: Connection, found: Sequence[Reference]) -> None:
    """Build what ``needed`` gave, or what a killed command has left half built."""
    for one in found:
        names = {"schema": one.index.schema, "name": one.index.table}
        state = connection.execute(query("undo", "index_state"), names).fetchone()
        if state is not None:
            execute(connection, _drop(one))
        # It waits for transactions that are older, without holding up anybody; a lock_timeout would break it off and
        # leave an index that is not valid.
        connection.execute("SET lock_timeout = 0")
        execute(connection, one.build())
        connection.execute("RESET lock_timeout")


def drop(connection: Connection, found: Sequence[Reference]) -> None:
    """Remove the indexes of ours, whoever built them."""
    for one in _own(found):
        execute(connection, _drop(one))


def _own(found: Sequence[Reference]) -> Iterator[Reference]:
    return (one for one in found if one.own and one.owned and not one.partitioned)


def _drop(one: Reference) -> sql.Composed:
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(one.index.identifier)
