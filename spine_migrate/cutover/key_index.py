"""The index by which the view finds a row by its key, where the target key alone does not give the legacy key.

``WHERE job_id = 7`` says nothing about ``run_id``, which is a hash of it. The mapping keeps the legacy key elsewhere in
the row; an index over that expression, for the rows that it leads to, is built before the switch, beside the
application.
Its name has a digest of what it is over, so that one of an earlier mapping is never taken for it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from spine_migrate.cutover.dependent import Dependent
from spine_migrate.cutover.view import Facts
from spine_migrate.db import key_indexes
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import SETTINGS, Connection
from spine_migrate.db.patience import Patience
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Interrupted
from spine_migrate.mapping.emit.legacy_key import LegacyKey
from spine_migrate.mapping.transforms.base import Sql


@dataclass(frozen=True)
class KeyIndex:
    """Of one view. ``partitioned``: no index of such a target can be built without blocking its writers."""

    made: Facts
    partitioned: bool

    @property
    def name(self) -> Name:
        digest = hashlib.sha256(self._over.as_string(None).encode()).hexdigest()[:12]
        return Name(self.made.target.name.schema, key_indexes.prefix(self.made.form.migration_id) + digest)

    @property
    def statement(self) -> sql.Composed:
        return sql.SQL("CREATE INDEX{} {} ON {} {}").format(
            sql.SQL("" if self.partitioned else " CONCURRENTLY"),
            sql.Identifier(self.name.table),
            self.made.target.name.identifier,
            self._over,
        )

    @property
    def _over(self) -> Sql:
        # CREATE INDEX knows the table's columns by the table's name.
        alias = self.made.target.name.table
        key = LegacyKey(self.made.form)
        return sql.SQL("(({})) WHERE {}").format(key.expression(alias), key.predicate(alias))

    def state(self, connection: Connection) -> bool | None:
        """Whether it is there and valid; None where there is none."""
        values = {"oid": self.made.target.oid, "names": [self.name.table]}
        with connection.cursor(row_factory=dict_row) as cursor:
            found = cursor.execute(query("run_indexes", "states"), values).fetchone()
        return None if found is None else bool(found["valid"])


def wanted(connection: Connection, made: Facts) -> KeyIndex | None:
    """None where the target has an index for it of its own, by its key or by a column that carries the legacy key."""
    mapping = made.tables.binding.mapping
    field = mapping.key_carrier
    if field is None or mapping.key_stands:
        return None
    if field.exact and not field.path and not field.steps and has_index(connection, made, [field.target]):
        return None
    return KeyIndex(made, made.tables.target.kind == "p")


def has_index(connection: Connection, made: Facts, columns: Sequence[str | None]) -> bool:
    """Whether an index of the target begins with these columns and has all rows."""
    with connection.cursor(row_factory=dict_row) as cursor:
        there = cursor.execute(query("definition", "indexes"), {"oid": made.target.oid}).fetchall()
    return any(one["columns"][: len(columns)] == list(columns) and not one["predicate"] for one in there)


def to_build(connection: Connection, views: Iterable[Facts]) -> list[KeyIndex]:
    """What the switch has to build first; none is left of a migration that was cut over before."""
    found = [wanted(connection, made) for made in views]
    return [one for one in found if one is not None and not one.partitioned and not one.state(connection)]


def missing(connection: Connection, made: Facts) -> Iterator[Dependent]:
    index = wanted(connection, made)
    if index is None or index.state(connection):
        return
    key = made.tables.binding.mapping.key
    yield Dependent(
        index.name.identifier.as_string(None),
        "index",
        f"Without it each look-up by {key} through the view reads all of {made.target.name}.",
        "Build it, or build one on each partition and attach them; that blocks writers as long as it takes."
        if index.partitioned
        else "The cutover builds it first, beside the application.",
        f"{index.statement.as_string(None)};",
        blocks=index.partitioned,
    )


def build(connection: Connection, views: Iterable[Facts], *, patience: Patience, stop: threading.Event) -> None:
    """Those that are not there; what a build that was broken off has left is removed first. Nobody is held up: only
    transactions that are older are waited for. Raises Interrupted where they do not end in time.
    """
    for index in to_build(connection, views):
        if stop.is_set():
            raise Interrupted("Stopped before the switch; nothing was switched.")
        try:
            # The session's, for as long as it takes: CONCURRENTLY goes in no transaction.
            _set_lock_timeout(connection, f"{patience.seconds:g}s")
            key_indexes.drop(connection, index.name)
            execute(connection, index.statement)
        except psycopg.errors.LockNotAvailable as error:
            # Whoever is in the way may still be; the next build removes what is left, then.
            with suppress(psycopg.errors.LockNotAvailable):
                key_indexes.drop(connection, index.name)
            raise Interrupted(
                f"{index.name} was given up: a transaction that is older than it did not end within "
                f"{patience.seconds:g} s (pg_stat_activity, by xact_start); nothing was switched, run the same "
                f"command again."
            ) from error
        finally:
            _set_lock_timeout(connection, SETTINGS["lock_timeout"])


def _set_lock_timeout(connection: Connection, value: str) -> None:
    connection.execute("SELECT pg_catalog.set_config('lock_timeout', %s, false)", (value,))
