"""What a kind of awkward row is, and where its values come from."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Entity = Literal["executions", "execution_events", "jobs"]

#: Column name -> text form of the value, None for NULL. Columns that are absent take the value of an unremarkable row.
Values = Mapping[str, str | None]

# Fates, as spine_migrate.demo.awkward explains them.
MOVED = "moved"
SHORTENED = "moved:shortened"
LINK_BROKEN = "moved:link_broken"
LINK_WAITING = "moved:link_waiting"
ONE_MOVES = "one_moves:unique_conflict"
ONE_MOVES_EVENT = "one_moves:parent_quarantined"
TOO_LONG = "quarantined:too_long"
UNKNOWN_VALUE = "quarantined:unknown_value"
NULL_VALUE = "quarantined:null_value"
OUT_OF_RANGE = "quarantined:out_of_range"
ORPHAN = "quarantined:orphan"
PARENT_QUARANTINED = "quarantined:parent_quarantined"


@dataclass(frozen=True)
class Draw:
    """Values that depend on the seed and a label only, so that adding a kind changes no other kind's rows."""

    seed: int

    def digest(self, label: str) -> bytes:
        return hashlib.sha256(f"{self.seed}:{label}".encode()).digest()

    def uuid(self, label: str) -> str:
        """The uuid that ``spine_demo.uuid_of(seed || ':' || label)`` gives on the server."""
        digits = self.digest(label).hex()
        return str(uuid.UUID(f"{digits[:12]}4{digits[13:16]}a{digits[17:32]}"))

    def number(self, label: str, below: int) -> int:
        return int.from_bytes(self.digest(label)[:8], "big") % below


@dataclass(frozen=True)
class AwkwardRow:
    """One row of a kind; ``fate`` where it is not that of its kind (the quarantined parent of a waiting child)."""

    values: Values
    fate: str | None = None


@dataclass(frozen=True)
class Kind:
    """One way in which rows get awkward.

    ``make(draw, n)`` returns the n-th group of rows, most often a single one; the rows of a group belong together (the
    two parents of a cycle, the two claims on one key). ``per_100k`` is the number of groups in 100,000 rows of the
    entity at ``awkward=1.0``, but at least ``at_least`` (the number of variants, where a kind has several) and at most
    ``at_most``.
    """

    name: str
    entity: Entity
    fate: str
    story: str
    per_100k: int
    make: Callable[[Draw, int], Sequence[AwkwardRow]] = field(repr=False)
    at_least: int = 1
    at_most: int | None = None

    def groups(self, rows: int, awkward: float) -> int:
        """How many groups stand in a table of ``rows`` rows; none in an empty table or with ``awkward`` 0."""
        if rows == 0 or awkward == 0:
            return 0
        wanted = max(self.at_least, round(self.per_100k * rows * awkward / 100_000))
        return wanted if self.at_most is None else min(self.at_most, wanted)


def one(**values: str | None) -> list[AwkwardRow]:
    """A group of a single row."""
    return [AwkwardRow(values)]
