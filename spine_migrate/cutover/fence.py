"""What keeps a transaction with an old snapshot away from tables that were switched.

A transaction at REPEATABLE READ or SERIALIZABLE that took its snapshot before a switch and touches the tables after it
(its first statement may have waited for the switch's own lock) would read the other side as it was then: without
what was applied since. A row that it knows to be there would be missing, and a foreign key would refuse what points to
it. It is told to try again (40001), as it would be where another transaction had written the same rows.

A snapshot is older where the switch's transaction is not visible in it. That is asked for an hour, in which a
transaction that old may come; afterwards, in a copy of the database too, no number of a transaction means anything.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from psycopg import sql

from spine_migrate.cutover.view import Facts
from spine_migrate.db.catalog import Name, Relation
from spine_migrate.db.connect import Connection
from spine_migrate.db.patience import Patience, patiently
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.mapping.transforms.base import Sql

TRIGGER = "spine_fence"


@dataclass(frozen=True)
class Fence:
    """``switch``: the number of the transaction (xid8); ``until``: the time when this is no longer asked; as text."""

    switch: str
    until: str

    @property
    def passed(self) -> Sql:
        """Over no table, so that a query asks it once (a one-time filter)."""
        return sql.SQL(
            "(pg_catalog.now() > {until}::timestamptz"
            " OR pg_catalog.pg_visible_in_snapshot({switch}::xid8, pg_catalog.pg_current_snapshot()))"
        ).format(until=sql.Literal(self.until), switch=sql.Literal(self.switch))

    def around(self, made: Facts) -> Facts:
        """A view whose rows nobody reads in an older snapshot."""
        condition = sql.SQL("({} OR spine_migrate.old_snapshot())").format(self.passed)
        return replace(made, view=replace(made.view, fence=condition))

    def guard(self, connection: Connection, name: Name, events: sql.SQL) -> None:
        """A trigger, once per statement, on a view or a table."""
        execute(
            connection,
            sql.SQL(
                "CREATE TRIGGER {} BEFORE {} ON {} FOR EACH STATEMENT WHEN (NOT {})"
                " EXECUTE FUNCTION spine_migrate.refuse_old_snapshot()"
            ).format(sql.Identifier(TRIGGER), events, name.identifier, self.passed),
        )


def fence(connection: Connection) -> Fence:
    """Of the switch whose transaction this is."""
    ((switch, until),) = connection.execute(query("cutover", "fence")).fetchall()
    return Fence(switch, until)


def drop(connection: Connection, name: Name) -> None:
    """The trigger of an earlier rollback, where there is one. The table is locked."""
    execute(connection, sql.SQL("DROP TRIGGER IF EXISTS {} ON {}").format(sql.Identifier(TRIGGER), name.identifier))


def remove(connection: Connection, table: Relation, *, patience: Patience, stop: threading.Event) -> None:
    """The same, where the migration is given up. Raises Interrupted where the lock cannot be had."""
    ((there,),) = connection.execute(query("cutover", "fenced"), {"oid": table.oid}).fetchall()
    if there:
        patiently(
            connection,
            lambda connection: drop(connection, table.name),
            tables=[table.name],
            mode="access exclusive",
            patience=patience,
            stop=stop,
        )
