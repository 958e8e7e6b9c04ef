"""Which privileges ``cutover``, ``rollback`` and ``retire`` need: ownership, for the most part."""

from __future__ import annotations

from collections.abc import Iterable

from spine_migrate.db.connect import Connection
from spine_migrate.db.grant import Grant, merged
from spine_migrate.db.owners import ledger_owner
from spine_migrate.db.privileges import LEDGER, Tables


def for_switch(connection: Connection, moves: Iterable[Tables]) -> list[Grant]:
    """To own what is renamed, locked and given triggers, and what points to it; to create beside it (on the target an
    index), and in the ledger, which the functions that are made write to with their owner's rights.
    """
    found = [Grant("SCHEMA", (LEDGER,), ("USAGE", "CREATE"))]
    owners = [ledger_owner(connection)]
    for move in moves:
        found += [Grant("SCHEMA", (move.source.schema,), ("USAGE", "CREATE"))]
        found += [Grant("SCHEMA", (move.target.schema,), ("USAGE", "CREATE"))]
        owners += [move.target_owner, *(owner for _, owner in move.source_owners)]
        found += [Grant("SCHEMA", (name.schema,), ("USAGE",)) for name, _ in move.source_owners]
    found += [Grant("ROLE", (owner.name,), superuser=owner.superuser) for owner in owners if owner is not None]
    return merged(found)


def for_retire(connection: Connection, moves: Iterable[Tables]) -> list[Grant]:
    """To own what is dropped and what loses a trigger; ``moves`` are of the legacy tables under the names that they
    have since the cutover. Owners of the ledger may drop its functions, whoever has made them.
    """
    found = [Grant("SCHEMA", (LEDGER,), ("USAGE",))]
    owners = [ledger_owner(connection)]
    for move in moves:
        found += [Grant("SCHEMA", (name.schema,), ("USAGE",)) for name in (move.source, move.target)]
        owners += [move.source_owner, move.target_owner]
    found += [Grant("ROLE", (owner.name,), superuser=owner.superuser) for owner in owners if owner is not None]
    return merged(found)
