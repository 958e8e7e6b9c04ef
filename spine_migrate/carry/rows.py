"""Carrying the rows of a scope to the target: judge, search for collisions, links, insert, quarantine.

All of it is in the caller's REPEATABLE READ transaction, so that every statement sees the same rows: what the judge
passed is what is inserted. Nothing is inserted with ON CONFLICT. A collision fails the transaction; it is then done
again with care, which looks for collisions first and sends the losers to quarantine beside the row they collide with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg

from spine_migrate.carry.collisions import CollisionSearch, Guard
from spine_migrate.carry.links import await_links
from spine_migrate.carry.scope import Keys, Scope
from spine_migrate.carry.statements import Found, Rejects, Statement, Statements
from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import HOT, blames_row, is_among
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused, ServerFault

# Rows moved outside the scan, by retry or by the sweep, are counted on a segment of their own; and on another what the
# applier brings and takes, which may count at the same time. Its ``batches`` say whether changes were ever captured.
REPAIRS, FOLLOWED = -1, -2
FOREIGN_KEY, UNIQUE = "23503", "23505"


@dataclass(frozen=True)
class Care:
    """What a batch looks for before it inserts. ``orphans``: rows without their parent; ``collisions``: keys and unique
    indexes of the target that are taken; ``refused``: the server's error for the single row of this batch. ``again``:
    its rows are in quarantine already. ``held``: others write its single row all the time, see ``carry.steady``.
    """

    orphans: bool = False
    collisions: bool = False
    refused: Found | None = None
    again: bool = False
    held: bool = False

    @property
    def refused_itself(self) -> bool:
        """The row's own values were refused: looking at them again, to judge or to compare, could fail likewise."""
        return self.refused is not None and self.refused.sqlstate != UNIQUE


@dataclass(frozen=True)
class Done:
    """What a batch did. ``rows`` are all it has read; those that were not moved, adopted or quarantined are the
    applier's. ``reasons`` counts those in quarantine. ``blocks`` is how far the position moved.
    """

    rows: int = 0
    moved: int = 0
    adopted: int = 0
    quarantined: int = 0
    blocks: int = 0
    segment_done: bool = False
    reasons: Mapping[str, int] = field(default_factory=dict)


class Carrier:
    """Carries rows of one migration, on one connection at a time.

    ``lock`` is the name of the migration's lock. With a ``capture_id`` its changes are captured: what stands in a row's
    way may only be late, so such rows are left to the applier instead of going to quarantine.
    """

    def __init__(
        self, migration_id: int, statements: Statements, guard: Guard, *, lock: str, capture_id: int | None = None
    ) -> None:
        self.migration_id = migration_id
        self.statements = statements
        self.guard = guard
        self.lock = lock
        self.capture_id = capture_id

    def move_keys(self, connection: Connection, scope: Keys, care: Care) -> Done:
        """Move rows by key, in the caller's transaction; for the sweep and for retries.

        ``rows_quarantined`` of a checkpoint counts rows that came into quarantine, each once, and is never counted
        down; how many are in there now is the quarantine's to say.
        """
        judge = self.statements.judge_scope(scope, orphans=self.judges_orphans(care), unjudged=care.refused_itself)
        found = judged(connection, judge)
        done = self.carry(connection, scope, found, care)
        connection.execute(
            query("backfill", "count_repairs"),
            {"migration_id": self.migration_id, "segment": REPAIRS, "moved": done.moved, "adopted": done.adopted,
             "quarantined": 0 if care.again else done.quarantined},
        )  # fmt: skip
        return done

    def carry(self, connection: Connection, scope: Scope, found: tuple[Any, ...], care: Care) -> Done:
        rows, last, judged, linked = found
        if not rows:
            return Done()
        rejects = self._rejects(connection, scope, judged or [], last, care)
        out = {*rejects.judged, *rejects.found, *rejects.handed}
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
        reasons: dict[str, int] = {}
        entered: list[str] = []
        if rejects.quarantined:
            judged_so = self.judges_orphans(care)
            statement = self.statements.quarantine(self.migration_id, scope, rejects, orphans=judged_so)
            entries = _execute(connection, statement).fetchall()
            entered = [key for key, _ in entries]
            reasons = dict(Counter(reason for _, reason in entries))
        if self.capture_id is not None and rejects.handed:
            _execute(connection, self.statements.hand_over(self.capture_id, scope, rejects))
        if self.capture_id is not None and entered:
            # The applier may have moved what was mended since, and could not see an entry that is not committed.
            values = {"capture_id": self.capture_id, "keys": entered}
            connection.execute(query("capture", "look_again"), values)
        # What the applier has brought it has counted.
        adopted = len(rejects.adopted) if self.capture_id is None else 0
        return Done(rows, moved, adopted, rejects.quarantined, reasons=reasons)

    def _rejects(self, connection: Connection, scope: Scope, judged: list[str], last: str, care: Care) -> Rejects:
        """What is not inserted. ``last`` is the handle of the row that was refused, where one was."""
        rejects = Rejects(judged=judged)
        live = self.capture_id is not None
        if live and care.orphans and self.statements.parent is not None:
            orphans = _execute(connection, self.statements.orphans(scope, rejects.handles))
            rejects.handed.update((handle, "its parent is not there yet") for (handle,) in orphans)
        if care.collisions and not care.refused_itself:
            CollisionSearch(connection, self.statements, self.guard, scope, rejects, live=live).run()
        if care.refused is not None and last not in rejects.handles:
            if live and care.refused.sqlstate in (FOREIGN_KEY, UNIQUE):
                rejects.handed[last] = care.refused.in_short
            else:
                rejects.found[last] = care.refused
        return rejects

    def judges_orphans(self, care: Care) -> bool:
        """Whether a row without its parent goes to quarantine."""
        return care.orphans and self.capture_id is None


def halved(keys: list[str], care: Care, move: Callable[[list[str], Care], Done]) -> Iterator[Done]:
    """What ``move`` did with each part of the keys, each in a transaction of its own; it is called on halves when the
    server refuses a row, or somebody else writes one, until the row at fault stands alone and can be told that it is
    refused, or be held.
    """
    parts = [(keys, care)]
    while parts:
        part, careful = parts.pop()
        try:
            yield move(part, careful)
        except psycopg.Error as error:
            refused, hot = blames_row(error), is_among(error, HOT)
            if not (refused or hot):
                raise
            if len(part) > 1:
                middle = len(part) // 2
                parts += [(part[middle:], careful), (part[:middle], careful)]
            elif hot and not careful.held:
                parts.append((part, replace(careful, held=True)))
            elif refused and careful.refused is None:
                parts.append((part, replace(careful, refused=refusal(error))))
            else:
                raise


def refusal(error: psycopg.Error) -> Found:
    """The server's refusal of a single row, as it goes to quarantine."""
    words = " ".join(filter(None, (error.diag.message_primary, error.diag.message_detail)))
    return Found(
        "server_refused",
        f"the server refused the row: {words}",
        field=error.diag.column_name,
        sqlstate=error.sqlstate,
        constraint=error.diag.constraint_name,
    )


def judged(connection: Connection, statement: Statement) -> tuple[Any, ...]:
    """The one row of a judge: rows, the last handle, handles of rejects, handles of rows with a link."""
    row: tuple[Any, ...] | None = _execute(connection, statement).fetchone()
    if row is None:
        raise ServerFault("The judge's count did not come back; run the same command again.")
    return row


def _execute(connection: Connection, statement: Statement) -> psycopg.RawCursor[Any]:
    composed, values = statement
    return execute(connection, composed, *values)
