"""The applier that a capture needs, made from the catalog and the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from spine_migrate.carry.known import Known
from spine_migrate.carry.statements import Statements
from spine_migrate.carry.tables import guard_of, lock_name, parent_of
from spine_migrate.db import captures
from spine_migrate.db.captures import Captured
from spine_migrate.db.connect import Connection
from spine_migrate.db.definition import definition
from spine_migrate.mapping.emit.legacy_form import LegacyForm
from spine_migrate.sync.applier import Applier, Forward
from spine_migrate.sync.capture import verify
from spine_migrate.sync.changes import Changes
from spine_migrate.sync.reversal import Reversal
from spine_migrate.sync.reverse import Reverse


def applier_of(connection: Connection, one: Known, captured: Captured, others: Sequence[Known]) -> Applier:
    """``others``: the migrations that ``one`` may depend on. The session's search_path is to be pinned."""
    lock = lock_name(one.tables)
    if captured.direction == captures.REVERSE:
        reversal = Reversal(_form(connection, one, others), one.tables.source.name)
        return Reverse(captured.migration_id, captured.capture_id, lock, reversal)
    parent = parent_of(connection, one.tables)
    statements = Statements(
        one.tables.binding, None if parent is None else replace(parent, has_quarantine=True), offline=False
    )
    changes = Changes(statements, guard_of(connection, one.tables))
    return Forward(captured.migration_id, captured.capture_id, lock, changes)


def verify_whole(connection: Connection, one: Known, captured: Captured) -> None:
    """Raises Refused (``capture-broken``) where a write would not be captured."""
    if captured.direction == captures.REVERSE:
        verify(connection, captured, oid=one.tables.target.oid, key=one.mapping.target.key)
    else:
        verify(connection, captured, oid=one.tables.source.oid, key=one.mapping.key)


def _form(connection: Connection, one: Known, others: Sequence[Known]) -> LegacyForm:
    parent = next((other for other in others if one.needs(other)), None)
    source = one.tables.source
    return LegacyForm(
        one.tables.binding,
        definition(connection, source.name, source.oid),
        one.migration.migration_id,
        None if parent is None else _form(connection, parent, others),
    )
