"""What has become of some legacy rows, brought to the target inside the caller's transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import psycopg

from spine_migrate.carry.links import await_links
from spine_migrate.carry.rows import FOREIGN_KEY, REPAIRS, UNIQUE, judged, refusal
from spine_migrate.carry.statements import Found, Rejects, Statement
from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import blames_row
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute, rows
from spine_migrate.sync.changes import Changes, Going

LATE = (FOREIGN_KEY, UNIQUE)


class Overtaken(Exception):
    """A row that was not on the target in this snapshot is there now; what there is to do is seen in a new one."""


@dataclass
class Applied:
    """What one transaction did. ``entries`` of the log, ``keys`` looked at, rows by what became of them; ``deferred``
    rows were put off, ``released`` ones left quarantine; ``reasons`` are those of the ``quarantined``.
    """

    entries: int = 0
    keys: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    quarantined: int = 0
    released: int = 0
    deferred: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def add(self, other: Applied) -> None:
        for name, value in vars(other).items():
            if name != "reasons":
                setattr(self, name, getattr(self, name) + value)
        self.reasons = dict(Counter(self.reasons) + Counter(other.reasons))


class Working(Protocol):
    """What brings rows to the other side in the caller's transaction; ``gone`` are keys whose rows are not there."""

    done: Applied
    gone: list[str]

    def apply(self, keys: Sequence[str]) -> None: ...


