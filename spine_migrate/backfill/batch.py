"""One batch: judge, insert, quarantine, links and checkpoint in one REPEATABLE READ transaction.

All statements of a batch see the same rows, so what the judge passed is what is inserted. The checkpoint is locked
first and moved last: a second runner, or a commit whose answer was lost, finds it moved and goes on from there.
Nothing is inserted with ON CONFLICT. A collision rolls the batch back; it is then done again with care, which looks for
collisions first and sends the losers to quarantine beside the row they collide with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from spine_migrate.backfill.collisions import CollisionSearch, Guard
from spine_migrate.backfill.links import await_links
from spine_migrate.backfill.scope import Blocks, Keys, Scope
from spine_migrate.backfill.statements import Found, Rejects, Statement, Statements
from spine_migrate.db.catalog import Leaf, Name
from spine_migrate.db.connect import Connection
from spine_migrate.db.ledger import Checkpoint, checkpoint
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused, ServerFault

# Rows moved outside the scan, by retry or by the sweep, are counted on a segment of their own.
REPAIRS = -1
UNIQUE = "23505"


@dataclass(frozen=True)
class Care:
    """What a batch looks for before it inserts. ``orphans``: rows without their parent; ``collisions``: keys and unique
    indexes of the target that are taken; ``refused``: the server's error for the single row of this batch. ``again``:
    its rows are in quarantine already.
    """

    orphans: bool = False
    collisions: bool = False
    refused: Found | None = None
    again: bool = False

    @property
    def refused_itself(self) -> bool:
        """The row's own values were refused: looking at them again, to judge or to compare, could fail likewise."""
        return self.refused is not None and self.refused.sqlstate != UNIQUE


@dataclass(frozen=True)
class Done:
    """What a batch did. ``rows`` = moved + adopted + quarantined; ``blocks`` is how far the position moved."""

    rows: int = 0
    moved: int = 0
    adopted: int = 0
    quarantined: int = 0
    blocks: int = 0
    segment_done: bool = False


class Rewritten(Exception):
    """The table was rewritten (VACUUM FULL, CLUSTER, TRUNCATE): positions in it mean nothing any more."""


class Batches:
    """Runs batches of one migration on one connection at a time."""

    def __init__(self, migration_id: int, statements: Statements, guard: Guard) -> None:
        self.migration_id = migration_id
        self.statements = statements
        self.guard = guard

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
        with _transaction(connection):
            at = checkpoint(connection, self.migration_id, segment, lock=True)
            if at.done:
                return Done(segment_done=True)
            end = at.high_block if at.high_block is not None else leaf_blocks()
            block, _ = tid(at.position)
            stop = min(end, block + int(rows / density * 1.25) + 2)
            scope = Blocks(Name(at.leaf_schema, at.leaf_table), at.position, f"({stop},0)")
            judge = self.statements.judge(
                scope, f"({stop},0)", rows, orphans=care.orphans, unjudged=care.refused_itself
            )
            found = _one(connection, judge)
            full = found[0] == rows
            position = found[1] if full else f"({stop},0)"
            scope = Blocks(scope.leaf, at.position, position)
            done = self._carry(connection, scope, found, care)
            finished = not full and stop >= end
            self._advance(connection, at, position, done, rows=rows, finished=finished)
        return Done(
            done.rows,
            done.moved,
            done.adopted,
            done.quarantined,
            blocks=tid(position)[0] - block,
            segment_done=finished,
        )

    def move_keys(self, connection: Connection, scope: Keys, care: Care) -> Done:
        """Move rows by key, in the caller's transaction; for the sweep and for retries.

        ``rows_quarantined`` of a checkpoint counts rows that came into quarantine, each once, and is never counted
        down; how many are in there now is the quarantine's to say.
        """
        judge = self.statements.judge_scope(scope, orphans=care.orphans, unjudged=care.refused_itself)
        found = _one(connection, judge)
        done = self._carry(connection, scope, found, care)
        connection.execute(
            query("backfill", "count_repairs"),
            {"migration_id": self.migration_id, "segment": REPAIRS, "moved": done.moved, "adopted": done.adopted,
             "quarantined": 0 if care.again else done.quarantined},
        )  # fmt: skip
        return done

    def _carry(self, connection: Connection, scope: Scope, found: tuple[Any, ...], care: Care) -> Done:
        rows, last, judged, linked = found
        if not rows:
            return Done()
        rejects = Rejects(judged=judged or [])
        if care.collisions and not care.refused_itself:
            CollisionSearch(connection, self.statements, self.guard, scope, rejects).run()
        if care.refused is not None and last not in rejects.handles:
            rejects.found[last] = care.refused
        out = {*rejects.judged, *rejects.found}
        going = [] if self.statements.offline else [handle for handle in linked or [] if handle not in out]
        waiting: dict[str, list[str]] = {}
        if going:
            statement = await_links(self.statements, self.migration_id, scope, going, rejects)
            waiting = dict(_execute(connection, statement).fetchall())
        moved = rows - len(rejects.handles)
        if moved:
            inserted = _execute(connection, self.statements.insert(scope, rejects.handles, waiting)).rowcount
            if inserted != moved:
                target = self.statements.binding.target
                raise Refused(
                    "rows-swallowed",
                    f"Of {moved} rows inserted into {target} only {inserted} arrived; "
                    f"a trigger or rule takes them away.",
                )
        if rejects.quarantined:
            _execute(connection, self.statements.quarantine(self.migration_id, scope, rejects, orphans=care.orphans))
        return Done(rows, moved, len(rejects.adopted), rejects.quarantined)

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


def _one(connection: Connection, statement: Statement) -> tuple[Any, ...]:
    row: tuple[Any, ...] | None = _execute(connection, statement).fetchone()
    if row is None:
        raise ServerFault("The judge's count did not come back; run the same command again.")
    return row


def _execute(connection: Connection, statement: Statement) -> psycopg.RawCursor[Any]:
    composed, values = statement
    return execute(connection, composed, *values)
