"""Which migrations are switched together, and what their views are made from.

Migrations whose rows refer to each other go in one transaction. Were the executions switched alone, the application
would insert one into the view, then an event of it into the legacy table, whose foreign key knows the execution only a
moment later, when it has been carried back: an error that is ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spine_migrate.carry.known import Known, chosen, known
from spine_migrate.cutover.view import Facts, facts
from spine_migrate.db import ledger
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.errors import SpineMigrateError
from spine_migrate.mapping.model import Mapping as MappingFile


def group(connection: Connection, mappings: Sequence[MappingFile]) -> list[Known]:
    """The migrations of these mappings, or all, with those that refer to them or that they refer to; those first whose
    rows others refer to. Raises ConfigurationError, Refused, Drift.
    """
    wanted = {one.migration_id for one in chosen(connection, mappings=[one.name for one in mappings])}
    every: list[Known] = []
    for migration in ledger.migrations(connection):
        if migration.step == "retired":
            continue
        try:
            every.append(known(connection, migration, mappings))
        except SpineMigrateError:
            # One that nobody has asked for, and whose mapping is not to be had: what it refers to is not known either.
            if migration.migration_id in wanted:
                raise
    before = 0
    while len(wanted) != before:
        before = len(wanted)
        for one in every:
            if any(one.needs(other) or other.needs(one) for other in every if other.migration.migration_id in wanted):
                wanted.add(one.migration.migration_id)
    found = [one for one in every if one.migration.migration_id in wanted]
    return sorted(found, key=lambda one: sum(one.needs(other) for other in found))


def facts_of(connection: Connection, members: Sequence[Known], names: Mapping[int, Name]) -> dict[int, Facts]:
    """By migration. ``names``: what the views are called, by migration, where that is not the legacy tables' name."""
    found: dict[int, Facts] = {}
    for one in members:
        number = one.migration.migration_id
        parent = next((other for other in members if one.needs(other)), None)
        found[number] = facts(
            connection,
            one.tables,
            number,
            name=names.get(number),
            parent=None if parent is None else found[parent.migration.migration_id],
            others=[other.tables for other in members if other.needs(one)],
        )
    return found
