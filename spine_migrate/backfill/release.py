"""Releasing entries from quarantine: which come next, and one transaction that tries a batch of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from spine_migrate.backfill.setting import Setting
from spine_migrate.carry.known import Known
from spine_migrate.carry.rows import Care, Done
from spine_migrate.carry.scope import Keys
from spine_migrate.carry.steady import level, steady
from spine_migrate.db.captures import batch_in_flight, unless_rewritten
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute

BATCH = 5_000
FOLLOWS = "parent_quarantined"

# Gives the entries after one of this number: (number, source key), at most BATCH.
Pages = Callable[[Connection, int], list[tuple[int, str]]]


@dataclass(frozen=True)
class Tried:
    done: Done
    refused: dict[str, int]
    gone: list[str]
    discarded: int


def attempt(connection: Connection, setting: Setting, keys: list[str], care: Care, *, discard_gone: bool) -> Tried:
    """One transaction. An entry whose attempts have not gone up was moved, or has no source row any more."""
    connection.isolation_level = level(held=care.held)
    with ExitStack() as whole:
        whole.enter_context(batch_in_flight(connection, setting.batches.lock))
        whole.enter_context(connection.transaction())
        if care.held:
            whole.enter_context(steady(connection, setting.tables.binding, keys, None))
        values = {"migration_id": setting.migration_id, "keys": keys}
        held = connection.execute(query("quarantine", "hold"), values).fetchall()
        names, attempts = [key for key, _ in held], [number for _, number in held]
        done = setting.batches.move_keys(connection, Keys(setting.tables.binding, names), care)
        execute(connection, _release(setting), setting.migration_id, names, attempts)
        values = {"migration_id": setting.migration_id, "keys": names, "attempts": attempts}
        refused = dict(connection.execute(query("quarantine", "refused_again"), values).fetchall())
        gone = [key for (key,) in connection.execute(query("quarantine", "untried"), values)]
        discarded = 0
        if gone and discard_gone:
            marked = {"migration_id": setting.migration_id, "keys": gone}
            connection.execute(query("quarantine", "discard_keys"), marked)
            discarded = len(gone)
        unless_rewritten(connection, setting.tables.binding.source, setting.tables.binding.target)
    return Tried(done, refused, gone, discarded)


def _release(setting: Setting) -> sql.Composed:
    """Take out of quarantine what was tried and not refused."""
    binding = setting.tables.binding
    key = binding.mapping.key
    return sql.SQL(
        "DELETE FROM spine_migrate.quarantine AS q USING unnest($2::text[], $3::int[]) AS x (source_key, attempts)"
        " WHERE q.migration_id = $1 AND q.source_key = x.source_key AND q.attempts = x.attempts"
        " AND EXISTS (SELECT FROM {source} AS s WHERE s.{key} = x.source_key::{type})"
    ).format(
        source=binding.source.identifier,
        key=sql.Identifier(key),
        type=sql.SQL(binding.live[key].sql_type),
    )


def pages_of(values: dict[str, Any], last: int) -> Pages:
    """Entries by number, up to the last there was when the retry began: one that is refused keeps its number."""

    def page(connection: Connection, after: int) -> list[tuple[int, str]]:
        given = {**values, "after": after, "last": last, "limit": BATCH}
        return connection.execute(query("quarantine", "page"), given).fetchall()

    return page


def pages_released(setting: Setting, parent: Known) -> Pages:
    """Entries that are there for their parent's sake, where the parent has left its quarantine."""
    binding = setting.tables.binding
    required = binding.mapping.required
    if required is None:
        raise ValueError(f"{binding.mapping.name} requires no mapping")
    statement = sql.SQL(
        "SELECT q.quarantine_id, q.source_key FROM spine_migrate.quarantine AS q"
        " JOIN {source} AS s ON s.{key} = q.source_key::{type}"
        " WHERE q.migration_id = $1 AND q.reason = {reason} AND q.discarded_at IS NULL AND q.quarantine_id > $3"
        " AND NOT EXISTS (SELECT FROM spine_migrate.quarantine AS p"
        " WHERE p.migration_id = $2 AND p.source_key = s.{column}::text)"
        " ORDER BY q.quarantine_id LIMIT {limit}"
    ).format(
        source=binding.source.identifier,
        key=sql.Identifier(binding.mapping.key),
        type=sql.SQL(binding.live[binding.mapping.key].sql_type),
        column=sql.Identifier(required.source),
        reason=sql.Literal(FOLLOWS),
        limit=sql.Literal(BATCH),
    )

    def page(connection: Connection, after: int) -> list[tuple[int, str]]:
        return execute(connection, statement, setting.migration_id, parent.migration.migration_id, after).fetchall()

    return page
