"""Differences between two servers are told once they have stood for a while.

The snapshots of two servers are not of one moment: a row that is written on both may have been seen on one only.
So the suspects are looked at again in new snapshots. One that agrees by then was no difference. One that is the same on
both sides as the time before, and differs, is a difference, and is attributed in the very snapshots in which that was
seen. One that goes on changing is neither, and is counted as unsettled. So are all that are left where the ledger does:
which rows are in quarantine and which links are open was read once, in the first snapshot.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import islice

from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.carried import fingerprints
from spine_migrate.parity import rows
from spine_migrate.parity.apart import Apart
from spine_migrate.parity.model import Difference
from spine_migrate.parity.rows import Found, Keys
from spine_migrate.parity.tables import Tables

# Keys whose fingerprints are fetched at once, and rows that are carried over at once, whatever they weigh.
_KEYS, _ROWS = 10_000, 500
# What has not settled after these seconds, and as many rounds, is given up.
PATIENCE, _ROUNDS = 60.0, 3


@dataclass(frozen=True)
class Group:
    """The rows of one target key on both sides, by their hashes; ``target`` is None for a legacy row without one."""

    target: str | None
    sources: tuple[str, ...]
    old: tuple[int, ...]
    new: tuple[int, ...]

    @property
    def agrees(self) -> bool:
        return self.target is not None and Counter(self.old) == Counter(self.new)

    @property
    def name(self) -> tuple[str, ...]:
        return ("", *self.sources) if self.target is None else (self.target,)

    def keys(self) -> Keys:
        return Keys(list(self.sources), [] if self.target is None else [self.target])


@dataclass
class Settled:
    """``agreed`` groups of rows agreed when they were looked at again, ``unsettled`` went on changing."""

    found: Found = field(default_factory=Found)
    differences: list[Difference] = field(default_factory=list)
    agreed: int = 0
    unsettled: int = 0


@dataclass(frozen=True)
class Settling:
    """``afresh`` gives the tables in new snapshots. A difference must have stood for ``seconds``."""

    tables: Tables
    legacy: list[str]
    afresh: Callable[[], AbstractContextManager[Tables]]
    named: int
    finished: bool
    seconds: float

    def run(self, suspects: Iterable[Keys]) -> Settled:
        settled, given_up = Settled(), time.monotonic() + PATIENCE + self.seconds
        before = {group.name: group for group in self._groups(self.tables, suspects)}
        rounds = 0
        while before:
            rounds += 1
            if rounds > _ROUNDS and time.monotonic() >= given_up:
                settled.unsettled = len(before)
                break
            time.sleep(self.seconds)
            with self.afresh() as tables:
                if tables.noted() != self.tables.noted():
                    settled.unsettled = len(before)
                    break
                now = list(self._groups(tables, (group.keys() for group in before.values())))
                standing = [group for group in now if not group.agrees and before.get(group.name) == group]
                self._look(tables, standing, settled)
            settled.agreed += sum(1 for group in now if group.agrees)
            told = {group.name for group in standing}
            before = {group.name: group for group in now if not group.agrees and group.name not in told}
        return settled

    def _groups(self, tables: Tables, suspects: Iterable[Keys]) -> Iterator[Group]:
        for chunk in _merged(suspects, _KEYS):
            apart = Apart(tables, self.legacy)
            sources = {*chunk.source, *(source for _, source in apart.led_to(chunk.target))}
            old = execute(
                tables.source.connection,
                fingerprints(tables.legacy_side, source=True),
                self.legacy,
                list(sources),
            ).fetchall()
            targets = {*chunk.target, *(target for _, target, _, _ in old if target is not None)}
            statement = fingerprints(tables.parity, source=False)
            new = execute(tables.connection, statement, tables.migration_id, list(targets)).fetchall()
            legacy: dict[str, list[tuple[str, int]]] = {}
            for _, target, source, hashed in old:
                if target is None:
                    yield Group(None, (source,), (hashed,), ())
                else:
                    legacy.setdefault(target, []).append((source, hashed))
            ours: dict[str, list[int]] = {}
            for _, target, _, hashed in new:
                ours.setdefault(target, []).append(hashed)
            for target in sorted({*legacy, *ours}):
                of_target = sorted(legacy.get(target, []))
                yield Group(
                    target,
                    tuple(source for source, _ in of_target),
                    tuple(hashed for _, hashed in of_target),
                    tuple(sorted(ours.get(target, []))),
                )

    def _look(self, tables: Tables, standing: list[Group], settled: Settled) -> None:
        apart, found = Apart(tables, self.legacy), settled.found
        parts = (apart.part(chunk, 3) for chunk in _merged((group.keys() for group in standing), _ROWS))
        left = self.named - len(found.pairs)
        more = rows.look(
            tables.connection, tables.parity, tables.migration_id, max(left, 0), finished=self.finished, parts=parts
        )
        for mine, theirs in (
            (found.kinds, more.kinds),
            (found.linked, more.linked),
            (found.stale, more.stale),
        ):
            mine.update(theirs)
        found.fields.update(more.fields)
        found.pairs.extend(more.pairs)
        settled.differences.extend(
            rows.differences(tables.connection, tables.parity, tables.migration_id, more, source=apart)
        )


def _merged(groups: Iterable[Keys], size: int) -> Iterator[Keys]:
    """Groups of keys put together, none torn apart."""
    left = iter(groups)
    while some := list(islice(left, size)):
        yield Keys([key for one in some for key in one.source], [key for one in some for key in one.target])
