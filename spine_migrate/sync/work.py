"""What has become of some legacy rows, brought to the target inside the caller's transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import psycopg

from spine_migrate.carry.links import await_links
from spine_migrate.carry.rows import FOLLOWED, FOREIGN_KEY, REPAIRS, UNIQUE, refusal
from spine_migrate.carry.statements import Found, Rejects, Statement
from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import blames_row
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute_often, rows
from spine_migrate.errors import Refused
from spine_migrate.sync.changes import Changes, Going
from spine_migrate.sync.halving import Halving
from spine_migrate.sync.late import put_off
from spine_migrate.sync.look import Seen, absent
from spine_migrate.sync.look import look as look_at

LATE = (FOREIGN_KEY, UNIQUE)


class Overtaken(Exception):
    """A row that was not on the target in this snapshot is there now; what there is to do is seen in a new one."""


@dataclass
class Applied:
    """What one transaction did. ``entries`` of the log, ``keys`` looked at, rows by what became of them; ``deferred``
    rows were put off, ``released`` ones left quarantine, ``set_aside`` ones went with others and were kept; ``reasons``
    are those of the ``quarantined``.
    """

    entries: int = 0
    keys: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    quarantined: int = 0
    released: int = 0
    deferred: int = 0
    set_aside: int = 0
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
    _late: dict[str, Found] = field(default_factory=dict)
    _untried: list[str] = field(default_factory=list)
    _rejects: Rejects = field(default_factory=Rejects)
    _halving: Halving = field(init=False)

    def __post_init__(self) -> None:
        self._halving = Halving(self.connection)

    def apply(self, keys: Sequence[str]) -> None:
        """Bring the rows of these keys up to date: those that are gone first, then those that make room for others. Of
        more than can be looked into those that come first have their turn.
        """
        keys = list(dict.fromkeys(keys))
        if not keys:
            return
        self.done.keys += len(keys)
        gone = {key for (key,) in run(self.connection, absent(self.changes.scope(keys)))}
        self.gone = [key for key in keys if key in gone]
        self.remove(self.gone, self.changes.led_to)
        seen = self._look([key for key in keys if key not in gone])
        if gone:
            seen.held |= {key for (key,) in self._ask("held", self.gone)}
        self._write(seen)
        self._quarantine(seen)
        self._settle(seen)

    def remove(self, keys: Sequence[str], going: Callable[[Sequence[str]], Going]) -> None:
        def delete(part: Sequence[str]) -> int:
            for statement in self.changes.unlink(going(part), self.migration_id):
                run(self.connection, statement)
            events = self.changes.events
            aside = run(self.connection, events.set_aside(going(part), self.migration_id)).rowcount if events else 0
            gone, kept = run(self.connection, self.changes.delete(going(part), self.migration_id)).fetchall()[0]
            if kept:
                raise self._swallowed(f"{kept} rows of {self.changes.binding.target} that go are there still")
            self.done.set_aside += aside
            return int(gone)

        done = self._halving.each(keys, lambda part: self._unless_overtaken(lambda: delete(part)))
        # Whatever is in the way (a foreign key, ON DELETE RESTRICT, a trigger): there is no legacy row to quarantine.
        self._late.update((key, refusal(error)) for key, error in done.refused.items())
        self._untried += done.untried
        self.done.deleted += done.total
        self._count(-done.total)

    def remove_extra(self, row_keys: Mapping[str, str | None]) -> None:
        """Remove target rows without a legacy row. ``row_keys``: by target key the legacy key that led to it, by which
        it is put off where it has to stay; None where it cannot be told, and then it is looked for again.
        """
        if None in row_keys.values():
            self._halving.left = None
        self.remove(list(row_keys), self.changes.named)
        self._late = {key: found for one, found in self._late.items() if (key := row_keys[one]) is not None}
        self._untried = [key for one in self._untried if (key := row_keys[one]) is not None]
        self._settle(Seen())

    def _look(self, keys: list[str]) -> Seen:
        seen = Seen()

        def look(part: Sequence[str]) -> int:
            statement = look_at(self.changes.statements, self.changes.scope(part), self.migration_id, self.capture_id)
            seen.add(run(self.connection, statement))
            return 0

        # A row of which not even what it would become can be computed keeps no other from being looked at.
        done = self._halving.each(keys, look)
        self._untried += done.untried
        if errors := done.refused:
            self._rejects.found.update((key, refusal(error)) for key, error in errors.items())
            seen.here += errors
            seen.held |= {key for (key,) in self._ask("held", list(errors))}
            seen.waiting |= set(errors)
        places = {key: place for place, key in enumerate(keys)}
        seen.here.sort(key=lambda key: places.get(key, 0))
        return seen

    def _write(self, seen: Seen) -> None:
        self._rejects.judged = [key for key in seen.here if key in seen.refused]
        if seen.taken:
            self._refuse_taken(seen)
        out = set(self._rejects.handles)
        ours = [key for key in seen.here if key in seen.ours and key not in out]
        new = [key for key in seen.here if key not in seen.ours and key not in out]
        # What links to rows that are not there yet comes after the new rows: they may be among them.
        first = [key for key in ours if key not in seen.links]
        if not self._update_at_once(first, seen):
            leaving = self._leaving(ours)
            first = [key for key in ours if key in leaving]
            self.done.updated += self._write_each(first, lambda part: self._update(part, seen))
        inserted = self._write_each(new, lambda part: self._insert(part, seen))
        self.done.inserted += inserted
        self._count(inserted)
        done = set(first)
        rest = [key for key in ours if key not in done]
        self.done.updated += self._write_each(rest, lambda part: self._update(part, seen))
        self._exchange(seen)

    def _refuse_taken(self, seen: Seen) -> None:
        statements = self.changes.statements
        scope = self.changes.scope([key for key in seen.here if key in seen.taken])
        for handle, _, _, row in run(self.connection, statements.taken(scope, [])):
            self._rejects.found[handle] = Found(
                "key_taken",
                f"the key is taken in {statements.binding.target} by a row that is not ours",
                field=statements.binding.mapping.target.key,
                colliding_row=row,
            )

    def _update_at_once(self, keys: list[str], seen: Seen) -> bool:
        """Whether no row was refused. If one was, nothing is updated: which of them come first may matter."""
        if not keys:
            return True
        try:
            with self.connection.transaction():
                updated = self._unless_overtaken(lambda: self._update(keys, seen))
        except psycopg.Error as error:
            if not blames_row(error):
                raise
            return False
        self.done.updated += updated
        return True

    def _exchange(self, seen: Seen) -> None:
        """Rows that want each other's place in a unique index: none can be first, so all give theirs up first."""
        late = {key: found for key, found in self._late.items() if found.sqlstate == UNIQUE and key in seen.ours}
        park = self.changes.park(list(late), {found.constraint or "" for found in late.values()})
        if park is None:
            return
        try:
            with self.connection.transaction():
                run(self.connection, park)
                updated = self._update(list(late), seen)
        except psycopg.Error as error:
            if not blames_row(error):
                raise
            return
        self.done.updated += updated
        self._late = {key: found for key, found in self._late.items() if key not in late}

    def _leaving(self, keys: list[str]) -> set[str]:
        statement = self.changes.leaving(keys) if keys else None
        return set() if statement is None else {key for (key,) in run(self.connection, statement)}

    def _update(self, keys: Sequence[str], seen: Seen) -> int:
        if noted := [key for key in keys if key in seen.noted]:
            run(self.connection, self.changes.forget_links(noted, self.migration_id))
        return run(self.connection, self.changes.update(keys, self._waiting(keys, seen))).rowcount

    def _insert(self, keys: Sequence[str], seen: Seen) -> int:
        waiting = self._waiting(keys, seen)
        inserted = run(self.connection, self.changes.statements.insert(self.changes.scope(keys), [], waiting)).rowcount
        if inserted != len(keys):
            target = self.changes.binding.target
            raise self._swallowed(f"Of {len(keys)} rows inserted into {target} only {inserted} arrived")
        return inserted

    @staticmethod
    def _swallowed(what: str) -> Refused:
        return Refused("rows-swallowed", f"{what}; a trigger or rule takes them away.")

    def _waiting(self, keys: Sequence[str], seen: Seen) -> dict[str, list[str]]:
        linked = [key for key in keys if key in seen.links]
        if not linked:
            return {}
        scope = self.changes.scope(keys)
        statement = await_links(self.changes.statements, self.migration_id, scope, linked, Rejects())
        return dict(run(self.connection, statement).fetchall())

    def _write_each(self, keys: Sequence[str], act: Callable[[Sequence[str]], int]) -> int:
        done = self._halving.each(keys, lambda part: self._unless_overtaken(lambda: act(part)), self._obstructed)
        self._untried += done.untried
        for key, error in done.refused.items():
            if error.sqlstate in LATE:
                self._late[key] = refusal(error)
            else:
                self._rejects.found[key] = refusal(error)
        return done.total

    def _unless_overtaken(self, act: Callable[[], int]) -> int:
        try:
            return act()
        except psycopg.errors.UniqueViolation as error:
            if self.changes.is_primary(error.diag.constraint_name):
                raise Overtaken(str(self.changes.binding.target)) from error
            raise

    def _obstructed(self, keys: Sequence[str], error: psycopg.Error) -> set[str]:
        """Of rows that the server has refused together, those that are in the way of the others for the same reason;
        they are late. None where that cannot be told of all at once.
        """
        found = refusal(error)
        statements, scope = self.changes.statements, self.changes.scope(keys)
        if error.sqlstate == FOREIGN_KEY and statements.parent is not None:
            statement: Statement | None = statements.orphans(scope, [])
        elif error.sqlstate == UNIQUE:
            statement = self.changes.taken_by(keys, found.constraint or "")
        else:
            return set()
        if statement is None:
            return set()
        try:
            with self.connection.transaction():
                out = {str(row[0]) for row in run(self.connection, statement)}
        except psycopg.Error as failed:
            if not blames_row(failed):
                raise
            return set()
        self._late.update(dict.fromkeys(out, found))
        return out

    def _quarantine(self, seen: Seen) -> None:
        """What the rules or the server refuse, and what has been late for too long."""
        gone = set(self.gone)
        for key in [key for key in self._late if key in self.tired and key not in gone]:
            self._rejects.found[key] = self._obstacle(key, self._late.pop(key))
        if not self._rejects.quarantined:
            return
        scope = self.changes.scope(seen.here)
        entered = run(
            self.connection,
            self.changes.statements.quarantine(self.migration_id, scope, self._rejects, orphans=False),
        ).fetchall()
        reasons = Counter(self.done.reasons)
        reasons.update(reason for key, reason in entered if key not in seen.held)
        self.done.reasons = dict(reasons)
        new = sum(key not in seen.held for key in self._rejects.handles)
        self.done.quarantined += new
        self._count(0, quarantined=new)

    def _obstacle(self, key: str, found: Found) -> Found:
        """What stands in the way of a row: another row in its place, or the lack of its parent."""
        if found.sqlstate == FOREIGN_KEY:
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

    def _settle(self, seen: Seen) -> None:
        # What is in quarantine for the sake of others, and is tried for that, has its turn there again.
        untried = [key for key in self._untried if not (key in self.tired and key in seen.held)]
        self.done.deferred += put_off(self.connection, self.capture_id, self._late, untried)
        waiting = {*self._late, *self._untried}
        settled = [key for key in (*self.gone, *seen.waiting) if key not in waiting]
        if settled:
            self.connection.execute(query("capture", "settle"), {"capture_id": self.capture_id, "keys": settled})
        refused = set(self._rejects.handles)
        released = [key for key in seen.held if key not in refused and key not in waiting]
        if released:
            self._ask("release", released)
            self.done.released += len(released)

    def _ask(self, name: str, keys: Sequence[str]) -> psycopg.Cursor[Any]:
        return self.connection.execute(query("capture", name), {"migration_id": self.migration_id, "keys": list(keys)})

    def _count(self, moved: int, *, quarantined: int = 0) -> None:
        if not (moved or quarantined):
            return
        values = {"migration_id": self.migration_id, "moved": moved, "adopted": 0, "quarantined": quarantined}
        counted = self.connection.execute(query("backfill", "count_repairs"), {**values, "segment": FOLLOWED})
        if not counted.rowcount:
            # A migration that an older version has begun.
            self.connection.execute(query("backfill", "count_repairs"), {**values, "segment": REPAIRS})


def run(connection: Connection, statement: Statement) -> psycopg.RawCursor[Any]:
    composed, values = statement
    return execute_often(connection, composed, *values)
