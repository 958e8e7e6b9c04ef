"""One migration's two tables, and the sessions in whose snapshots they are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from psycopg import sql

from spine_migrate.db.connect import Connection, another
from spine_migrate.db.ledger import Migration
from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.parity import Parity
from spine_migrate.parity.snapshot import Shared, hold, snapshot

_NOTED = sql.SQL(
    "SELECT (SELECT bit_xor(hashtextextended(source_key, 0)) FROM spine_migrate.quarantine WHERE migration_id = $1),"
    " (SELECT bit_xor(hash_record_extended(ROW(target_key, field, wanted, state), 0)) FROM spine_migrate.link"
    " WHERE migration_id = $1)"
)


@dataclass(frozen=True)
class Tables:
    """The ledger is beside the target. ``source`` is the same object as ``target`` where both are on one server."""

    migration: Migration
    parity: Parity
    source: Shared
    target: Shared
    source_oid: int
    target_oid: int

    @property
    def apart(self) -> bool:
        return self.source is not self.target

    @property
    def connection(self) -> Connection:
        return self.target.connection

    @property
    def migration_id(self) -> int:
        return self.migration.migration_id

    @property
    def legacy_side(self) -> Parity:
        """For statements that run on the source's server."""
        return replace(self.parity, apart=self.apart)

    @contextmanager
    def afresh(self) -> Iterator[Tables]:
        """The same tables in new snapshots, in sessions of their own."""
        with ExitStack() as stack:

            def again(shared: Shared) -> Shared:
                session = stack.enter_context(another(shared.connection))
                stack.enter_context(snapshot(session))
                return Shared(session, "")

            source = again(self.source)
            yield replace(self, source=source, target=again(self.target) if self.apart else source)

    def legacy(self) -> Any:
        """``$1`` of the legacy side's statements, see ``Sides``."""
        if not self.apart:
            return self.migration_id
        held = sql.SQL("SELECT source_key FROM spine_migrate.quarantine WHERE migration_id = $1")
        return [key for (key,) in execute(self.connection, held, self.migration_id)]

    def noted(self) -> tuple[int | None, int | None]:
        """What the ledger holds of the migration in quarantine and as open links, as two hashes."""
        ((held, links),) = execute(self.connection, _NOTED, self.migration_id).fetchall()
        return held, links

    def lock(self) -> None:
        """``hold`` both tables."""
        hold(self.source.connection, self.parity.binding.source, self.source_oid)
        hold(self.connection, self.parity.binding.target, self.target_oid)
