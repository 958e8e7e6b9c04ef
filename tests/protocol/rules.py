"""What the protocol demands, rule by rule, and how much of a world a search looks at."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """All true is the protocol; a test leaves one out, or two that stand in for each other."""

    triggers_first: bool = True
    """The triggers are committed before the first batch takes its snapshot."""

    keys_only: bool = True
    """The log holds keys, and a row is read anew when its key is applied; else it holds the row as it was written."""

    removed_where_applied: bool = True
    """Entries leave the log in the transaction that applies them; else in one before it."""

    deletes_applied_again: bool = True
    """A key that was gone when it was applied becomes a tombstone, unless no batch is in flight and none can begin."""

    whatever_the_batch: bool = True
    """Also for the sake of a batch after the backfill, such as a retry of quarantined rows."""

    tombstone_for_every_delete: bool = True
    """Also where there was a row on the target to delete."""

    barrier: bool = True
    """Tombstones are applied again once every batch that began before is over; else at any time."""

    noted_before: bool = True
    """What is applied again was noted before the barrier, and is kept where it has been noted anew since."""

    lock_before_snapshot: bool = True
    """A batch takes its shared lock before its snapshot; else after it."""

    one_applier: bool = True
    """A session advisory lock keeps a second applier out; else two share out the entries."""

    fence: bool = True
    """A transaction of an applier updates the capture's row, and so fails if another has committed since it began."""

    batch_leaves_ours: bool = True
    """A batch leaves a row alone that is on the target and ours; else it overwrites it with what it has read."""

    one_snapshot: bool = True
    """What a batch writes is checked against the snapshot it read from: REPEATABLE READ, in one database."""

    cutover_locks_first: bool = True
    """Cutover locks the table, then looks whether anything is pending; else the other way round."""


@dataclass(frozen=True)
class Scope:
    """How much of the world is searched. ``operations`` are those of all transactions together.

    ``by_place``: a batch reads a range of places, and a row that is written may come to lie in another one; else it
    reads a range of keys. ``retries``: ranges are done again after the backfill. ``kinds``: of operations.
    """

    keys: int = 2
    transactions: int = 2
    operations: int = 2
    ranges: int = 2
    workers: int = 2
    by_place: bool = False
    rollbacks: bool = True
    kills: bool = True
    retries: bool = False
    kinds: frozenset[str] = frozenset({"insert", "update", "delete", "rekey", "truncate"})

    def __str__(self) -> str:
        batches = f"{self.ranges} batches of {'places' if self.by_place else 'keys'}, {self.workers} at a time"
        writers = f"{self.operations} operations in {self.transactions} transactions"
        without = " without rollbacks" * (not self.rollbacks) + " without kills" * (not self.kills)
        retries = " and retries" * self.retries
        return f"{self.keys} keys, {batches}{retries}, {writers}{without}"

    def within(self, other: Scope) -> bool:
        """Whether whatever can happen here can happen there."""
        return (
            (self.keys, self.ranges, self.by_place) == (other.keys, other.ranges, other.by_place)
            and self.transactions <= other.transactions
            and self.operations <= other.operations
            and self.workers <= other.workers
            and self.rollbacks <= other.rollbacks
            and self.kills <= other.kills
            and self.retries <= other.retries
            and self.kinds <= other.kinds
        )


PROTOCOL = Rules()
