"""One migration repaired: its rows are found, gone through in batches, and what became of them is put on record."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg
from psycopg.rows import class_row

from spine_migrate.backfill.pace import Progress
from spine_migrate.backfill.repair_batch import Kept, Mended, Wrong, mend
from spine_migrate.backfill.repair_parts import BUSY, Parts
from spine_migrate.backfill.repaired import NAMED, Options, Repaired
from spine_migrate.backfill.setting import Setting
from spine_migrate.carry import links, references
from spine_migrate.carry.control import Control
from spine_migrate.carry.rows import REPAIRS, Care
from spine_migrate.db import ledger
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute, rows
from spine_migrate.mapping.emit.repair import Repairs, repairs

# Rows to remove for which indexes are built, where none serves the foreign keys; fewer cost less than the building.
WORTH_INDEXES = 100
# Reasons to look at a row once more when the others are done, and seconds before that where somebody holds one.
LATER = ("referenced", BUSY)
BREATH = 1.0


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
            # Whoever moves or removes a row counts it with it, so that a difference stays one whatever they do.
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            with connection.transaction():
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
            self._until_none_moves(kind, rest)

    def _until_none_moves(self, kind: str, rest: list[Wrong]) -> None:
        """Through these rows, and once more through those that are worth it: of rows that pointed to them some have
        gone, or somebody has held them, for whom it waits as for a lost server.
        """
        moved_at = time.monotonic()
        while rest:
            done = self.result.rows[kind]
            put_off = self._through(kind, rest)
            if self.result.rows[kind] > done:
                moved_at = time.monotonic()
            elif not self._worth_waiting(put_off, moved_at):
                for one in put_off:
                    self.result.keep(one)
                return
            keys = {one.key for one in put_off}
            rest = [one for one in rest if one.key in keys]

    def _worth_waiting(self, put_off: list[Kept], since: float) -> bool:
        if not any(one.reason == BUSY for one in put_off) or time.monotonic() - since >= self.options.retry_seconds:
            return False
        return not self.stop.wait(BREATH)

    def _through(self, kind: str, wrong: list[Wrong]) -> list[Kept]:
        """Once through these rows; gives those that may be had later."""
        put_off: list[Kept] = []
        mend = Parts(self.control, self.repairs, self._mend)
        at = 0
        while at < len(wrong):
            batch = wrong[at : at + self.budget.take(self.options.batch_size)]
            if not batch or self.stop.is_set():
                return []
            at += len(batch)
            for mended in mend(kind, batch):
                self.budget.spend(sum(mended.rows.values()))
                put_off += [one for one in mended.kept if one.reason in LATER]
                mended.kept = [one for one in mended.kept if one.reason not in LATER]
                self.result.add(mended)
            self.report(self._progress())
        return put_off

    def _mend(self, part: list[Wrong], care: Care, connection: Connection) -> Mended:
        return mend(connection, self.setting, self.repairs, part, care=care)

    def _serve(self, connection: Connection) -> None:
        """So that the server need not look through a table, for what points to it, once per row that is removed."""
        references.serve(connection, self.setting.tables.target.oid)

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
