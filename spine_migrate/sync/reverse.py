"""The applier of the way back: after a cutover, what is written to the target is brought to the legacy table.

What the legacy table refuses, by a constraint that the target has not, is put off and stays so with the server's words:
nothing of it is lost, and a rollback waits until it is mended. Target rows without a legacy form are not carried; a
legacy row that a target row stood for goes when it has none any more.

Triggers of the application on the legacy table are off as long as this applier writes to it (``cutover.switch``): they
have acted, or not, when the application wrote, and would change what is carried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from spine_migrate.carry.rows import refusal
from spine_migrate.carry.statements import Statement
from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.sync.applier import Applier
from spine_migrate.sync.reversal import Reversal
from spine_migrate.sync.work import Applied, halving, run


@dataclass(frozen=True)
class Reverse(Applier):
    reversal: Reversal

    @property
    def tables(self) -> tuple[Name, Name]:
        return self.reversal.binding.target, self.reversal.legacy

    def work(self, connection: Connection, tired: set[str] | None = None) -> Return:  # noqa: ARG002 - nothing tires
        return Return(connection, self.reversal, self.capture_id)

    def remove_extra(self, connection: Connection, *, limit: int) -> tuple[Applied, bool]:
        removed = run(connection, self.reversal.without_target(limit)).rowcount
        return Applied(deleted=removed), not removed

    def dependent(self, connection: Connection, *, limit: int) -> Applied:  # noqa: ARG002 - as Applier has it
        """Nothing goes to quarantine on the way back."""
        return Applied()


@dataclass
class Return:
    """Target rows of some keys, as legacy rows, in the caller's transaction."""

    connection: Connection
    reversal: Reversal
    capture_id: int
    done: Applied = field(default_factory=Applied)
    gone: list[str] = field(default_factory=list)
    _refused: dict[str, psycopg.Error] = field(default_factory=dict)

    def apply(self, keys: Sequence[str]) -> None:
        """Rows that are gone first, then changes, then new rows; once more as long as that makes room for others."""
        keys = list(dict.fromkeys(keys))
        if not keys:
            return
        self.done.keys += len(keys)
        # What a constraint of the legacy table puts off until the commit would be blamed on no row there, and keep a
        # switch from altering the table.
        self.connection.execute(query("capture", "immediate"))
        found = dict(run(self.connection, self.reversal.present(keys)).fetchall())
        waiting = [
            (self.reversal.delete, "deleted", [key for key in keys if key not in found]),
            (self.reversal.update, "updated", [key for key, there in found.items() if there]),
            (self.reversal.insert, "inserted", [key for key, there in found.items() if not there]),
        ]
        before = None
        while before is None or 0 < len(self._refused) < before:
            before = len(self._refused) or len(keys) + 1
            self._refused.clear()
            waiting = [(make, name, self._each(make, name, part)) for make, name, part in waiting]
        self._settle(keys)

    def _each(self, make: Callable[[Sequence[str]], Statement], name: str, keys: list[str]) -> list[str]:
        """Those that were refused."""
        rows, refused = halving(self.connection, keys, lambda part: run(self.connection, make(part)).rowcount)
        setattr(self.done, name, getattr(self.done, name) + rows)
        self._refused.update(refused)
        return list(refused)

    def _settle(self, keys: list[str]) -> None:
        late = list(self._refused)
        if late:
            details = [refusal(error).detail for error in self._refused.values()]
            values = {"capture_id": self.capture_id, "keys": late, "details": details}
            self.connection.execute(query("capture", "put_off"), values)
            self.done.deferred += len(late)
        settled = [key for key in keys if key not in self._refused]
        self.connection.execute(query("capture", "settle"), {"capture_id": self.capture_id, "keys": settled})
        ((released,),) = run(self.connection, self.reversal.release(settled)).fetchall()
        self.done.released += released
