"""Which locks a step takes on tables that others use, whom they keep waiting, and who is in the way of them now.

What a step takes is said by the stage that takes it (``sync.explain``, ``cutover.explain``), and put together by the
command line. Locks that everybody takes who reads or writes rows are left out: nobody waits for those but DDL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spine_migrate.db.catalog import Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.lock_holders import Holder, in_the_way
from spine_migrate.db.lock_modes import LockMode
from spine_migrate.plan.model import Finding, Unknown

MOMENT = "until the commit, some ten milliseconds"


@dataclass(frozen=True)
class Taking:
    """A lock on one table, and the statements that take it or run under it. ``asks``: the first of them, which waits;
    ``under``: the others. ``lock_timeout`` in milliseconds, None where it may wait for longer, as nobody who reads or
    writes waits behind it. ``behind``: the mode whose holders it waits for where that is not ``mode``: building an
    index concurrently waits for writers without keeping them away.
    """

    stage: str
    table: Name
    mode: LockMode
    asks: str
    under: tuple[str, ...]
    held: str
    lock_timeout: int | None
    behind: LockMode | None = None

    @property
    def waits_for(self) -> LockMode:
        return self.behind or self.mode

    def as_json(self) -> dict[str, Any]:
        return {
            "stage": self.stage,
            "table": str(self.table),
            "mode": self.mode.value,
            "stops": list(self.mode.stops),
            "statements": [self.asks, *self.under],
            "held": self.held,
            "lock_timeout": self.lock_timeout,
        }


@dataclass(frozen=True)
class Locking:
    """``blocks``: why a step would be refused before it takes any lock. ``unknown``: what this role may not look at."""

    takings: tuple[Taking, ...]
    in_the_way: tuple[Holder, ...]
    blocks: tuple[Finding, ...] = ()
    unknown: tuple[Unknown, ...] = ()

    @property
    def ready(self) -> bool:
        return not self.blocks

    def as_json(self) -> dict[str, Any]:
        return {
            "locks": [one.as_json() for one in self.takings],
            "in_the_way": [_as_json(one) for one in self.in_the_way],
            "blocks": [asdict(one) for one in self.blocks],
            "unknown": [asdict(one) for one in self.unknown],
        }


def locking(
    connection: Connection,
    takings: Iterable[Taking],
    blocks: Sequence[Finding] = (),
    unknown: Sequence[Unknown] = (),
) -> Locking:
    """With whoever stands in the way at this moment, those with the oldest transactions first. Reads only."""
    asked = tuple(takings)
    holders = in_the_way(connection, [(one.table, one.waits_for) for one in asked])
    return Locking(asked, tuple(holders), tuple(blocks), tuple(unknown))


def _as_json(one: Holder) -> dict[str, Any]:
    found = {name: value for name, value in asdict(one).items() if name not in ("schema", "table_name")}
    return {"table": str(one.table), **found, "mode": one.lock_mode.value}
