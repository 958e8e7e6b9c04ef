"""Undo: what a migration moved is taken off the target again, and what something else has touched is left and named.

The step ``undoing`` is committed first, so that no run and no retry comes in between and the same command goes on after
a kill. While rows are left, the migration stays in that step and its ledger counts them; it is undone when none is
left, or when the operator says so. An undone migration keeps its own row and its audit, and a new one can begin.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg

from spine_migrate.backfill.pace import Progress
from spine_migrate.backfill.takeback import Left, Takeback
from spine_migrate.backfill.undo_plan import NAMED, Undone, held_by, members_of, takeback_of
from spine_migrate.carry import references
from spine_migrate.carry.control import Control
from spine_migrate.carry.known import Known, ask, held
from spine_migrate.carry.references import Reference
from spine_migrate.db import catalog, key_indexes, ledger
from spine_migrate.db.catalog import Leaf, Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import HOT, explained, is_among
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused
from spine_migrate.mapping.model import Mapping
from spine_migrate.notices import NOBODY, Observer, Transition

# Blocks of the source in a batch: some ten thousand rows, about a second.
BLOCKS = 400
_END = "(4294967295,65535)"
# How often a batch is judged again because of rows that came to point to its rows meanwhile.
_PATIENCE = 3


@dataclass(frozen=True)
class Options:
    """``leave`` ends the undo although rows are left. ``wait`` waits for a run of the same migration instead of
    refusing; ``retry_seconds`` is how long a fault of the server is outlived.
    """

    leave: bool = False
    wait: bool = False
    retry_seconds: float = 60.0


def undo(
    url: str | None,
    *,
    mappings: Sequence[Mapping] = (),
    options: Options,
    stop: threading.Event,
    report: Callable[[Progress], None],
    cancel: threading.Event | None = None,
    observer: Observer = NOBODY,
) -> list[Undone]:
    """Undo the migrations of ``mappings``, or all; those whose rows point to others first.

    ``stop`` ends it after the batch in flight, ``cancel`` cancels that too; ``observer`` may veto. Raises
    ConfigurationError; Refused: ``cut-over``, ``children-first``, ``mapping-changed``, ``offline-unfinished``,
    ``index-missing``, ``already-running``; Drift, Interrupted, ServerFault.
    """
    results: list[Undone] = []
    try:
        with held(
            url,
            lambda connection: members_of(connection, mappings),
            stop=stop,
            cancel=cancel,
            retry_seconds=options.retry_seconds,
            wait=options.wait,
        ) as (_, members, controls):
            ask(observer, members, "undo")
            for one in members:
                number = one.migration.migration_id
                if stop.is_set():
                    results.append(Undone(one.mapping.name, number, "interrupted", 0))
                else:
                    results.append(_Undoing(controls[number], one, options, stop, report, observer).run())
    except psycopg.Error as error:
        raise explained(error) from error
    return results


@dataclass
class _Undoing:
    control: Control
    known: Known
    options: Options
    stop: threading.Event
    report: Callable[[Progress], None]
    observer: Observer
    removed: int = 0
    judged: tuple[Connection, Takeback] | None = None

    def run(self) -> Undone:
        began = time.monotonic()
        self.control.retried(self._begin)
        migration, subject = self.known.migration, self.known.subject
        if migration.step != "undoing":
            self.observer.notice(Transition(subject, migration.step, "undoing"))
        built: list[Reference] = []
        while True:
            going, left, examples = self.control.retried(self._judge)
            if not going or self.stop.is_set():
                break
            built = built or self.control.retried(self._serve)
            removed = self.removed
            self._pass(began)
            if self.removed == removed and not self.stop.is_set():
                raise Refused(
                    "rows-kept",
                    f"{going} rows of {self.known.tables.target.name} that nothing has touched cannot be removed; "
                    f"a trigger or rule keeps them.",
                )
        entries = self.control.retried(lambda connection: held_by(connection, self.known))
        state = "interrupted" if going else "left" if left and not self.options.leave else "undone"
        if state != "interrupted":
            self.control.retried(self._unserve)
            self.control.retried(lambda connection: self._end(connection, state, left, entries))
            if state == "undone":
                self.control.retried(self._drop_key_indexes)
                self.observer.notice(Transition(subject, "undoing", "undone", ends="undo"))
        return Undone(
            self.known.mapping.name,
            self.known.migration.migration_id,
            state,
            self.removed,
            left,
            examples,
            entries,
            [one.build().as_string(None) for one in built],
            time.monotonic() - began,
        )

    def _begin(self, connection: Connection) -> None:
        migration = self.known.migration
        with connection.transaction():
            if migration.step != "undoing":
                ledger.set_step(connection, migration.migration_id, "undoing")
                ledger.audit(connection, "undo started", migration_id=migration.migration_id, step=migration.step)

    def _found(self, connection: Connection) -> list[Reference]:
        return references.references(connection, self.known.tables.target.oid)

    def _serve(self, connection: Connection) -> list[Reference]:
        return references.serve(connection, self.known.tables.target.oid)

    def _unserve(self, connection: Connection) -> None:
        references.drop(connection, self.known.tables.target.oid, self.known.migration.migration_id)

    def _drop_key_indexes(self, connection: Connection) -> None:
        """Of a cutover that was rolled back, or given up."""
        key_indexes.drop_all(connection, self.known.tables.target, self.known.migration.migration_id)

    def _judge(self, connection: Connection) -> tuple[int, dict[str, int], list[Left]]:
        found = self._found(connection)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            takeback = takeback_of(connection, self.known, found)
            takeback.judge(connection)
            going, left = takeback.counts(connection)
            examples = takeback.examples(connection, NAMED)
        self.judged = (connection, takeback)
        return going, left, examples

    def _pass(self, began: float) -> None:
        """Through the source once, in physical order."""
        leaves = self.control.retried(lambda connection: catalog.leaves(connection, self.known.tables.source.oid))
        total = sum(max(leaf.blocks, 1) for leaf in leaves)
        before = 0
        for leaf in leaves:
            for low in range(0, max(leaf.blocks, 1), BLOCKS):
                if self.stop.is_set():
                    return
                high = low + BLOCKS
                self._remove(leaf, low, min(high, max(leaf.blocks, 1)))
                self.report(self._progress(before + min(high, max(leaf.blocks, 1)), total, began))
            before += max(leaf.blocks, 1)

    def _remove(self, leaf: Leaf, low: int, high: int) -> None:
        """The rows of some blocks, in halves where others write them at the same time; those of a single one are held
        then.
        """
        parts = [(low, high, False)]
        while parts:
            low, high, is_held = parts.pop()
            up_to = f"({high},0)" if high < leaf.blocks else _END
            try:
                self._batch(leaf.name, f"({low},0)", up_to, held=is_held)
            except psycopg.Error as error:
                if is_held or not is_among(error, HOT):
                    raise
                middle = (low + high) // 2
                parts += [(middle, high, False), (low, middle, False)] if high - low > 1 else [(low, high, True)]

    def _batch(self, leaf: Name, after: str, up_to: str, *, held: bool) -> None:
        """One batch. Where a row has come to point to its rows since they were judged, they are judged again."""

        def batch(connection: Connection) -> int:
            # The judgement is in a temporary table, which is lost with its connection.
            if self.judged is None or self.judged[0] is not connection:
                self._judge(connection)
            if self.judged is None:
                raise Refused("not-judged", f"{self.known.mapping.name} was not judged; run the same command again.")
            return self.judged[1].batch(connection, leaf, after, up_to, held=held)

        refused: psycopg.errors.ForeignKeyViolation | None = None
        for _ in range(_PATIENCE):
            try:
                self.removed += self.control.retried(batch, but=() if held else HOT)
            except psycopg.errors.ForeignKeyViolation as error:
                refused = error
                self.judged = None
            else:
                return
        raise Refused(
            "still-referenced",
            f"Rows that point to rows of {self.known.tables.target.name} keep coming "
            f"({refused.diag.constraint_name if refused else ''}); stop what writes them, then run the command again.",
        ) from refused

    def _progress(self, blocks: int, total: int, began: float) -> Progress:
        return Progress(
            mapping=self.known.mapping.name,
            stage="undo",
            blocks=blocks,
            total_blocks=total,
            rows=self.removed,
            moved=0,
            quarantined=0,
            accounted=self.removed,
            batches=0,
            seconds=time.monotonic() - began,
            blocks_done=blocks,
        )

    def _end(self, connection: Connection, state: str, left: dict[str, int], held: dict[str, int]) -> None:
        migration_id = self.known.migration.migration_id
        with connection.transaction():
            if state == "undone":
                for name in ("forget_quarantine", "forget_links", "forget_deferred", "forget_checkpoints"):
                    connection.execute(query("undo", name), {"migration_id": migration_id})
                ledger.set_step(connection, migration_id, "undone")
            action = "undone" if state == "undone" else "undo left rows"
            rows = self.removed
            ledger.audit(connection, action, migration_id=migration_id, rows=rows, left=left, quarantined=held)
