"""What an undo is about: the migrations in their order, and what would become of their rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import psycopg

from spine_migrate.backfill.takeback import Left, Takeback
from spine_migrate.carry import references
from spine_migrate.carry.control import SETTINGS
from spine_migrate.carry.known import Known, chosen, known, requires
from spine_migrate.carry.references import Reference
from spine_migrate.db import captures, cutovers, ledger
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.db.faults import explained
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused
from spine_migrate.mapping.load import load, shipped
from spine_migrate.mapping.model import Mapping

# How many rows that are left a result names.
NAMED = 20


@dataclass(frozen=True)
class Undone:
    """``state``: planned, undone, left (rows are left, the migration stays in step undoing) or interrupted.

    ``rows`` were removed by this command, or would be. ``left`` counts by reason, ``examples`` are some of them;
    ``quarantined`` are the entries that go with the migration. ``indexes`` are built for the time it takes.
    """

    mapping: str
    migration_id: int
    state: str
    rows: int
    left: dict[str, int] = field(default_factory=dict)
    examples: list[Left] = field(default_factory=list)
    quarantined: dict[str, int] = field(default_factory=dict)
    indexes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        return not self.left


def plan(url: str | None, *, mappings: Sequence[Mapping] = ()) -> list[Undone]:
    """What ``undo`` would do, in its order, without doing it: one snapshot, everything is rolled back.

    Raises as ``undo`` does, but takes no lock.
    """
    try:
        with connect(url, settings={**SETTINGS, **PINNED}) as connection:
            members = members_of(connection, mappings)
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            with connection.transaction(force_rollback=True):
                return list(_planned(connection, members))
    except psycopg.Error as error:
        raise explained(error) from error


def _planned(connection: Connection, members: list[Known]) -> Iterator[Undone]:
    done: list[Takeback] = []
    for one in members:
        found = references.references(connection, one.tables.target.oid)
        followers = [before for before in done if before.known.needs(one)]
        takeback = takeback_of(connection, one, found, foreseen=followers)
        takeback.judge(connection)
        going, left = takeback.counts(connection)
        yield Undone(
            one.mapping.name,
            one.migration.migration_id,
            "planned",
            going,
            left,
            takeback.examples(connection, NAMED),
            held_by(connection, one),
            [index.build().as_string(None) for index in references.needed(found)] if going else [],
        )
        done.append(takeback)


def members_of(connection: Connection, mappings: Sequence[Mapping]) -> list[Known]:
    """What is to be undone, in the order of undoing: the latest first, but what points to others before them."""
    migrations = chosen(connection, mappings=[one.name for one in mappings])
    members = [known(connection, one, mappings) for one in reversed(migrations)]
    numbers = {one.migration_id for one in migrations}
    for one in members:
        if one.migration.step in ("cutover", "retired"):
            cutovers.refuse(connection, [one.migration.migration_id])
            raise Refused(
                "cut-over",
                f"{one.mapping.name} has been cut over (migration {one.migration.migration_id}): the application works "
                f"on what was moved; run spine-migrate rollback first.",
            )
        if one.migration.mapping_digest != one.mapping.digest:
            raise Refused(
                "mapping-changed",
                f"The mapping {one.mapping.name} has changed since migration {one.migration.migration_id} began, so "
                f"what it moved cannot be told from what was touched since; restore the file.",
            )
        if connection.execute(query("offline", "deferred"), {"migration_id": one.migration.migration_id}).fetchone():
            raise Refused(
                "offline-unfinished",
                f"The offline load of {one.mapping.name} (migration {one.migration.migration_id}) is not finished; "
                f"run the command that began it again first.",
            )
        if captures.captured(connection, one.migration.migration_id, captures.FORWARD) is not None:
            raise Refused(
                "changes-captured",
                f"Changes of {one.tables.source.name} are captured, so what is removed would come again; "
                f"spine-migrate sync stop first.",
            )
        for other in ledger.migrations(connection):
            if other.migration_id in numbers or other.step in ("undoing", "retired"):
                continue
            if requires(other, mappings) != one.mapping.name:
                continue
            if known(connection, other, mappings).needs(one):
                raise Refused(
                    "children-first",
                    f"The rows of {other.mapping} (migration {other.migration_id}) belong to those of "
                    f"{one.mapping.name}; undo both: --mapping {other.mapping} --mapping {one.mapping.name}.",
                )
    return sorted(members, key=lambda one: one.mapping.required is None)


def takeback_of(
    connection: Connection, one: Known, found: Sequence[Reference], *, foreseen: Sequence[Takeback] = ()
) -> Takeback:
    return Takeback(connection, one, found, event_tables=_event_tables(one.mapping), foreseen=foreseen)


def _event_tables(mapping: Mapping) -> frozenset[str]:
    """Target tables of mappings whose rows belong to those of ``mapping``."""
    every = (load(name) for name in shipped())
    return frozenset(one.target.name for one in every if one.required and one.required.requires == mapping.name)


def held_by(connection: Connection, one: Known) -> dict[str, int]:
    values = {"migration_id": one.migration.migration_id}
    return dict(connection.execute(query("undo", "held"), values).fetchall())
