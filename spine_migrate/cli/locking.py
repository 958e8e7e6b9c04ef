"""The locks of what comes after a plan: what each stage says of itself, put together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from spine_migrate.errors import Refused

if TYPE_CHECKING:
    from spine_migrate.carry.known import Known
    from spine_migrate.carry.tables import Tables
    from spine_migrate.cutover.retire_gates import Drop
    from spine_migrate.db.connect import Connection
    from spine_migrate.db.patience import Patience
    from spine_migrate.mapping.model import Mapping
    from spine_migrate.plan.locking import Locking, Taking


def of_capture(connection: Connection, members: Sequence[Tables], patience: Patience) -> Locking:
    """What is captured already takes no lock."""
    import psycopg

    from spine_migrate.plan.locking import locking
    from spine_migrate.plan.model import Finding, Unknown
    from spine_migrate.sync.explain import takings

    found: list[Taking] = []
    blocks: list[Finding] = []
    unknown: list[Unknown] = []
    for one in members:
        try:
            found += takings(connection, one, patience)
        except Refused as refused:
            blocks.append(Finding(refused.precondition, refused.sentence))
        except psycopg.errors.InsufficientPrivilege as error:
            what = f"whether {one.source.name} is captured, and what that would lock"
            unknown.append(
                Unknown(what, f"{error.diag.message_primary}; spine-migrate grants sync prints what it needs")
            )
    return locking(connection, found, blocks, unknown)


def of_cutover(
    connection: Connection, members: Sequence[Tables], patience: Patience, *, with_view: bool = True
) -> Locking:
    from spine_migrate.cutover.explain import takings
    from spine_migrate.plan.locking import locking

    return locking(connection, takings(connection, members, patience, with_view=with_view))


def of_retire(connection: Connection, members: Sequence[Known], drops: Sequence[Drop], patience: Patience) -> Locking:
    from spine_migrate.cutover.retire_explain import takings
    from spine_migrate.plan.locking import locking

    return locking(connection, takings(connection, members, drops, patience))


def of_stages(
    connection: Connection,
    mappings: Sequence[Mapping],
    stages: Sequence[str],
    *,
    source_schema: str | None,
    target_schema: str | None,
) -> list[Locking]:
    """With the patience that the commands have by default. Tables that are not there are left to the plan."""
    if not stages:
        return []
    from spine_migrate.db.patience import Patience

    members = _tables(connection, mappings, source_schema=source_schema, target_schema=target_schema)
    of = {"capture": of_capture, "cutover": of_cutover}
    return [of[stage](connection, members, Patience()) for stage in stages]


def _tables(
    connection: Connection, mappings: Sequence[Mapping], *, source_schema: str | None, target_schema: str | None
) -> list[Tables]:
    """Those that are there. The session's search_path is pinned by it."""
    from spine_migrate.carry.tables import find_tables
    from spine_migrate.db.connect import another, pin

    found = []
    for mapping in mappings:
        # Each by a session of its own: once one is found, the search_path is pinned and finds no other.
        with another(connection) as session, suppress(Refused):
            found.append(find_tables(session, mapping, source_schema=source_schema, target_schema=target_schema))
    pin(connection)
    return found
