"""The applier that a capture needs, made from the catalog and the ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from psycopg import sql

from spine_migrate.carry.known import Known
from spine_migrate.carry.statements import Statements
from spine_migrate.carry.tables import guard_of, lock_name, parent_of
from spine_migrate.db import captures
from spine_migrate.db.captures import Captured
from spine_migrate.db.connect import Connection
from spine_migrate.db.definition import definition
from spine_migrate.mapping.emit.capture import Key
from spine_migrate.mapping.emit.legacy_form import LegacyForm
from spine_migrate.mapping.emit.legacy_key import LegacyKey
from spine_migrate.mapping.transforms.base import Sql
from spine_migrate.sync.applier import Applier, Forward
from spine_migrate.sync.capture import verify
from spine_migrate.sync.changes import Changes
from spine_migrate.sync.children import Children
from spine_migrate.sync.reversal import Reversal
from spine_migrate.sync.reverse import Reverse
from spine_migrate.sync.run_events import run_events


def applier_of(connection: Connection, one: Known, captured: Captured, others: Sequence[Known]) -> Applier:
    """``others``: the migrations that ``one`` may depend on, and those that depend on it. The session's search_path is
    to be pinned.
    """
    lock = lock_name(one.tables)
    if captured.direction == captures.REVERSE:
        reversal = reversal_of(connection, one, others)
        return Reverse(captured.migration_id, captured.capture_id, lock, reversal, _children(connection, one, others))
    parent = parent_of(connection, one.tables)
    statements = Statements(
        one.tables.binding, None if parent is None else replace(parent, has_quarantine=True), offline=False
    )
    changes = Changes(
        statements,
        guard_of(connection, one.tables),
        _legacy_key(connection, one),
        run_events(connection, one, others),
    )
    return Forward(captured.migration_id, captured.capture_id, lock, changes)


def _children(connection: Connection, one: Known, others: Sequence[Known]) -> tuple[Children, ...]:
    return tuple(
        Children(one.tables.binding, one.migration.migration_id, reference, reversal_of(connection, other, [one]))
        for other in others
        if other.needs(one) and (reference := other.mapping.required) is not None
    )


def reversal_of(connection: Connection, one: Known, others: Sequence[Known]) -> Reversal:
    return Reversal(form_of(connection, one, others), one.tables.source.name)


def reverse_key(connection: Connection, one: Known) -> Key:
    """What changes of the target are logged by."""
    if one.mapping.key_stands:
        return Key.column(one.mapping.target.key)
    return LegacyKey(form_of(connection, one, ())).logged


def _legacy_key(connection: Connection, one: Known) -> Callable[[str], Sql] | None:
    """The legacy key of a target row as the log has it; None where the mapping gives it up."""
    if one.mapping.key_carrier is None:
        return None
    if one.mapping.key_stands:
        column = one.mapping.target.key
        return lambda alias: sql.SQL("{}::text").format(sql.Identifier(alias, column))
    return LegacyKey(form_of(connection, one, ())).text


def verify_whole(connection: Connection, one: Known, captured: Captured) -> None:
    """Raises Refused (``capture-broken``) where a write would not be captured."""
    if captured.direction == captures.REVERSE:
        verify(connection, captured, oid=one.tables.target.oid)
    else:
        verify(connection, captured, oid=one.tables.source.oid)


def form_of(connection: Connection, one: Known, others: Sequence[Known]) -> LegacyForm:
    parent = next((other for other in others if one.needs(other)), None)
    source = one.tables.source
    return LegacyForm(
        one.tables.binding,
        definition(connection, source.name, source.oid),
        one.migration.migration_id,
        None if parent is None else form_of(connection, parent, others),
    )
