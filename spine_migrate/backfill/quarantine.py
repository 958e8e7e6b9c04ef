"""The quarantine as an operator meets it: counts, entries, an export, and entries that are settled for good."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql
from psycopg.rows import class_row

from spine_migrate.carry.known import known
from spine_migrate.db import ledger
from spine_migrate.db.connect import Connection
from spine_migrate.db.ledger import Migration
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import ConfigurationError, Refused
from spine_migrate.mapping.model import Mapping

# An entry may hold a row of megabytes; this many are in memory at a time.
_EXPORTED_AT_A_TIME = 20
_NUMBER = "id:"

EXPORTED = (
    *("quarantine_id", "migration_id", "mapping", "source_key", "reason", "field", "detail", "sqlstate"),
    *("constraint_name", "attempts", "created_at", "updated_at", "discarded_at", "discarded_by"),
    *("source_row", "colliding_row"),
)
"""What an export says of each entry, in this order."""


@dataclass(frozen=True)
class ReasonCount:
    """How many entries of a migration have a reason; ``discarded`` ones are settled, ``open`` ones are not."""

    migration_id: int
    mapping: str
    reason: str
    open: int
    discarded: int


@dataclass(frozen=True)
class Row:
    """An entry in short. ``field`` is the rule, ``detail`` the sentence; ``attempts`` counts the first one too."""

    quarantine_id: int
    migration_id: int
    mapping: str
    source_key: str
    reason: str
    field: str | None
    detail: str
    attempts: int
    discarded: bool


@dataclass(frozen=True)
class Entry:
    """An entry whole. Both rows are JSON text as it was kept."""

    quarantine_id: int
    migration_id: int
    mapping: str
    target_table: str
    source_key: str
    reason: str
    field: str | None
    detail: str
    sqlstate: str | None
    constraint_name: str | None
    attempts: int
    created_at: datetime
    updated_at: datetime
    discarded_at: datetime | None
    discarded_by: str | None
    source_row: str
    colliding_row: str | None


def _ids(migrations: Sequence[Migration]) -> list[int]:
    return [one.migration_id for one in migrations]


def counts(connection: Connection, migrations: Sequence[Migration], reasons: Sequence[str] = ()) -> list[ReasonCount]:
    values = {"migrations": _ids(migrations), "reasons": list(reasons) or None}
    with connection.cursor(row_factory=class_row(ReasonCount)) as cursor:
        return cursor.execute(query("quarantine", "counts"), values).fetchall()


def rows(
    connection: Connection, migrations: Sequence[Migration], reasons: Sequence[str] = (), *, limit: int
) -> list[Row]:
    """The first ``limit`` entries in the order in which they came."""
    values = {"migrations": _ids(migrations), "reasons": list(reasons) or None, "limit": limit}
    with connection.cursor(row_factory=class_row(Row)) as cursor:
        return cursor.execute(query("quarantine", "rows"), values).fetchall()


def entry(connection: Connection, migrations: Sequence[Migration], key_or_id: str) -> Entry:
    """The entry with this source key, or with this number (``id:17``, or ``17`` where no key is that).

    Raises ConfigurationError where there is none, or several.
    """
    found = _entries(connection, migrations, key_or_id)
    if not found:
        raise ConfigurationError(f"There is no row {key_or_id} in quarantine; spine-migrate quarantine list shows all.")
    if len(found) > 1:
        choices = ", ".join(f"{_NUMBER}{one.quarantine_id} ({one.mapping})" for one in found)
        raise ConfigurationError(f"More than one row in quarantine has the key {key_or_id}; name one: {choices}.")
    return found[0]


def _entries(connection: Connection, migrations: Sequence[Migration], key_or_id: str) -> list[Entry]:
    number = key_or_id.removeprefix(_NUMBER)
    is_number = number.isascii() and number.isdecimal() and int(number) < 2**63
    with connection.cursor(row_factory=class_row(Entry)) as cursor:
        by_key = {"migrations": _ids(migrations), "key": key_or_id, "quarantine_id": None}
        found = cursor.execute(query("quarantine", "entry"), by_key).fetchall()
        if not found and is_number:
            found = cursor.execute(query("quarantine", "entry"), {**by_key, "quarantine_id": int(number)}).fetchall()
    return found


def colliding_now(
    connection: Connection, found: Entry, migrations: Sequence[Migration], given: Sequence[Mapping]
) -> str | None:
    """The target row that an entry collides with as it is now, as JSON text; None where it is gone.

    Raises SpineMigrateError where the mapping or the table is not to be had.
    """
    if found.colliding_row is None:
        return None
    (migration,) = (one for one in migrations if one.migration_id == found.migration_id)
    binding = known(connection, migration, given).tables.binding
    column = binding.mapping.target.key
    statement = sql.SQL("SELECT row_to_json(t.*)::text FROM {} AS t WHERE t.{} = $1::text::{}").format(
        binding.target.identifier,
        sql.Identifier(column),
        sql.SQL(binding.mapping.target.columns[column].type.name),
    )
    row = execute(connection, statement, json.loads(found.colliding_row)[column]).fetchone()
    return None if row is None else str(row[0])


def export(
    connection: Connection, migrations: Sequence[Migration], reasons: Sequence[str] = ()
) -> Iterator[dict[str, str | None]]:
    """All entries, whole, every value as text; a cursor on the server keeps memory constant.

    ``source_row`` and ``colliding_row`` are JSON texts on one line.
    """
    values = {"migrations": _ids(migrations), "reasons": list(reasons) or None}
    with connection.transaction(), connection.cursor(name="spine_export") as cursor:
        cursor.itersize = _EXPORTED_AT_A_TIME
        cursor.execute(query("quarantine", "export"), values)
        for row in cursor:
            yield dict(zip(EXPORTED, row, strict=True))


@dataclass(frozen=True)
class Selected:
    """What a command is about: entries with these reasons and these keys; None does not restrict."""

    reasons: list[str] | None = None
    keys: list[str] | None = None


def absent(connection: Connection, migrations: Sequence[Migration], keys: Sequence[str]) -> list[str]:
    """Those of the keys that are in no quarantine of these migrations."""
    values = {"migrations": _ids(migrations), "keys": list(keys)}
    there = {key for (key,) in connection.execute(query("quarantine", "present"), values)}
    return [key for key in keys if key not in there]


def discardable(connection: Connection, migrations: Sequence[Migration], selected: Selected) -> int:
    """How many entries ``discard`` would mark."""
    values = {"migrations": _ids(migrations), "reasons": selected.reasons, "keys": selected.keys}
    ((count,),) = connection.execute(query("quarantine", "discardable"), values).fetchall()
    return int(count)


def discard(connection: Connection, migrations: Sequence[Migration], selected: Selected) -> dict[str, int]:
    """Settle entries: they stay in quarantine, are audited, and a retry passes over them unless it names them.

    Gives the number by reason; in one transaction. Raises Refused where a key is in no quarantine.
    """
    values = {"migrations": _ids(migrations), "reasons": selected.reasons, "keys": selected.keys}
    with connection.transaction():
        missing = absent(connection, migrations, selected.keys or [])
        if missing:
            raise Refused("not-in-quarantine", f"Not in quarantine: {', '.join(missing)}; nothing was discarded.")
        marked = connection.execute(query("quarantine", "discard"), values).fetchall()
        total: Counter[str] = Counter()
        for migration_id in dict.fromkeys(row[0] for row in marked):
            by_reason = {reason: count for owner, reason, count in marked if owner == migration_id}
            ledger.audit(connection, "quarantine discarded", migration_id=migration_id, rows=by_reason)
            total.update(by_reason)
    return dict(total)
