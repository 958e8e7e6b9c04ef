"""Finding, before an insert, the rows of a batch whose key or unique values are taken.

Only a batch that has failed on a constraint pays for this, and those that follow it in the same segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from spine_migrate.carry.scope import Parameters, Scope
from spine_migrate.carry.statements import Found, Rejects, Statements
from spine_migrate.db.catalog import UniqueIndex
from spine_migrate.db.connect import Connection
from spine_migrate.db.raw import execute, rows
from spine_migrate.db.row_shape import Filled
from spine_migrate.mapping.emit import unique


@dataclass(frozen=True)
class Guard:
    """What the target watches over: its unique indexes, and the shape of its rows that their expressions speak of.
    ``primary``: names of the primary key's index, those of partitions included.
    """

    indexes: list[UniqueIndex]
    shape: tuple[Filled, ...]
    primary: frozenset[str] = frozenset()


@dataclass(frozen=True)
class CollisionSearch:
    """Looks through one scope; what it finds goes into ``rejects``, and what is in there is not looked at again.

    ``live``: changes are captured. A row of ours that is not as it should be is then handed over to the applier; and so
    is one whose place is taken, which may be free by the time the applier has come as far.
    """

    connection: Connection
    statements: Statements
    guard: Guard
    scope: Scope
    rejects: Rejects
    live: bool = False

    def run(self) -> None:
        """Keys first, then the indexes. Rows that are ours and as they should be already are adopted."""
        self._taken_keys()
        # What the target refuses is out before rivals are weighed: who cannot move keeps nobody else from moving.
        for index in self.guard.indexes:
            self._taken_values(index)
        for index in self.guard.indexes:
            self._rivals(index)

    def _taken_keys(self) -> None:
        target = self.statements.binding.target
        composed, values = self.statements.taken(self.scope, self.rejects.handles)
        for handle, ours, same, row in execute(self.connection, composed, *values):
            if ours and same:
                self.rejects.adopted.append(handle)
                continue
            if ours and self.live:
                # Its change may be in the log; but an earlier migration may have left it as it is.
                self.rejects.handed[handle] = "its row on the target is not as it should be"
                continue
            whose = "was moved before and has changed since" if ours else "is not ours"
            self.rejects.found[handle] = Found(
                "key_taken",
                f"the key is taken in {target} by a row that {whose}",
                field=self.statements.binding.mapping.target.key,
                colliding_row=row,
            )

    def _taken_values(self, index: UniqueIndex) -> None:
        parameters = Parameters()
        query = unique.with_target(self.statements.binding, index, self._candidates(parameters))
        key = self.statements.binding.mapping.target.key
        for found in rows(self.connection, query, *parameters.values):
            detail = f"{index.name} is taken by {key} {found['colliding_key']}"
            self._reject(found, index, detail, found["colliding_row"])

    def _rivals(self, index: UniqueIndex) -> None:
        """Of the rows of one batch that want the same place the first gets it."""
        parameters = Parameters()
        query = unique.within(self.statements.binding, index, self._candidates(parameters))
        for found in rows(self.connection, query, *parameters.values):
            detail = f"{index.name} is taken by source row {found['first_key']}, which came first"
            self._reject(found, index, detail, rival=found["first_key"])

    def _reject(
        self, found: dict[str, Any], index: UniqueIndex, detail: str, row: str | None = None, rival: str | None = None
    ) -> None:
        handle = str(found["tid"] if self.scope.handle_type == "tid" else found["source_key"])
        if self.live:
            self.rejects.handed[handle] = detail
            return
        self.rejects.found[handle] = Found(
            "unique_conflict", detail, sqlstate="23505", constraint=index.name, colliding_row=row, rival=rival
        )

    def _candidates(self, parameters: Parameters) -> sql.Composed:
        condition = self.scope.without("s", self.rejects.handles, parameters)
        return unique.candidates(self.statements.binding, self.scope.table("s"), condition, self.guard.shape)
