"""Indexes on ``runs`` beyond those of seed 000, for lists and for purging; built, dropped and looked at on request.

They are no revision: the seeds fix the table index by index, each further one makes a backfill and every change of a
run dearer, and a transaction, which a revision is, cannot build one without blocking writers. With its own index each
filter of ``list_runs`` reads as many entries as it lists, in the order of the list.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from spine_migrate.db.catalog import Name, Relation
from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import retrying
from spine_migrate.db.queries import query
from spine_migrate.errors import ConfigurationError, Refused


@dataclass(frozen=True)
class Definition:
    """``columns`` and ``condition`` are SQL; ``purpose`` says who is served."""

    key: str
    columns: LiteralString
    purpose: str
    method: str = "btree"
    condition: LiteralString | None = None
    storage: LiteralString | None = None

    @property
    def name(self) -> str:
        return f"ix_runs_list_{self.key}"


#: By the column that a filter is about. A list goes backwards through one: ``created_at DESC NULLS LAST, run_id DESC``.
DEFINITIONS = {
    one.key: one
    for one in (
        Definition("created_at", "created_at NULLS FIRST, run_id", "lists without a filter or by time; purge"),
        Definition("status", "status, created_at NULLS FIRST, run_id", "lists by status"),
        Definition("name", "name, created_at NULLS FIRST, run_id", "lists by name"),
        Definition("lane", "lane, created_at NULLS FIRST, run_id", "lists by lane"),
        Definition("kind", "kind, created_at NULLS FIRST, run_id", "lists by kind"),
        # Partial ones also serve the foreign keys, which look for children of each run that is deleted.
        Definition(
            "parent_run_id",
            "parent_run_id, created_at NULLS FIRST, run_id",
            "lists by parent; purge, undo",
            condition="parent_run_id IS NOT NULL",
        ),
        Definition("retry_of_run_id", "retry_of_run_id", "purge, undo", condition="retry_of_run_id IS NOT NULL"),
        # Without a list of pending entries, through which every reader would have to go.
        Definition("tags", "tags", "lists by tag", method="gin", storage="fastupdate = off"),
    )
}


@dataclass(frozen=True)
class State:
    """``bytes`` is None where there is no such index; an invalid one is what a build left that was broken off."""

    key: str
    name: str
    purpose: str
    bytes: int | None
    valid: bool


@dataclass(frozen=True)
class Patience:
    """``lock_timeout``, as PostgreSQL writes it, ends a build that waits for transactions which are older than it, or
    for a lock; it is tried again for ``retry_seconds``, until ``stop``.
    """

    lock_timeout: str
    retry_seconds: float
    stop: threading.Event


@dataclass(frozen=True)
class _Found:
    name: str
    bytes: int
    valid: bool


def chosen(keys: Sequence[str]) -> list[Definition]:
    """The definitions of some keys, or all. Raises ConfigurationError for a key that there is not."""
    if unknown := [key for key in keys if key not in DEFINITIONS]:
        raise ConfigurationError(f"There is no index {unknown[0]!r} to choose; there are {', '.join(DEFINITIONS)}.")
    return [DEFINITIONS[key] for key in dict.fromkeys(keys)] or list(DEFINITIONS.values())


def statement(runs: Name, one: Definition) -> sql.Composed:
    """What builds an index without blocking writers."""
    parts: list[sql.Composable] = [
        sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} USING {} ({})").format(
            sql.Identifier(one.name), runs.identifier, sql.Identifier(one.method), sql.SQL(one.columns)
        )
    ]
    if one.storage:
        parts.append(sql.SQL(" WITH ({})").format(sql.SQL(one.storage)))
    if one.condition:
        parts.append(sql.SQL(" WHERE {}").format(sql.SQL(one.condition)))
    return sql.Composed(parts)


class RunIndexes:
    """The indexes of one ``runs``, over a connection in autocommit mode."""

    def __init__(self, connection: Connection, runs: Relation) -> None:
        self._connection = connection
        self._runs = runs

    def states(self) -> list[State]:
        """How it stands with each, in the order of ``DEFINITIONS``."""
        found = self._found()
        return [
            State(one.key, one.name, one.purpose, here.bytes if here else None, bool(here and here.valid))
            for one in DEFINITIONS.values()
            for here in [found.get(one.name)]
        ]

    def create(self, wanted: Iterable[Definition], patience: Patience, report: Callable[[str], None]) -> list[str]:
        """Build those that are not there, one after the other; the keys of what was built.

        Writers are never held up, and what a build that was broken off has left is removed first. Raises Refused:
        ``partitioned``, ``not-the-owner``, ``offline-unfinished``, ``name-taken``, ``lock-in-time``.
        """
        self._prepare(patience)
        found = self._found()
        built = []
        for one in wanted:
            here = found.get(one.name)
            if patience.stop.is_set() or (here and here.valid):
                continue
            report(one.name)
            self._retried(self._rebuild, one, patience)
            built.append(one.key)
        return built

    def drop(self, wanted: Iterable[Definition], patience: Patience) -> list[str]:
        """Remove those that are there, valid or not, without holding up anybody; their keys. Raises as ``create``."""
        self._prepare(patience)
        found = self._found()
        there = [one for one in wanted if one.name in found]
        for one in there:
            self._retried(self._drop, one, patience)
        return [one.key for one in there]

    def _prepare(self, patience: Patience) -> None:
        connection, runs = self._connection, self._runs
        if runs.kind == "p":
            raise Refused(
                "partitioned",
                f"{runs.name} is partitioned, and PostgreSQL builds no index on such a table without blocking its "
                f"writers; build one on each partition, then attach them.",
            )
        if connection.execute(query("run_indexes", "owned"), {"oid": runs.oid}).fetchone() != (True,):
            raise Refused(
                "not-the-owner", f"Only the owner of {runs.name}, or a member of it, builds and drops indexes."
            )
        if connection.execute(query("ledger", "installed")).fetchone() == (True,):
            unfinished = connection.execute(query("run_indexes", "unfinished"), {"table": str(runs.name)}).fetchone()
            if unfinished is not None:
                raise Refused(
                    "offline-unfinished",
                    f"The offline load of {unfinished[0]} has taken the indexes of {runs.name} away; finish it first.",
                )
        given = {"schema": runs.name.schema, "names": _names(), "oid": runs.oid}
        taken = connection.execute(query("run_indexes", "taken"), given).fetchone()
        if taken is not None:
            raise Refused(
                "name-taken",
                f"The name {taken[0]} belongs to something else in schema {runs.name.schema}; rename that first.",
            )
        _set_lock_timeout(connection, patience.lock_timeout)

    def _retried(self, work: Callable[[Definition], None], one: Definition, patience: Patience) -> None:
        try:
            retrying(seconds=patience.retry_seconds, stop=patience.stop)(work, one)
        except psycopg.errors.LockNotAvailable as error:
            # Whoever is in the way may still be; what is left is removed by the next build, then.
            with suppress(psycopg.errors.LockNotAvailable):
                self._drop_invalid(one)
            raise Refused(
                "lock-in-time",
                f"{one.name} was given up: a transaction that is older, or a lock on {self._runs.name}, did not end in "
                f"time; end it (pg_stat_activity, by xact_start), or give a longer --lock-timeout.",
            ) from error

    def _rebuild(self, one: Definition) -> None:
        self._drop_invalid(one)
        self._connection.execute(statement(self._runs.name, one))

    def _drop_invalid(self, one: Definition) -> None:
        here = self._found().get(one.name)
        if here is not None and not here.valid:
            self._drop(one)

    def _drop(self, one: Definition) -> None:
        index = sql.Identifier(self._runs.name.schema, one.name)
        self._connection.execute(sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(index))

    def _found(self) -> dict[str, _Found]:
        with self._connection.cursor(row_factory=class_row(_Found)) as cursor:
            given = {"oid": self._runs.oid, "names": _names()}
            return {row.name: row for row in cursor.execute(query("run_indexes", "states"), given)}


def _names() -> list[str]:
    return [one.name for one in DEFINITIONS.values()]


def _set_lock_timeout(connection: Connection, lock_timeout: str) -> None:
    try:
        connection.execute("SELECT pg_catalog.set_config('lock_timeout', %s, false)", (lock_timeout,))
    except psycopg.errors.InvalidParameterValue:
        raise ConfigurationError(
            f"The lock timeout {lock_timeout!r} is not a duration such as 500ms, 5s or 1min."
        ) from None
