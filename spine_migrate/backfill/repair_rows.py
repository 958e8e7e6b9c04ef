"""One migration repaired: its rows are found, gone through in batches, and what became of them is put on record."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import psycopg
from psycopg.rows import class_row

from spine_migrate.backfill.pace import Progress
from spine_migrate.backfill.repair_batch import Kept, Mended, Wrong, mend
from spine_migrate.backfill.repaired import NAMED, Options, Repaired
from spine_migrate.backfill.setting import Setting
from spine_migrate.carry import links, references
from spine_migrate.carry.control import Control
from spine_migrate.carry.rows import REPAIRS, Care, refusal
from spine_migrate.db import ledger
from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import blames_row
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute, rows
from spine_migrate.mapping.emit.repair import Repairs, repairs

# Rows to remove for which indexes are built, where none serves the foreign keys; fewer cost less than the building.
WORTH_INDEXES = 100


def beyond(connection: Connection, made: Repairs, result: Repaired) -> None:
    """What no repair can settle: which of two rows is right, or what became of a row that is only in quarantine."""
    ((entries, discarded),) = [
        (row["entries"], row["discarded"])
        for row in rows(connection, made.gone(), result.migration_id, 0)
        if row["entries"] is not None
    ]
    if entries - discarded:
        result.found["gone"] = entries - discarded
    for source in (True, False):
        for key, _, _ in execute(connection, made.duplicates(source=source), result.migration_id, NAMED):
            result.keep(Kept("duplicate", f"target {key}", "duplicate"))


@dataclass
class Budget:
    rows: int | None

    def take(self, wanted: int) -> int:
        return wanted if self.rows is None else min(wanted, self.rows)

    def spend(self, count: int) -> None:
        if self.rows is not None:
            self.rows -= count


@dataclass
class Repairing:
    control: Control
    setting: Setting
    options: Options
    stop: threading.Event
    report: Callable[[Progress], None]
    budget: Budget
    result: Repaired = field(init=False)
    repairs: Repairs = field(init=False)
    began: float = field(default_factory=time.monotonic)
    looked: bool = False

    def __post_init__(self) -> None:
        tables = self.setting.tables
        self.result = Repaired(tables.binding.mapping.name, self.setting.migration_id)
        self.repairs = repairs(tables.binding, tables.target.columns)

    def recount(self) -> None:
        """Let the ledger count what is on the target, so that each batch can keep it so by what it adds and removes."""
        self.result.recounted += self.control.retried(self._recount)

    def _recount(self, connection: Connection) -> int:
        migration_id = self.result.migration_id
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            ((ours, _),) = execute(connection, self.repairs.target_counts()).fetchall()
            values = {"migration_id": migration_id}
            ((moved, adopted, _),) = connection.execute(query("backfill", "counts"), values).fetchall()
            off = int(ours - moved - adopted)
            if off:
                counted = {**values, "segment": REPAIRS, "moved": off, "adopted": 0, "quarantined": 0}
                connection.execute(query("backfill", "count_repairs"), counted)
                ledger.audit(connection, "counted anew", migration_id=migration_id, before=moved + adopted, now=ours)
        return off

    def run(self, kinds: Sequence[str]) -> None:
        """Find what is wrong, and repair rows of these kinds."""
        if not kinds or self.stop.is_set():
            return
        self.control.retried(self._complete_links)
        wrong = self.control.retried(self._look)
        self.result.found.update(one.kind for one in wrong if one.kind in kinds)
        for one in [one for one in wrong if one.kind == "doubled" and not self.looked]:
            self.result.found["doubled"] += 1
            self.result.keep(Kept("doubled", one.key, "doubled"))
        self.looked = True
        for kind in kinds:
            rest = [one for one in wrong if one.kind == kind]
            if kind == "extra" and len(rest) > WORTH_INDEXES:
                self.control.retried(self._serve)
            while rest:
                rest = self._through(kind, rest)

    def _through(self, kind: str, wrong: list[Wrong]) -> list[Wrong]:
        """Once through these rows; gives those to try again: of rows that pointed to them, some have gone."""
        referenced: list[Kept] = []
        done = self.result.rows[kind]
        at = 0
        while at < len(wrong):
            batch = wrong[at : at + self.budget.take(self.options.batch_size)]
            if not batch or self.stop.is_set():
                return []
            at += len(batch)
            for mended in self._batch(kind, batch):
                self.budget.spend(sum(mended.rows.values()))
                referenced += [one for one in mended.kept if one.reason == "referenced"]
                mended.kept = [one for one in mended.kept if one.reason != "referenced"]
                self.result.add(mended)
            self.report(self._progress())
        if referenced and self.result.rows[kind] > done:
            keys = {one.key for one in referenced}
            return [one for one in wrong if one.key in keys]
        for one in referenced:
            self.result.keep(one)
        return []

    def _batch(self, kind: str, batch: list[Wrong]) -> Iterator[Mended]:
        """Halves where the server refuses a row, until the row at fault stands alone."""
        parts = [(batch, Care(orphans=True, collisions=True))]
        while parts:
            part, care = parts.pop()
            try:
                yield self.control.retried(partial(self._mend, part, care))
            except psycopg.Error as error:
                if not blames_row(error):
                    raise
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [(part[middle:], care), (part[:middle], care)]
                elif kind == "missing" and care.refused is None:
                    parts.append((part, replace(care, refused=refusal(error))))
                else:
                    about = " ".join(filter(None, (error.sqlstate, error.diag.constraint_name)))
                    yield Mended(kept=[Kept(kind, part[0].key, "server_refused", about)])

    def _mend(self, part: list[Wrong], care: Care, connection: Connection) -> Mended:
        return mend(connection, self.setting, self.repairs, part, care=care)

    def _serve(self, connection: Connection) -> None:
        """So that the server need not look through a table, for what points to it, once per row that is removed."""
        found = references.references(connection, self.setting.tables.target.oid)
        references.build(connection, references.needed(found))

    def _look(self, connection: Connection) -> list[Wrong]:
        cursor = psycopg.RawCursor(connection, row_factory=class_row(Wrong))
        return cursor.execute(self.repairs.found(), (self.result.migration_id,), prepare=False).fetchall()

    def _complete_links(self, connection: Connection) -> None:
        """A link that is open although its row is there is completed, as a run would do it."""
        binding = self.setting.tables.binding
        links.complete(connection, binding, self.result.migration_id, everything_moved=True)

    def end(self) -> Repaired:
        """Complete what waits for rows that came, count what no repair can settle, and put it on record."""
        self.control.retried(self._complete_links)
        self.control.retried(lambda connection: beyond(connection, self.repairs, self.result))
        self.control.retried(lambda connection: references.clear(connection, self.setting.tables.target.oid))
        self.control.retried(self._audit)
        return self.result

    def _audit(self, connection: Connection) -> None:
        result = self.result
        if result.found:
            ledger.audit(
                connection,
                "repaired",
                migration_id=result.migration_id,
                rows=dict(result.rows),
                fields=dict(result.fields),
                kept=dict(result.kept),
            )

    def _progress(self) -> Progress:
        done, found = sum(self.result.rows.values()), sum(self.result.found.values())
        return Progress(
            mapping=self.result.mapping,
            stage="repair",
            blocks=done,
            total_blocks=max(found, done),
            rows=done,
            moved=done,
            quarantined=self.result.rows["quarantined"],
            accounted=done,
            batches=0,
            seconds=time.monotonic() - self.began,
        )
