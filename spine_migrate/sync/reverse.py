"""The applier of the way back: after a cutover, what is written to the target is brought to the legacy table.

What the legacy table refuses, by a constraint that the target has not, is put off and stays so with the server's words:
nothing of it is lost, and a rollback waits until it is mended. Target rows without a legacy form are not carried; a
legacy row that a target row stood for goes when it has none any more, and the legacy rows that refer to it with it.

Triggers of the application on the legacy table are off as long as this applier writes to it (``cutover.switch``): they
have acted, or not, when the application wrote, and would change what is carried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from spine_migrate.carry.rows import UNIQUE, refusal
from spine_migrate.db import catalog
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import blames_row
from spine_migrate.db.queries import query
from spine_migrate.sync.applier import Applier, Extra
from spine_migrate.sync.children import Children
from spine_migrate.sync.halving import Halving
from spine_migrate.sync.late import put_off
from spine_migrate.sync.reversal import Reversal
from spine_migrate.sync.work import Applied, run


@dataclass(frozen=True)
class Reverse(Applier):
    reversal: Reversal
    children: tuple[Children, ...] = ()

    @property
    def tables(self) -> tuple[Name, Name]:
        return self.reversal.binding.target, self.reversal.legacy

    def work(self, connection: Connection, tired: set[str] | None = None) -> Return:  # noqa: ARG002 - nothing tires
        return Return(connection, self.reversal, self.capture_id, self.children)

    def extra_rows(self, connection: Connection, *, limit: int, after: str | None) -> list[Extra]:
        statement = self.reversal.without_target(self.capture_id, limit, after)
        return [(key, key) for (key,) in run(connection, statement)]

    def remove_extra(self, connection: Connection, extra: Sequence[Extra]) -> Applied:
        keys = [key for key, _ in extra]
        done = Halving(connection).each(keys, lambda part: run(connection, self.reversal.remove(part)).rowcount)
        late = {key: refusal(error) for key, error in done.refused.items()}
        return Applied(deleted=done.total, deferred=put_off(connection, self.capture_id, late, done.untried))

    def none_extra(self, connection: Connection) -> None:
        """A legacy row that is gone has left quarantine with its target row."""

    def dependent(self, connection: Connection, *, limit: int, held: bool = False) -> Applied:  # noqa: ARG002 - as Applier has it
        """Nothing goes to quarantine on the way back."""
        return Applied()


@dataclass
class Return:
    """Target rows of some keys, as legacy rows, in the caller's transaction."""

    connection: Connection
    reversal: Reversal
    capture_id: int
    children: tuple[Children, ...] = ()
    done: Applied = field(default_factory=Applied)
    gone: list[str] = field(default_factory=list)
    _errors: dict[str, psycopg.Error] = field(default_factory=dict)
    _halving: Halving = field(init=False)

    def __post_init__(self) -> None:
        self._halving = Halving(self.connection)

    def apply(self, keys: Sequence[str]) -> None:
        """Rows that are gone first, then changes, then new rows; once more as long as that makes room for others. Of
        more than can be looked into those that come first have their turn.
        """
        keys = list(dict.fromkeys(keys))
        if not keys:
            return
        self.done.keys += len(keys)
        found = dict(run(self.connection, self.reversal.present(keys)).fetchall())
        leaving = [key for key in keys if key not in found]
        coming = [key for key in keys if found.get(key) is False]
        waiting = [
            (self._delete, "deleted", leaving),
            (self._update, "updated", [key for key in keys if found.get(key)]),
            (self._insert, "inserted", coming),
        ]
        for one in self.children if leaving else ():
            run(self.connection, one.leave(leaving))
        left, before = len(keys), len(keys) + 1
        while 0 < left < before and not self._halving.tired:
            waiting = [(act, name, self._each(act, name, part)) for act, name, part in waiting]
            left, before = sum(len(part) for _, _, part in waiting), left
        late = {key for _, _, part in waiting for key in part}
        late -= self._exchange([key for _, name, part in waiting if name == "updated" for key in part])
        come = [key for key in coming if key not in late]
        for one in self.children if come else ():
            run(self.connection, one.come(come))
        self._settle(keys, late)

    def _delete(self, keys: Sequence[str]) -> int:
        for one in self.children:
            run(self.connection, one.leave_quarantined(keys))
        return run(self.connection, self.reversal.delete(keys)).rowcount

    def _update(self, keys: Sequence[str]) -> int:
        return run(self.connection, self.reversal.update(keys)).rowcount

    def _insert(self, keys: Sequence[str]) -> int:
        rows = run(self.connection, self.reversal.insert(keys)).rowcount
        for one in self.children:
            run(self.connection, one.come_quarantined(keys))
        return rows

    def _each(self, act: Callable[[Sequence[str]], int], name: str, keys: list[str]) -> list[str]:
        """Those that were not written."""
        done = self._halving.each(keys, act)
        setattr(self.done, name, getattr(self.done, name) + done.total)
        self._errors.update(done.refused)
        return [*done.refused, *done.untried]

    def _exchange(self, keys: list[str]) -> set[str]:
        """Rows that want each other's place in a unique index: none can be first, so all give theirs up first. Those
        that have what they want now.
        """
        errors = {key: self._errors[key] for key in keys if key in self._errors}
        names = {key: error.diag.constraint_name for key, error in errors.items() if error.sqlstate == UNIQUE}
        if not names:
            return set()
        every = catalog.unique_indexes(self.connection, self.reversal.form.definition.oid)
        park = self.reversal.park(list(names), [index for index in every if index.name in names.values()])
        if park is None:
            return set()
        try:
            with self.connection.transaction():
                run(self.connection, park)
                updated = run(self.connection, self.reversal.update(list(names))).rowcount
        except psycopg.Error as error:
            if not blames_row(error):
                raise
            return set()
        self.done.updated += updated
        return set(names)

    def _settle(self, keys: list[str], late: set[str]) -> None:
        refused = {key: refusal(self._errors[key]) for key in keys if key in late and key in self._errors}
        untried = [key for key in keys if key in late and key not in self._errors]
        self.done.deferred += put_off(self.connection, self.capture_id, refused, untried)
        settled = [key for key in keys if key not in late]
        self.connection.execute(query("capture", "settle"), {"capture_id": self.capture_id, "keys": settled})
        ((released,),) = run(self.connection, self.reversal.release(settled)).fetchall()
        self.done.released += released
