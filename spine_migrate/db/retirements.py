"""What may be retired and what was, as the ledger has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused


@dataclass(frozen=True)
class Retirement:
    """Of one migration. ``members`` go together; ``cutover_at`` is the cutover that it was allowed after. ``archive``
    is the directory as it was named, ``archive_digest`` its manifest's; with neither, ``without_archive`` says why.
    ``rows_digest`` is of the legacy table when the archive was written. ``retired_at``: None as long as it is only
    allowed; ``retired_how``: by which command or revision.
    """

    migration_id: int
    mapping: str
    members: list[int]
    allowed_at: datetime
    allowed_by: str
    tool_version: str
    cutover_at: datetime
    source_table: str
    rows_digest: str
    archive: str | None
    archive_digest: str | None
    without_archive: str | None
    retired_at: datetime | None
    retired_by: str | None
    retired_how: str | None

    @property
    def kept(self) -> str:
        """Where the rows are, as the end of a sentence."""
        if self.archive is None:
            return f"no archive: {self.without_archive}"
        return f"archive {self.archive}, digest {(self.archive_digest or '')[:12]}"


def installed(connection: Connection) -> bool:
    ((found,),) = connection.execute(query("retire", "installed")).fetchall()
    return bool(found)


def require(connection: Connection) -> None:
    """Raises Refused (``ledger-outdated``)."""
    if not installed(connection):
        raise Refused("ledger-outdated", "Retire needs the revision spine_0009; run spine-migrate db upgrade.")


def retirements(connection: Connection, migrations: Sequence[int]) -> dict[int, Retirement]:
    """By migration, those allowed or done; none where the ledger is older than retire."""
    if not installed(connection):
        return {}
    with connection.cursor(row_factory=class_row(Retirement)) as cursor:
        found = cursor.execute(query("retire", "retirements"), {"migrations": list(migrations)}).fetchall()
    return {one.migration_id: one for one in found}


def allowed(connection: Connection, migrations: Sequence[int]) -> set[int]:
    """Those whose legacy tables are kept as they are until they are dropped: an applier would change them."""
    return {one.migration_id for one in retirements(connection, migrations).values() if one.retired_at is None}


def refusal(connection: Connection, migration_id: int, mapping: str) -> Refused:
    """What a command says to a migration whose step is ``retired``; its role may not be let to know when that was."""
    ((readable,),) = connection.execute(query("retire", "readable")).fetchall()
    found = retirements(connection, [migration_id]).get(migration_id) if readable else None
    when = ""
    if found is not None and found.retired_at is not None:
        when = f" on {found.retired_at:%Y-%m-%d %H:%M:%S %Z} by {found.retired_by} ({found.kept})"
    return Refused(
        "retired", f"{mapping} was retired{when}: its legacy tables are gone; archive restore makes them anew."
    )
