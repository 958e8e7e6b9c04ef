"""Does a certificate still hold? Both sides are hashed again, as its comparison did, and set against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import psycopg

from spine_migrate.db import ledger
from spine_migrate.db.connect import Connection
from spine_migrate.db.ledger import Migration
from spine_migrate.errors import MappingError, Refused
from spine_migrate.mapping.load import load, shipped
from spine_migrate.mapping.model import Mapping
from spine_migrate.parity.certificate import Certificate, Sealed
from spine_migrate.parity.evidence import Equality
from spine_migrate.parity.model import Reason, Snapshot
from spine_migrate.parity.roots import Side, roots
from spine_migrate.parity.snapshot import snapshot

VALUE_FAILS = "value-fails"


class Outcome(StrEnum):
    HOLDS = "holds"
    CHANGED = "changed"
    UNKNOWN = "could not tell"


@dataclass(frozen=True)
class SideNow:
    """One side beside its certificate. ``buckets`` are the numbers (0 to 255) of those that changed."""

    rows_certified: int
    rows_now: int
    root_now: str
    buckets: list[int]


@dataclass(frozen=True)
class Checked:
    """One migration. ``reason`` says why it could not be told; ``old`` and ``new`` are None then.

    ``agree``: both sides have one root, whether or not it is the certified one.
    """

    mapping: str
    migration_id: int
    outcome: Outcome
    reason: Reason | None = None
    old: SideNow | None = None
    new: SideNow | None = None

    @property
    def agree(self) -> bool:
        return self.old is not None and self.new is not None and self.old.root_now == self.new.root_now


@dataclass(frozen=True)
class Check:
    """A change that was found is certain, whatever else could not be told."""

    snapshot: Snapshot
    migrations: list[Checked]

    @property
    def outcome(self) -> Outcome:
        outcomes = {one.outcome for one in self.migrations}
        if Outcome.CHANGED in outcomes:
            return Outcome.CHANGED
        return Outcome.HOLDS if outcomes == {Outcome.HOLDS} else Outcome.UNKNOWN


def check(connection: Connection, certificate: Certificate, names: Sequence[str] = ()) -> Check:
    """Hash both sides of every certified migration in one snapshot. Reads only.

    ``names`` are the files of mappings that do not ship. The connection must be idle and in autocommit. Raises Refused
    without a ledger, MappingError for a name that is no mapping, psycopg.Error where the server fails.
    """
    files = {mapping.name: mapping for mapping in map(load, names)}
    with snapshot(connection) as taken:
        ledger.require(connection)
        live = {migration.migration_id: migration for migration in ledger.migrations(connection)}
        exact = certificate.mode is Equality.EXACT
        return Check(taken, [_checked(connection, one, live, files, exact=exact) for one in certificate.migrations])


def _checked(
    connection: Connection, one: Sealed, live: dict[int, Migration], files: dict[str, Mapping], *, exact: bool
) -> Checked:
    try:
        migration = _migration(one, live)
        mapping = _mapping(one, files)
        # A savepoint, so that what a value makes fail here leaves the snapshot usable for the other migrations.
        with connection.transaction():
            now = roots(connection, migration, mapping, exact=exact)
    except Refused as refused:
        return _untold(one, refused.precondition, refused.sentence)
    except MappingError as error:
        return _untold(one, "mapping-broken", error.sentence)
    except psycopg.DataError as error:
        # The message may hold a value of the row; the code does not.
        sentence = f"The rules of {one.mapping} cannot be evaluated on some legacy row (SQLSTATE {error.sqlstate})."
        return _untold(one, VALUE_FAILS, sentence)
    old, new = _side(one.old, now.old), _side(one.new, now.new)
    outcome = Outcome.CHANGED if old.buckets or new.buckets else Outcome.HOLDS
    return Checked(one.mapping, one.migration_id, outcome, None, old, new)


def _untold(one: Sealed, code: str, sentence: str) -> Checked:
    return Checked(one.mapping, one.migration_id, Outcome.UNKNOWN, Reason(code, sentence))


def _side(certified: Side, now: Side) -> SideNow:
    return SideNow(certified.rows, now.rows, now.root, now.changed(certified))


def _migration(one: Sealed, live: dict[int, Migration]) -> Migration:
    found = live.get(one.migration_id)
    if found is None or (found.mapping, found.mapping_digest) != (one.mapping, one.digest):
        raise Refused(
            "migration-unknown",
            f"The ledger has no migration {one.migration_id} of {one.mapping} with the digest {one.digest[:12]}; it "
            f"was undone, or this is another database.",
        )
    if found.step != "done":
        sentence = f"Migration {one.migration_id} is at step {found.step}; what was certified is being changed."
        raise Refused("unfinished", sentence)
    return found


def _mapping(one: Sealed, files: dict[str, Mapping]) -> Mapping:
    if one.mapping not in files and one.mapping not in shipped():
        raise Refused(
            "mapping-unknown", f"{one.mapping} does not ship with this version; give the path of its file: --mapping."
        )
    mapping = files.get(one.mapping) or load(one.mapping)
    if mapping.digest != one.digest:
        raise Refused(
            "mapping-changed",
            f"{mapping.name} is not the mapping that was certified (digest {one.digest[:12]}, now "
            f"{mapping.digest[:12]}); give the file that it was: --mapping.",
        )
    return mapping
