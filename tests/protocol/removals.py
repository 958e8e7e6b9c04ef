"""Which rules are left out, alone or together, where the fault is looked for, and what it teaches.

The scope of each is a small one in which its fault shows, so that the trace is quickly found and easily read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.protocol.model import divergence, fault
from tests.protocol.rules import PROTOCOL, Rules, Scope
from tests.protocol.state import State

_ONE_ROW = Scope(keys=1, ranges=1, workers=1, rollbacks=False, kills=False)
_THREE_WRITES = replace(_ONE_ROW, transactions=3, operations=3, kinds=frozenset({"insert", "delete"}))


@dataclass(frozen=True)
class Removal:
    title: str
    without: tuple[str, ...]
    why: str
    scope: Scope = _ONE_ROW
    wrong: Callable[[State], str | None] = fault

    @property
    def rules(self) -> Rules:
        return replace(PROTOCOL, **dict.fromkeys(self.without, False))


REMOVALS = (
    Removal(
        "Triggers first",
        ("triggers_first",),
        "A change that is committed between a batch's snapshot and the triggers is in neither.",
    ),
    Removal(
        "Keys only",
        ("keys_only",),
        "An entry that is applied after one that was written later, because it was deferred, brings an old row back. "
        "A key does no harm: the row is read as it is by then.",
        wrong=divergence,
    ),
    Removal(
        "Entries are removed where they are applied",
        ("removed_where_applied",),
        "What was taken and not applied when the tool was killed is forgotten.",
        replace(_ONE_ROW, kills=True),
    ),
    Removal(
        "Deletes are applied again",
        ("deletes_applied_again",),
        "The applier's DELETE does not see the row that a batch has inserted and not committed. It does not wait for "
        "it either: it finds nothing to delete, and the entry is used up.",
    ),
    Removal(
        "A tombstone for every delete",
        ("tombstone_for_every_delete",),
        "That there was a row to delete does not mean that no batch brings another: here the applier itself had put "
        "it there, after the snapshot of a batch whose insert finds the place free again.",
        _THREE_WRITES,
    ),
    Removal(
        "The barrier",
        ("barrier",),
        "A tombstone that is applied again while the batch is still in flight does no more than the delete did.",
    ),
    Removal(
        "The lock before the snapshot",
        ("lock_before_snapshot",),
        "The barrier does not see a batch that has its snapshot and not yet its lock.",
    ),
    Removal(
        "Whatever the batch",
        ("whatever_the_batch",),
        "Whatever reads the source and inserts on the target is a batch, a retry of quarantined rows too. Where "
        "deletes leave tombstones only until the backfill is finished, nobody cleans up after it.",
        replace(_ONE_ROW, retries=True),
    ),
    Removal(
        "One applier, no lock and no fence",
        ("one_applier", "fence"),
        "Two appliers that share out the entries, as SKIP LOCKED would do. The later version is applied first; the "
        "earlier one, a row that has been deleted since, is then inserted: INSERT ... ON CONFLICT finds no row that "
        "it could conflict with, so REPEATABLE READ does not help.",
        _THREE_WRITES,
    ),
    Removal(
        "One applier, or tombstones noted before",
        ("one_applier", "noted_before"),
        "With the fence, transactions of two appliers that overlap fail. But the barrier is remembered from one "
        "transaction to the next: a tombstone that the other applier has added in between was not behind it.",
        replace(_THREE_WRITES, kills=True),
    ),
    Removal(
        "A batch leaves our rows alone",
        ("batch_leaves_ours", "one_snapshot"),
        "A batch that overwrites brings back what it has read, where the server does not compare the row with the "
        "snapshot it was read at: in READ COMMITTED, or between two databases.",
    ),
    Removal(
        "Cutover locks, then looks",
        ("cutover_locks_first",),
        "A transaction that commits between the look and the lock is left behind. The snapshot in which the log is "
        "seen to be empty has to be taken after the lock is granted.",
    ),
)


@dataclass(frozen=True)
class Spare:
    """Rules without which nothing goes wrong, as long as all the others are kept."""

    without: str
    why: str
    scope: Scope

    @property
    def rules(self) -> Rules:
        return replace(PROTOCOL, **{self.without: False})


SPARES = (
    Spare(
        "one_applier",
        "With the fence the second of two transactions that overlap fails, and with tombstones noted before the "
        "barrier none is forgotten too early. The lock keeps two appliers from getting in each other's way.",
        replace(_THREE_WRITES, kills=True),
    ),
    Spare(
        "fence",
        "There is one applier. It is what is left where the lock is not one: behind a pooler that changes sessions "
        "between transactions.",
        replace(_THREE_WRITES, kills=True),
    ),
    Spare(
        "noted_before",
        "There is one applier, and it adds no tombstones between the barrier and applying them again.",
        replace(_THREE_WRITES, kills=True),
    ),
    Spare(
        "batch_leaves_ours",
        "In one database and in REPEATABLE READ a row that the applier has written since the batch's snapshot makes "
        "the batch fail, and one that it has written before is no newer than what the batch has read. The rule is "
        "needed where source and target are two databases.",
        Scope(keys=1, ranges=1, workers=1, transactions=3, operations=3, rollbacks=False),
    ),
    Spare(
        "one_snapshot",
        "A batch that only inserts fails on any row that is there already, whatever its isolation level.",
        Scope(keys=1, ranges=1, workers=1),
    ),
)

#: All rules kept. Each looks at something else: batches side by side (a kill leads to no state that is not reached
#: without, and takes half as long again), a batch of two rows, more writes of a row, rows that move while the table is
#: scanned in the order of its blocks, and retries.
SCOPES = (
    Scope(rollbacks=False, kills=False),
    Scope(ranges=1, workers=1),
    Scope(keys=1, ranges=1, workers=1, transactions=3, operations=3),
    Scope(keys=1, by_place=True),
    Scope(keys=1, ranges=1, workers=1, retries=True),
)
WIDE_SCOPES = (
    Scope(),
    Scope(ranges=1, workers=1, transactions=3, operations=3, rollbacks=False),
    Scope(keys=1, ranges=1, workers=1, transactions=4, operations=4),
    Scope(keys=1, transactions=3, operations=3, by_place=True),
)
