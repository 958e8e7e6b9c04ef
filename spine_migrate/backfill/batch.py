"""One batch: judge, insert, quarantine, links and checkpoint in one REPEATABLE READ transaction.

All statements of a batch see the same rows, so what the judge passed is what is inserted. The checkpoint is locked
first and moved last: a second runner, or a commit whose answer was lost, finds it moved and goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import psycopg

from spine_migrate.carry.rows import Care, Carrier, Done, judged
from spine_migrate.carry.scope import Blocks
from spine_migrate.db.captures import batch_in_flight
from spine_migrate.db.catalog import Leaf, Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.ledger import Checkpoint, checkpoint
from spine_migrate.db.queries import query


class Rewritten(Exception):
    """The table was rewritten (VACUUM FULL, CLUSTER, TRUNCATE): positions in it mean nothing any more."""


class Batches(Carrier):
    """Carries rows segment by segment, each batch with its checkpoint."""

    def next(
        self,
        connection: Connection,
        segment: int,
        *,
        rows: int,
        density: float,
        care: Care,
        leaf_blocks: Callable[[], int],
    ) -> Done:
        """Move the next ``rows`` rows of a segment, or fewer at its end.

        ``density`` is the expected number of rows in a block, ``leaf_blocks`` gives the table's size for an open end.
        Raises psycopg.Error, and Rewritten where the table's file is not the one the segment was made for.
        """
        with batch_in_flight(connection, self.lock), _transaction(connection):
            at = checkpoint(connection, self.migration_id, segment, lock=True)
            if at.done:
                return Done(segment_done=True)
            end = at.high_block if at.high_block is not None else leaf_blocks()
            block, _ = tid(at.position)
            stop = min(end, block + int(rows / density * 1.25) + 2)
            scope = Blocks(Name(at.leaf_schema, at.leaf_table), at.position, f"({stop},0)")
            judge = self.statements.judge(
                scope, f"({stop},0)", rows, orphans=self.judges_orphans(care), unjudged=care.refused_itself
            )
            found = judged(connection, judge)
            full = found[0] == rows
            position = found[1] if full else f"({stop},0)"
            scope = Blocks(scope.leaf, at.position, position)
            done = self.carry(connection, scope, found, care)
            finished = not full and stop >= end
            self._advance(connection, at, position, done, rows=rows, finished=finished)
        return replace(done, blocks=tid(position)[0] - block, segment_done=finished)

    def _advance(
        self, connection: Connection, at: Checkpoint, position: str, done: Done, *, rows: int, finished: bool
    ) -> None:
        values = {
            "migration_id": at.migration_id,
            "segment": at.segment,
            "position": position,
            "moved": done.moved,
            "adopted": done.adopted,
            "quarantined": done.quarantined,
            "batch_size": rows,
            "done": finished,
        }
        if connection.execute(query("backfill", "advance"), values).rowcount != 1:
            raise Rewritten(f"{at.leaf_schema}.{at.leaf_table}")


def tid(text: str) -> tuple[int, int]:
    """``(block,offset)`` as numbers."""
    block, offset = text.strip("()").split(",")
    return int(block), int(offset)


def segments(leaves: list[Leaf], count: int) -> Iterator[tuple[Leaf, int, int | None]]:
    """Cut tables into about ``count`` ranges of blocks: (leaf, low, high). A table's last range has no end, so that
    rows appended since are met too.
    """
    total = sum(leaf.blocks for leaf in leaves) or 1
    for leaf in leaves:
        parts = max(1, round(count * leaf.blocks / total))
        edges = [leaf.blocks * part // parts for part in range(parts)]
        for low, high in zip(edges, [*edges[1:], None], strict=True):
            yield leaf, low, high


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    with connection.transaction():
        yield
