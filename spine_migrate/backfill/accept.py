"""Accepting a mended mapping for a migration that has begun, on proof that it leaves what was moved as it is.

The proof: under the new mapping every moved row is recognised by its mark, finds its source row, and equals
forward(source), links that are known to be open excepted; and what the new mapping does not write still holds its
default. Rows that were moved and whose source has changed or gone since then cannot be told from rows that the new
mapping would make differently, so they refuse it too.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from spine_migrate.backfill.unwritten import changed, unwritten
from spine_migrate.carry.known import Known
from spine_migrate.db import ledger
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute, rows
from spine_migrate.errors import Refused
from spine_migrate.mapping.emit.parity import Parity, parity
from spine_migrate.mapping.emit.sql import is_ours


@dataclass(frozen=True)
class Accepted:
    """``rows``: how many moved rows were compared."""

    mapping: str
    migration_id: int
    before: str
    after: str
    rows: int


def accept(connection: Connection, known: Known) -> Accepted | None:
    """Let the migration go by the mapping as the file is now; None where it does already. One transaction.

    The caller holds the migration's lock. Raises Refused (``mapping-not-accepted``) with a key that shows why.
    """
    migration, mapping = known.migration, known.mapping
    if migration.mapping_digest == mapping.digest:
        return None
    compiled = parity(known.tables.binding, known.tables.target.columns)
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        compared = _prove(connection, known, compiled)
        values = {"migration_id": migration.migration_id, "digest": mapping.digest}
        connection.execute(query("quarantine", "accept_mapping"), values)
        ledger.audit(
            connection,
            "mapping accepted",
            migration_id=migration.migration_id,
            before=migration.mapping_digest,
            after=mapping.digest,
            rows=compared,
        )
    return Accepted(mapping.name, migration.migration_id, migration.mapping_digest, mapping.digest, compared)


def _prove(connection: Connection, known: Known, compiled: Parity) -> int:
    migration_id = known.migration.migration_id
    doubled = 0
    for row in rows(connection, compiled.suspects(finished=False), migration_id, 1):
        if row["kind"] == "doubled":
            doubled += row["count"] or 0
        elif row["kind"] in ("differing", "extra") and row["count"] is None:
            names = [
                check.name for check, differs in zip(compiled.checks, row["differs"] or [], strict=False) if differs
            ]
            raise _refused(
                known,
                f"{known.tables.target.name} row {row['target_key']} has no source row under it"
                if row["kind"] == "extra"
                else f"source row {row['source_key']} would become another row ({', '.join(names)})",
            )
    _prove_unwritten(connection, known, compiled)
    ours = execute(connection, compiled.target_counts()).fetchall()[0][0] - doubled
    ((moved, adopted, _),) = connection.execute(query("backfill", "counts"), {"migration_id": migration_id}).fetchall()
    if ours != moved + adopted:
        raise _refused(known, f"{moved + adopted} rows were moved, but {ours} are recognised under it")
    return int(ours)


def _prove_unwritten(connection: Connection, known: Known, compiled: Parity) -> None:
    columns = unwritten(connection, known.tables, compiled.produced)
    if not columns:
        return
    binding = known.tables.binding
    statement = sql.SQL("SELECT t.{key}::text FROM {target} AS t WHERE {ours} AND {changed} LIMIT 1").format(
        key=sql.Identifier(binding.mapping.target.key),
        target=binding.target.identifier,
        ours=is_ours(binding, "t"),
        changed=changed(columns, "t"),
    )
    row = execute(connection, statement).fetchone()
    if row is not None:
        raise _refused(known, f"{binding.target} row {row[0]} has a value in a column that no rule of it writes")


def _refused(known: Known, why: str) -> Refused:
    return Refused(
        "mapping-not-accepted",
        f"The mapping {known.mapping.name} as it is now is not accepted for migration {known.migration.migration_id}, "
        f"since it would not leave all moved rows as they are: {why}; "
        f"mend it further, or spine-migrate undo and start again.",
    )
