"""What a cutover or rollback leaves behind that was killed right after its switch, or did not get its locks then:
foreign keys of other tables that hold for new rows only.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from spine_migrate.cutover.foreign_keys import named, validate
from spine_migrate.db.connect import Connection
from spine_migrate.db.cutovers import Cutover
from spine_migrate.db.patience import Patience
from spine_migrate.db.queries import query


@dataclass(frozen=True)
class Finished:
    """Foreign keys by table and name: ``validated`` hold for every row now, ``unproven`` for new rows only still."""

    validated: list[str]
    unproven: list[str]


def left_open(connection: Connection, cutovers: Iterable[Cutover]) -> list[dict[str, Any]]:
    """The records of foreign keys that held for all rows before the switch, and are NOT VALID since."""
    return [
        record
        for one in cutovers
        for record in one.foreign_keys
        if not str(record["definition"]).endswith(" NOT VALID")
        and connection.execute(query("cutover", "unvalidated"), record).fetchone() is not None
    ]


def finish(
    connection: Connection, records: Sequence[dict[str, Any]], *, patience: Patience, stop: threading.Event
) -> Finished:
    """Validate what ``left_open`` has found; that blocks nobody."""
    unproven = validate(connection, records, patience=patience, stop=stop)
    names = (named(record) for record in records)
    return Finished([name for name in names if name not in unproven], unproven)