@dataclass
class Work:
    """``tired`` keys have been put off for long enough: what stands in their way sends them to quarantine."""

    connection: Connection
    changes: Changes
    migration_id: int
    capture_id: int
    tired: set[str]
    done: Applied = field(default_factory=Applied)
    gone: list[str] = field(default_factory=list)
    _late: dict[str, psycopg.Error] = field(default_factory=dict)
    _rejects: Rejects = field(default_factory=Rejects)

    def apply(self, keys: Sequence[str]) -> None:
        """Bring the rows of these keys up to date: those that are gone first, then those that make room for others."""
        keys = list(dict.fromkeys(keys))
        if not keys:
            return
        self.done.keys += len(keys)
        held = {key for (key,) in self._ask("held", keys)}
        here = [key for (key,) in run(self.connection, self.changes.present(keys))]
        present = set(here)
        self.gone = [key for key in keys if key not in present]
        self.remove(self.gone, self.changes.led_to)
        self._write(here)
        self._quarantine(here, held)
        self._settle(keys, held)

    def remove(self, keys: Sequence[str], going: Callable[[Sequence[str]], Going]) -> None:
        def delete(part: Sequence[str]) -> int:
            for statement in self.changes.unlink(going(part), self.migration_id):
                run(self.connection, statement)
            return run(self.connection, self.changes.delete(going(part), self.migration_id)).rowcount

        deleted = self._each(keys, delete)
        self.done.deleted += deleted
        self._count(-deleted)

    def _write(self, here: list[str]) -> None:
        if not here:
            return
        statements = self.changes.statements
        try:
            with self.connection.transaction():
                refused, linked, taken = self._look(here)
        except psycopg.Error as error:
            if not blames_row(error):
                raise
            # A row of which not even what it would become can be computed; the others have nothing to do with it.
            _, errors = halving(self.connection, here, lambda part: len(self._look(list(part))[2]))
            self._rejects.found.update((key, refusal(error)) for key, error in errors.items())
            here = [key for key in here if key not in errors]
            refused, linked, taken = self._look(here)
        self._rejects.judged = refused
        ours = {handle for handle, is_ours, _, _ in taken if is_ours}
        for handle, is_ours, _, row in taken:
            if not is_ours:
                self._rejects.found[handle] = Found(
                    "key_taken",
                    f"the key is taken in {statements.binding.target} by a row that is not ours",
                    field=statements.binding.mapping.target.key,
                    colliding_row=row,
                )
        out = set(self._rejects.handles)
        leaving = self._leaving([key for key in here if key in ours and key not in out])
        links = set(linked)
        self.done.updated += self._each([key for key in here if key in leaving], lambda part: self._update(part, links))
        inserted = self._each(
            [key for key in here if key not in ours and key not in out], lambda part: self._insert(part, links)
        )
        self.done.inserted += inserted
        self._count(inserted)
        self.done.updated += self._each(
            [key for key in here if key in ours and key not in out and key not in leaving],
            lambda part: self._update(part, links),
        )
        self._exchange(ours, links)

    def _look(self, keys: list[str]) -> tuple[list[str], list[str], list[Any]]:
        """Those that the rules refuse, those with a link, and what the target has of their keys."""
        statements, scope = self.changes.statements, self.changes.scope(keys)
        _, _, refused, linked = judged(self.connection, statements.judge_scope(scope, orphans=False))
        taken = run(self.connection, statements.taken(scope, refused or [])).fetchall()
        return refused or [], linked or [], taken

    def _exchange(self, ours: set[str], links: set[str]) -> None:
        """Rows that want each other's place in a unique index: none can be first, so all give theirs up first."""
        late = {key: error for key, error in self._late.items() if error.sqlstate == UNIQUE and key in ours}
        park = self.changes.park(list(late), {error.diag.constraint_name or "" for error in late.values()})
        if park is None:
            return
        try:
            with self.connection.transaction():
                run(self.connection, park)
                updated = self._update(list(late), links)
        except psycopg.Error as error:
            if not blames_row(error):
                raise
            return
        self.done.updated += updated
        self._late = {key: error for key, error in self._late.items() if key not in late}

    def _leaving(self, keys: list[str]) -> set[str]:
        statement = self.changes.leaving(keys) if keys else None
        return set() if statement is None else {key for (key,) in run(self.connection, statement)}

    def _update(self, keys: Sequence[str], links: set[str]) -> int:
        run(self.connection, self.changes.forget_links(keys, self.migration_id))
        return run(self.connection, self.changes.update(keys, self._waiting(keys, links))).rowcount

    def _insert(self, keys: Sequence[str], links: set[str]) -> int:
        waiting = self._waiting(keys, links)
        return run(self.connection, self.changes.statements.insert(self.changes.scope(keys), [], waiting)).rowcount

    def _waiting(self, keys: Sequence[str], links: set[str]) -> dict[str, list[str]]:
        linked = [key for key in keys if key in links]
        if not linked:
            return {}
        scope = self.changes.scope(keys)
        statement = await_links(self.changes.statements, self.migration_id, scope, linked, Rejects())
        return dict(run(self.connection, statement).fetchall())

    def _each(self, keys: Sequence[str], act: Callable[[Sequence[str]], int]) -> int:
        def unless_overtaken(part: Sequence[str]) -> int:
            try:
                return act(part)
            except psycopg.errors.UniqueViolation as error:
                if self.changes.is_primary(error.diag.constraint_name):
                    raise Overtaken(str(self.changes.binding.target)) from error
                raise

        total, refused = halving(self.connection, keys, unless_overtaken)
        for key, error in refused.items():
            if error.sqlstate in LATE:
                self._late[key] = error
            else:
                self._rejects.found[key] = refusal(error)
        return total

    def _quarantine(self, here: list[str], held: set[str]) -> None:
        """What the rules or the server refuse, and what has been late for too long."""
        gone = set(self.gone)
        for key in [key for key in self._late if key in self.tired and key not in gone]:
            self._rejects.found[key] = self._obstacle(key, self._late.pop(key))
        if not self._rejects.quarantined:
            return
        scope = self.changes.scope(here)
        entered = run(
            self.connection,
            self.changes.statements.quarantine(self.migration_id, scope, self._rejects, orphans=False),
        ).fetchall()
        reasons = Counter(self.done.reasons)
        reasons.update(reason for key, reason in entered if key not in held)
        self.done.reasons = dict(reasons)
        new = sum(key not in held for key in self._rejects.handles)
        self.done.quarantined += new
        self._count(0, quarantined=new)

    def _obstacle(self, key: str, error: psycopg.Error) -> Found:
        """What stands in the way of a row: another row in its place, or the lack of its parent."""
        found = refusal(error)
        if error.sqlstate == FOREIGN_KEY:
            return replace(found, reason="orphan")
        statement = self.changes.taken_by([key], found.constraint or "")
        taken = [] if statement is None else rows(self.connection, statement[0], *statement[1])
        if not taken:
            return replace(found, reason="unique_conflict")
        row = taken[0]
        target_key = self.changes.binding.mapping.target.key
        return replace(
            found,
            reason="unique_conflict",
            detail=f"{found.constraint} is taken by {target_key} {row['colliding_key']}",
            colliding_row=row["colliding_row"],
        )

    def _settle(self, keys: list[str], held: set[str]) -> None:
        late = [key for key in keys if key in self._late]
        if late:
            details = [refusal(self._late[key]).detail for key in late]
            values = {"capture_id": self.capture_id, "keys": late, "details": details}
            self.connection.execute(query("capture", "put_off"), values)
            self.done.deferred += len(late)
        settled = [key for key in keys if key not in self._late]
        self.connection.execute(query("capture", "settle"), {"capture_id": self.capture_id, "keys": settled})
        refused = set(self._rejects.handles)
        released = [key for key in settled if key in held and key not in refused]
        if released:
            self._ask("release", released)
            self.done.released += len(released)

    def _ask(self, name: str, keys: Sequence[str]) -> psycopg.Cursor[Any]:
        return self.connection.execute(query("capture", name), {"migration_id": self.migration_id, "keys": list(keys)})

    def _count(self, moved: int, *, quarantined: int = 0) -> None:
        if not (moved or quarantined):
            return
        values = {"migration_id": self.migration_id, "segment": REPAIRS, "moved": moved, "adopted": 0}
        self.connection.execute(query("backfill", "count_repairs"), {**values, "quarantined": quarantined})


def run(connection: Connection, statement: Statement) -> psycopg.RawCursor[Any]:
    composed, values = statement
    return execute(connection, composed, *values)


def halving(
    connection: Connection, keys: Sequence[str], act: Callable[[Sequence[str]], int]
) -> tuple[int, dict[str, psycopg.Error]]:
    """``act`` on all keys, or on halves of them where the server refuses a row, down to the row at fault: the sum of
    what it gave, and the rows that were refused.
    """
    total = 0
    refused: dict[str, psycopg.Error] = {}
    parts = [list(keys)] if keys else []
    while parts:
        part = parts.pop()
        try:
            with connection.transaction():
                total += act(part)
        except psycopg.Error as error:
            if not blames_row(error):
                raise
            if len(part) > 1:
                middle = len(part) // 2
                parts += [part[middle:], part[:middle]]
            else:
                refused[part[0]] = error
    return total, refused
