"""A worker: takes segments one after another and runs their batches, through errors and lost connections."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Collection
from dataclasses import replace

import psycopg
import tenacity

from spine_migrate.backfill.batch import Batches, Rewritten
from spine_migrate.backfill.pace import Pace
from spine_migrate.backfill.sizing import Sizer
from spine_migrate.carry.rows import FOREIGN_KEY, UNIQUE, Care, Done, refusal
from spine_migrate.db.cancelling import cancel
from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import HOT, blames_row, explained, is_among, is_lost, is_transient, retrying
from spine_migrate.db.ledger import Checkpoint
from spine_migrate.db.queries import query
from spine_migrate.errors import ServerFault

# A guess of rows per block, before the first batch has counted them.
DENSITY = 16.0


class Worker:
    """Owns one connection. ``open_connection`` makes a new one whenever the old one is lost; ``opened`` is told the id
    of its server process.
    """

    def __init__(
        self,
        batches: Batches,
        open_connection: Callable[[], Connection],
        pace: Pace,
        *,
        fixed_rows: int | None,
        retry_seconds: float,
        opened: Callable[[int], None],
    ) -> None:
        self._batches = batches
        self._open = open_connection
        self._pace = pace
        self._retry_seconds = retry_seconds
        self._opened = opened
        self._sizer = Sizer(fixed_rows)
        self._density = DENSITY
        self._care = Care()
        self._connection: Connection | None = None

    def run(self, segments: queue.SimpleQueue[Checkpoint]) -> None:
        """Until there is no segment left, the limit is reached or the run is to stop."""
        try:
            while not self._pace.stop.is_set() and not self._pace.exhausted:
                try:
                    segment = segments.get_nowait()
                except queue.Empty:
                    return
                self._drain(segment)
        finally:
            if self._connection is not None:
                self._connection.close()

    def cancel(self) -> None:
        """Cancel the statement in flight; from another thread."""
        if (connection := self._connection) is not None:
            cancel(connection)

    def _drain(self, segment: Checkpoint) -> None:
        while rows := self._granted():
            began = time.monotonic()
            done = Done()
            try:
                done = self._retried(segment, rows)
            except Rewritten:
                self._abandon(segment)
                return
            except psycopg.Error as error:
                if self._pace.stop.is_set() and is_transient(error):
                    return
                if rows > 1 and is_among(error, HOT):
                    # A row that others write as well, of the ledger's or by a trigger: a shorter transaction meets them
                    # less often.
                    self._sizer.failed()
                    continue
                if not blames_row(error):
                    raise explained(error) from error
                self._adapt(error, rows)
                continue
            finally:
                self._pace.settle(rows, used=done.rows)
            seconds = time.monotonic() - began
            self._sizer.succeeded(done.rows, seconds)
            self._care = replace(self._care, refused=None)
            if done.blocks and done.rows:
                self._density = max(1.0, done.rows / done.blocks)
            if done.rows or done.blocks:
                self._pace.count(done, seconds=seconds)
            if done.segment_done:
                return

    def _granted(self) -> int:
        """Rows of the next batch, once nothing holds the run back; 0 where there is to be none."""
        if self._pace.exhausted:
            return 0
        if self._pace.ready():
            self._sizer.ease()
        if (told := self._pace.settings) is not None:
            self._sizer.change(told.batch_size, told.batch_seconds)
        # A refusal is about one row, so the batch that acts on it has one row, whatever the limit would grant.
        return self._pace.take(1 if self._care.refused else self._sizer.rows)

    def _adapt(self, error: psycopg.Error, rows: int) -> None:
        """After a refusal: look for collisions of that kind from now on; then narrow down; then reject the single
        row.
        """
        if error.sqlstate == FOREIGN_KEY and not self._care.orphans:
            self._care = replace(self._care, orphans=True)
        elif error.sqlstate == UNIQUE and not self._care.collisions:
            self._care = replace(self._care, collisions=True)
        elif rows > 1:
            self._sizer.failed()
        elif self._care.refused is None:
            self._care = replace(self._care, refused=refusal(error))
        else:
            raise explained(error) from error

    def _retried(self, segment: Checkpoint, rows: int) -> Done:
        """One batch, tried again on transient faults. The checkpoint is read anew each time, so a batch whose commit
        went through although its answer was lost is not done twice.
        """
        return self._retrying(but=HOT if rows > 1 else ())(self._batch, segment, rows)

    def _retrying(self, *, but: Collection[str] = ()) -> tenacity.Retrying:
        return retrying(seconds=self._retry_seconds, stop=self._pace.stop, told=self._pace.announcer.retry, but=but)

    def _batch(self, segment: Checkpoint, rows: int) -> Done:
        connection = self._connected()
        try:
            return self._batches.next(
                connection,
                segment.segment,
                rows=rows,
                density=self._density,
                care=self._care,
                leaf_blocks=lambda: self._leaf_blocks(connection, segment),
            )
        except psycopg.Error as error:
            if is_lost(error) or connection.closed:
                connection.close()
                self._connection = None
            raise

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = self._open()
            self._opened(self._connection.info.backend_pid)
        return self._connection

    def _abandon(self, segment: Checkpoint) -> None:
        """The table was rewritten under us; what is left of it is found by the sweep."""

        def abandon() -> None:
            connection = self._connected()
            # Another worker may do the same at this moment: wait for it, do not fail on it.
            connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
            connection.execute(query("backfill", "abandon_rewritten"), {"migration_id": segment.migration_id})

        self._retrying()(abandon)

    @staticmethod
    def _leaf_blocks(connection: Connection, segment: Checkpoint) -> int:
        names = {"leaf_schema": segment.leaf_schema, "leaf_table": segment.leaf_table}
        row = connection.execute(query("backfill", "leaf_blocks"), names).fetchone()
        if row is None:
            raise ServerFault(f"The size of {segment.leaf_schema}.{segment.leaf_table} cannot be read.")
        return int(row[0])
