"""What stands around the data: tables, locks, other sessions, privileges."""

from __future__ import annotations

from spine_migrate.db import privileges
from spine_migrate.db.catalog import Name, Relation, leaves
from spine_migrate.db.grant import Grant, missing
from spine_migrate.mapping.bind import Binding
from spine_migrate.plan.ask import Asker
from spine_migrate.plan.model import Lock, LongTransaction, Part, Table, Unknown

BLOCK_BYTES = 8192


def describe(asker: Asker, relation: Relation) -> Table | None:
    """The catalog facts of one table; None where they cannot be read."""
    found = asker.facts(f"the facts of {relation.name}", "table_facts", oid=relation.oid)
    if not found:
        return None
    (facts,) = found
    parts = asker.ask(f"the parts of {relation.name}", lambda: leaves(asker.connection, relation.oid)) or []
    lists = ("inbound_keys", "triggers", "publications", "json_columns", "invalid_indexes")
    return Table(
        name=str(relation.name),
        kind=facts["kind"],
        persistence=facts["persistence"],
        replica_identity=facts["replica_identity"],
        has_rules=facts["has_rules"],
        row_security=facts["row_security"],
        bytes=relation.bytes_total,
        rows_estimated=relation.rows_estimated,
        parts=tuple(Part(str(leaf.name), leaf.blocks * BLOCK_BYTES) for leaf in parts),
        **{name: tuple(facts[name]) for name in lists},
    )


def locks(asker: Asker, relations: list[Relation]) -> tuple[Lock, ...] | None:
    found = asker.facts("the locks of other sessions", "locks", oids=[relation.oid for relation in relations])
    if found is None:
        return None
    return tuple(
        Lock(str(Name(row["schema"], row["table"])), row["mode"], row["granted"], row["sessions"]) for row in found
    )


def long_transactions(asker: Asker, seconds: int) -> tuple[LongTransaction, ...] | None:
    """Those that this role is shown; what it is not shown is counted under ``unknown``."""
    found = asker.facts("long transactions", "long_transactions", seconds=seconds)
    hidden = asker.facts("how many sessions are hidden", "hidden_sessions")
    if hidden and hidden[0]["count"]:
        asker.unknown.append(
            Unknown(
                "the transactions of all sessions",
                f"{hidden[0]['count']} sessions of other roles are hidden from a role without pg_read_all_stats",
            )
        )
    return None if found is None else tuple(LongTransaction(**row) for row in found)


def lacking(
    asker: Asker, command: str, binding: Binding, source: Relation, target: Relation, *, ledger: bool
) -> tuple[Grant, ...] | None:
    """The grants that the role lacks for ``command``; those on the ledger only where it is installed."""

    def question() -> tuple[Grant, ...]:
        links = [field.target for field in binding.mapping.links if field.column in binding.live]
        tables = privileges.tables(asker.connection, source, target, links=links)
        grants = [
            grant for grant in privileges.needed(command, [tables]) if ledger or grant.name[0] != privileges.LEDGER
        ]
        return tuple(missing(asker.connection, grants))

    return asker.ask("which privileges are missing", question)
