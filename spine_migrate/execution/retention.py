"""Retention: runs that ended long ago are deleted, with their events and their handoff, a batch at a time.

A run goes if it is final and ended before a bound (created before it, where its end is not known). One that a row which
stays names, as its parent or as the run it retries, or from a table of the application, stays too, and is counted.
Active runs are never touched, nor is a run that somebody has locked. Runs that were not made by the runtime, but moved
here by a migration, are history of a legacy table: they go only on request.

A batch is one transaction, in which rows are locked without waiting, so that it can be stopped or killed at any time;
the same purge goes on with what is left. It needs to see what is committed meanwhile (READ COMMITTED).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row

from spine_migrate.errors import Refused
from spine_migrate.execution.runs import FINAL, RunStatus
from spine_migrate.execution.sessions import Connection, escaped, tables
from spine_migrate.named_queries import load

Row = dict[str, Any]

#: A table of this size in bytes is scanned faster than an index would pay.
SMALL_BYTES = 1 << 20


@dataclass(frozen=True)
class Bound:
    """Runs of some final statuses that ended before ``before``, which has a zone; ``migrated`` adds those that a
    migration moved. Raises ValueError where a status is not final.
    """

    before: datetime
    statuses: frozenset[RunStatus] = FINAL
    migrated: bool = False

    def __post_init__(self) -> None:
        if active := self.statuses - FINAL:
            raise ValueError(f"Runs that are {', '.join(sorted(active))} are not purged.")


@dataclass
class Purged:
    """``runs`` by status, ``kept`` by reason: parent, retried (of a run that stays), referenced (by a table of the
    application), in_use (locked, or no longer final).
    """

    runs: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    events: int = 0
    handoffs: int = 0
    batches: int = 0


@dataclass(frozen=True)
class _Reference:
    """A foreign key to runs; ``own``: of runs itself."""

    schema: str
    table_name: str
    column_name: str
    referenced: str
    own: bool
    indexed: bool
    bytes: int

    @property
    def parts(self) -> tuple[tuple[str, ...], ...]:
        """The names of the table, its column and the column of runs."""
        return (self.schema, self.table_name), (self.column_name,), (self.referenced,)


class Purge:
    """One purge, batch by batch; ``schema`` holds the tables, without one the search_path finds them.

    It remembers how far it has come and what it did in ``purged``, not the connection: each call may bring another one,
    in autocommit mode.
    """

    def __init__(
        self, connection: Connection, bound: Bound, *, schema: str | None = None, batch_size: int = 1000
    ) -> None:
        """Raises Refused (``index-missing``) where deleting or looking for old runs would scan a large table."""
        self.bound = bound
        self.purged = Purged()
        self._batch_size = batch_size
        self._last = self._start = (bound.before.isoformat(), UUID(int=0))
        self._again = False
        names, placed = tables(schema), tables(None if schema is None else escaped(schema))
        found = _references(connection, names)
        self._queries = {
            name: sql.SQL(text).format(
                **placed, wanted=_wanted(bound), final=_final(), named=_named(one for one in found if not one.own)
            )
            for name, text in load("spine_migrate.execution", "retention").items()
        }
        self._check(connection, names, found)

    def count(self, connection: Connection) -> Purged:
        """What a purge would do now; changes nothing. Reads all runs that are old enough."""
        told = Purged()
        with connection.cursor(row_factory=dict_row) as cursor:
            for row in cursor.execute(self._queries["count"], self._values()):
                counter = told.runs if row["fate"] == "go" else told.kept
                counter[row["what"]] += row["runs"]
        return told

    def step(self, connection: Connection) -> bool:
        """One batch; whether there may be another. What a step counts is counted once its batch is committed."""
        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            given = {**self._values(self._last), "limit": self._batch_size}
            # Planned with its values: a plan for any limit would sort all that is left, each time.
            window = cursor.execute(self._queries["window"], given, prepare=False).fetchall()
            done, again = self._delete(cursor, window) if window else (Purged(), False)
        if not window:
            return self._next_pass()
        self._last = _position(window[-1])
        self._again |= again
        self.purged = _sum(self.purged, done)
        return True

    def _next_pass(self) -> bool:
        """Where a run was newer than one that named it, it was passed over, and is looked at once more."""
        again, self._again, self._last = self._again, False, self._start
        if again:
            self.purged.kept.clear()
        return again

    def _delete(self, cursor: psycopg.Cursor[Row], window: Sequence[Row]) -> tuple[Purged, bool]:
        """What was done, and whether a run that was passed over may go now."""
        keys = [row["run_id"] for row in window]
        held = self._keys(cursor, "lock_handoffs", keys)
        free = [row["run_id"] for row in window if row["run_id"] in held or not row["handed"]]
        locked = self._keys(cursor, "lock_runs", free)
        # A statement of its own: it sees what was committed before the locks were had.
        cursor.execute(self._queries["staying"], {"keys": list(locked)})
        staying = {row["run_id"]: row["reason"] for row in cursor}
        going = {"keys": [key for key in keys if key in locked and key not in staying]}
        done = Purged(kept=Counter(staying.values()), batches=1)
        if len(locked) < len(keys):
            done.kept["in_use"] = len(keys) - len(locked)
        done.events = cursor.execute(self._queries["delete_events"], going).rowcount
        done.handoffs = cursor.execute(self._queries["delete_handoffs"], going).rowcount
        deleted = cursor.execute(self._queries["delete_runs"], going).fetchall()
        done.runs = Counter(row["status"] for row in deleted)
        named = {row[name] for row in deleted for name in ("parent_run_id", "retry_of_run_id")} - {None}
        values = {**self._values(_position(window[-1])), "named": list(named)}
        (passed_over,) = cursor.execute(self._queries["passed_over"], values).fetchall()
        return done, bool(passed_over["exists"])

    def _keys(self, cursor: psycopg.Cursor[Row], name: str, keys: list[UUID]) -> set[UUID]:
        return {row["run_id"] for row in cursor.execute(self._queries[name], {**self._values(), "keys": keys})}

    def _values(self, last: tuple[str, UUID] | None = None) -> Row:
        at, run_id = last or self._start
        return {
            "before": self.bound.before,
            "statuses": sorted(map(str, self.bound.statuses)),
            "last_at": at,
            "last_id": run_id,
        }

    def _check(self, connection: Connection, names: Mapping[str, sql.Composable], found: Sequence[_Reference]) -> None:
        runs = names["runs"].as_string(connection)
        with connection.cursor(row_factory=dict_row) as cursor:
            ordered = cursor.execute(self._queries["ordered"], {"runs": runs}).fetchone()
        missing = [one for one in found if not one.indexed and one.bytes > SMALL_BYTES]
        by_age = ordered is None or ordered["indexed"] or ordered["bytes"] <= SMALL_BYTES
        if (own := [one.column_name for one in missing if one.own]) or not by_age:
            raise Refused(
                "index-missing",
                f"A purge of {runs} would look through all of it for each run, for want of an index on "
                f"{', '.join(own if by_age else ['created_at', *own])}; run spine-migrate runs index create first.",
            )
        for one in missing:
            statement = sql.SQL("CREATE INDEX CONCURRENTLY ON {} ({})").format(
                sql.Identifier(*one.parts[0]), sql.Identifier(one.column_name)
            )
            raise Refused(
                "index-missing",
                f"Each run that is deleted makes the server look through {one.schema}.{one.table_name} for rows "
                f"that name it, and no index serves that; have its owner run: {statement.as_string(connection)}",
            )


def _position(row: Row) -> tuple[str, UUID]:
    """Its time as text, which holds one that Python does not have too."""
    return row["at"], row["run_id"]


def _wanted(bound: Bound) -> sql.Composable:
    """Conditions on ``r``, a run, and ``h``, its handoff."""
    if bound.migrated:
        return _final()
    ours = sql.SQL("h.run_id IS NOT NULL AND NOT coalesce(r.metadata ? 'migrated_from', false)")
    return sql.SQL("{} AND {}").format(_final(), ours)


def _final() -> sql.SQL:
    return sql.SQL("r.status = ANY (%(statuses)s) AND coalesce(r.completed_at, r.created_at) < %(before)s")


def _named(others: Iterable[_Reference]) -> sql.Composable:
    """Whether a table of the application names the run ``r``."""
    conditions = [
        sql.SQL("EXISTS (SELECT FROM {} AS x WHERE x.{} = r.{})").format(
            *(sql.Identifier(*map(escaped, parts)) for parts in one.parts)
        )
        for one in others
    ]
    return sql.SQL("({})").format(sql.SQL(" OR ").join([sql.SQL("false"), *conditions]))


def _references(connection: Connection, names: Mapping[str, sql.Composable]) -> list[_Reference]:
    values = {name: names[name].as_string(connection) for name in ("runs", "run_events")}
    with connection.cursor(row_factory=class_row(_Reference)) as cursor:
        return cursor.execute(load("spine_migrate.execution", "retention")["references"], values).fetchall()


def _sum(before: Purged, more: Purged) -> Purged:
    return Purged(
        before.runs + more.runs,
        before.kept + more.kept,
        before.events + more.events,
        before.handoffs + more.handoffs,
        before.batches + more.batches,
    )
