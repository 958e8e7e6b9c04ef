"""The end of a migration: the view, the legacy tables and what captured changes go.

Three transactions, each of which may be the last: another run of the same command goes on.

1. The archive: of the legacy tables as they are, or the one that an earlier run has left of them.
2. The permission: with the legacy tables locked against writers the archive is compared with them, and what is allowed
   is on record with a digest of their rows. From then on no applier writes to them (``sync.members`` passes them over).
3. The drop: with the tables locked again and their digest compared, everything goes at once. What the application
   waits for comes last in it, is tried for a moment at a time, and is done by functions of the ledger
   (``spine_migrate.retire_drop``), which a revision of the branch ``spine_contract`` calls as well.

What is written to the target meanwhile is in the target; the archive has the legacy tables as of the permission.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from spine_migrate import __version__
from spine_migrate.carry.known import Known
from spine_migrate.cutover.archive import write
from spine_migrate.cutover.archive.against import State, against
from spine_migrate.cutover.archive.manifest import document
from spine_migrate.cutover.archive.model import Manifest, Table
from spine_migrate.cutover.archive.restore import sound
from spine_migrate.cutover.hanging import places
from spine_migrate.db import ledger
from spine_migrate.db.advisory import LAST_STATEMENT, try_lock
from spine_migrate.db.connect import Connection
from spine_migrate.db.cutovers import cutovers
from spine_migrate.db.lock_modes import LockMode
from spine_migrate.db.patience import Budget, Patience, patiently
from spine_migrate.db.queries import query
from spine_migrate.db.retirements import Retirement
from spine_migrate.errors import ConfigurationError, Refused

_LOCK = "share row exclusive"


@dataclass(frozen=True)
class Kept:
    """What becomes of the rows: the directory of their archive, or why there is none."""

    directory: Path | None
    why_not: str | None = None


@dataclass(frozen=True)
class Retired:
    """``seconds``: how long the application could wait at most, from the first lock that it may want to the commit."""

    migrations: list[int]
    statements: list[str]
    seconds: float


def alone(connection: Connection, members: Sequence[Known], *, wait: bool, stop: threading.Event) -> None:
    """No applier is at work on the members, and none begins before this connection ends. Raises Refused
    (``already-running``), Interrupted where it is to stop meanwhile.
    """
    seconds = None if wait else LAST_STATEMENT
    for one in members:
        if not try_lock(connection, ("capture", "try_apply"), one.lock, seconds=seconds, stop=stop):
            raise Refused(
                "already-running",
                f"A process applies the changes of {one.mapping.name}; stop it first (Ctrl-C to sync run).",
            )


def ready(connection: Connection, members: Sequence[Known], directory: Path, say: Callable[[str], object]) -> bool:
    """Whether there is an archive of the legacy tables as they are now. One of them as they were is put aside: it is
    of no use here, and nobody's to remove.

    Raises ConfigurationError where something else is there, Refused (``archive-damaged``).
    """
    if not os.path.lexists(directory):
        return False
    manifest = sound(directory)
    if not {one.tables.source.name for one in members} <= {table.name for table in manifest.tables}:
        raise ConfigurationError(f"{directory} is an archive of other tables; name a directory that is not there yet.")
    if all(one.state is State.EQUAL for one in against(connection, manifest)):
        return True
    aside = directory.with_name(f"{directory.name}.before-{manifest.snapshot.made_at:%Y%m%dT%H%M%S%f}")
    directory.rename(aside)
    say(f"The tables have changed since {directory} was written; that archive is kept as {aside}.")
    return False


def allow(
    connection: Connection,
    members: Sequence[Known],
    kept: Kept,
    *,
    evidence: Any,
    looked_at: datetime,
    patience: Patience,
    stop: threading.Event,
    report: Callable[[Table], None],
) -> None:
    """Every gate was open at ``looked_at``, which may be long before the archive is written, and no applier is at work
    (``alone``). Raises Interrupted where the legacy tables cannot be locked, Refused (``archive-damaged``,
    ``archive-differs``, ``not-allowed`` where there was a write through a view meanwhile), ConfigurationError.
    """
    names = [one.tables.source.name for one in members]
    if kept.directory is not None and not os.path.lexists(kept.directory):
        write(connection, names, kept.directory, report=report)
    manifest = None if kept.directory is None else sound(kept.directory)

    def work(connection: Connection) -> None:
        if manifest is not None:
            _refuse_other_rows(connection, manifest, kept.directory)
        for one in members:
            values = {
                "migration_id": one.migration.migration_id,
                "members": [other.migration.migration_id for other in members],
                "looked_at": looked_at,
                "tool_version": __version__,
                "archive": None if kept.directory is None else str(kept.directory.absolute()),
                "archive_digest": None if manifest is None else document(manifest)["digest"],
                "without_archive": kept.why_not,
                "evidence": Jsonb(evidence),
            }
            connection.execute(query("retire", "allow"), values)
            ledger.audit(
                connection,
                "retire allowed",
                migration_id=one.migration.migration_id,
                archive=values["archive"],
                archive_digest=values["archive_digest"],
                without_archive=kept.why_not,
            )
        numbers = [one.migration.migration_id for one in members]
        for (why,) in connection.execute(query("retire", "refusals"), {"migrations": numbers}).fetchall():
            raise Refused("not-allowed", f"Nothing was dropped: {why}. Let the archive be, and give the command again.")

    patiently(connection, work, tables=names, mode=_LOCK, patience=patience, stop=stop)


def _refuse_other_rows(connection: Connection, manifest: Manifest, directory: Path | None) -> None:
    differing = [one for one in against(connection, manifest) if one.state is not State.EQUAL]
    if differing:
        raise Refused(
            "archive-differs",
            f"{differing[0].place} is not as the archive {directory} has it ({differing[0].state.value}); somebody "
            f"writes to it beside this tool. Nothing was dropped; find out who, then give the command again.",
        )


def still(there: Iterable[Retirement], directory: Path | None) -> None:
    """That the archive which was allowed with is there and whole, at ``directory`` where it was moved. Raises Refused
    (``archive-missing``, ``archive-damaged``).
    """
    for one in there:
        if one.archive is None:
            continue
        place = directory or Path(one.archive)
        if not os.path.lexists(place):
            raise Refused(
                "archive-missing",
                f"The archive {place}, with which retire was allowed, is not there; nothing was dropped. Say where it "
                f"is now with --archive, or give --revoke and begin again.",
            )
        if document(sound(place))["digest"] != one.archive_digest:
            raise Refused("archive-differs", f"{place} is not the archive with which retire was allowed.")


def revoke(connection: Connection, members: Sequence[Known]) -> int:
    """What is allowed and not done, not any more; how many migrations that were."""
    count = 0
    with connection.transaction():
        for one in members:
            number = one.migration.migration_id
            if connection.execute(query("retire", "revoke"), {"migration_id": number}).rowcount:
                ledger.audit(connection, "retire revoked", migration_id=number)
                count += 1
    return count


def retire(connection: Connection, members: Sequence[Known], *, patience: Patience, stop: threading.Event) -> Retired:
    """Drop what was allowed. Raises Interrupted where the locks cannot be had, Refused (``not-allowed``,
    ``dependents``): nothing was dropped then.
    """
    numbers = [one.migration.migration_id for one in members]
    waited_for = [one.name for one in places(connection, members, cutovers(connection, numbers))]
    waited_for += [one.tables.target.name for one in members]
    began = 0.0

    def name(_: Connection, budget: Budget) -> None:
        nonlocal began
        began = time.monotonic()
        budget.asked.update(dict.fromkeys(waited_for, LockMode.ACCESS_EXCLUSIVE))

    def drop(connection: Connection) -> list[str]:
        values = {"migrations": numbers, "milliseconds": patience.lock_timeout}
        ((statements,),) = connection.execute(query("retire", "drop"), values).fetchall()
        return list(statements)

    def work(connection: Connection) -> list[str]:
        connection.execute(query("retire", "check"), {"migrations": numbers})
        return patiently(connection, drop, tables=[], mode=_LOCK, patience=patience, stop=stop, first=name)

    tables = [one.tables.source.name for one in members]
    try:
        statements = patiently(connection, work, tables=tables, mode=_LOCK, patience=patience, stop=stop)
    except psycopg.errors.ObjectNotInPrerequisiteState as error:
        raise Refused("not-allowed", f"Nothing was dropped: {error.diag.message_primary}.") from error
    except psycopg.errors.DependentObjectsStillExist as error:
        raise Refused(
            "dependents",
            f"Nothing was dropped, as something depends on it: {error.diag.message_primary} "
            f"({error.diag.message_detail}); drop that, then give the command again.",
        ) from error
    return Retired(numbers, statements, time.monotonic() - began)
