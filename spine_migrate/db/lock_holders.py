"""Who holds locks on tables, or waits for them: sessions, autovacuum, prepared transactions. No query is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg.rows import class_row

from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.lock_modes import LockMode
from spine_migrate.db.queries import query


@dataclass(frozen=True)
class Holder:
    """A lock of another session. ``what``: client, autovacuum, autovacuum to prevent wraparound, another process, or
    prepared transaction. ``granted``: it holds it, or stands in the queue for it. ``seconds`` since its transaction
    began and ``state`` are None where this role is not shown them.
    """

    schema: str
    table_name: str
    mode: str
    granted: bool
    what: str
    pid: int | None
    role: str | None
    application: str | None
    state: str | None
    seconds: int | None

    @property
    def table(self) -> Name:
        return Name(self.schema, self.table_name)

    @property
    def lock_mode(self) -> LockMode:
        return LockMode.of_catalog(self.mode)

    @property
    def who_has_what(self) -> str:
        return f"{self._who} {'has' if self.granted else 'waits for'} {self.lock_mode.value} on {self.table}"

    @property
    def _who(self) -> str:
        if self.what == "prepared transaction":
            return f"a prepared transaction of {self.role}"
        if self.what != "client":
            return f"{self.what} (session {self.pid})"
        application = f" ({self.application})" if self.application else ""
        return f"session {self.pid} of {self.role}{application}"

    @property
    def how_long(self) -> str:
        since = "an unknown time" if self.seconds is None else f"{self.seconds} s"
        match self.what:
            case "prepared transaction":
                return f"prepared {since} ago; COMMIT PREPARED or ROLLBACK PREPARED it"
            case "autovacuum to prevent wraparound":
                return f"for {since}; it never gives way, let it end"
            case "autovacuum":
                return f"for {since}; it gives way to who waits for longer than the server's deadlock_timeout"
        if self.state is None:
            return "what it does is shown to members of pg_read_all_stats"
        return f"{self.state}, in a transaction for {since}"


def in_the_way(connection: Connection, asked: Iterable[tuple[Name, LockMode]]) -> list[Holder]:
    """Those whose locks conflict with what is asked for, the oldest transactions first. Takes no lock on the tables:
    their names are looked up in the catalog.
    """
    wanted = set(asked)
    tables = {table for table, _ in wanted}
    values = {"schemas": [one.schema for one in tables], "tables": [one.table for one in tables]}
    with connection.cursor(row_factory=class_row(Holder)) as cursor:
        found = cursor.execute(query("patience", "holders"), values).fetchall()
    return [one for one in found if any(table == one.table and mode.conflicts(one.lock_mode) for table, mode in wanted)]
