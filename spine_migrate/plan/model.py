"""The plan as data, all of it JSON-able. ``None`` stands for what could not be told; ``unknown`` says why."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Scan:
    """A pass over a table, announced before it starts. ``bytes`` and ``rows`` (an estimate) are of the table."""

    purpose: str
    table: str
    bytes: int
    rows: int


@dataclass(frozen=True)
class Example:
    """One offending row: its source key as text and a sentence."""

    key: str
    detail: str


@dataclass(frozen=True)
class Rejects:
    """Rows that go to quarantine for one reason and field."""

    reason: str
    field: str
    rows: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Conflict:
    """One unique index of the target.

    ``losers`` in ``groups`` collide within the source: of each group the row that comes first in physical order is
    moved. ``taken`` collide with a row that is on the target already.
    """

    index: str
    groups: int
    losers: int
    examples: tuple[Example, ...]
    taken: int
    taken_examples: tuple[Example, ...]


@dataclass(frozen=True)
class Keys:
    """Source rows whose target key exists: ``ours`` were moved before, ``taken`` belong to somebody else."""

    ours: int
    taken: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class BrokenLinks:
    """References to a row that is in neither table; they are moved as NULL and reported."""

    field: str
    rows: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Rows:
    """The exact count of the source, and what will become of it as far as rows can be judged before they move."""

    total: int
    rejects: tuple[Rejects, ...]

    @property
    def rejected(self) -> int:
        return sum(found.rows for found in self.rejects)


@dataclass(frozen=True)
class Part:
    """A table or partition that holds rows itself."""

    name: str
    bytes: int


@dataclass(frozen=True)
class Table:
    """Catalog facts of one table.

    ``persistence``: permanent, unlogged, temporary. ``replica_identity``: default, index, full, nothing.
    ``row_security``: whether it applies to this role.
    """

    name: str
    kind: str
    persistence: str
    replica_identity: str
    has_rules: bool
    row_security: bool
    bytes: int
    rows_estimated: int
    parts: tuple[Part, ...]
    inbound_keys: tuple[str, ...]
    triggers: tuple[str, ...]
    publications: tuple[str, ...]
    json_columns: tuple[str, ...]
    invalid_indexes: tuple[str, ...]


@dataclass(frozen=True)
class Lock:
    """What other sessions hold or wait for on the two tables."""

    table: str
    mode: str
    granted: bool
    sessions: int


@dataclass(frozen=True)
class LongTransaction:
    pid: int | None
    role: str | None
    seconds: int
    what: str


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes for all rows, from ``sample_rows`` moved into a temporary copy of the target."""

    sample_rows: int
    sample_seconds: float
    seconds_low: float
    seconds_high: float
    target_bytes: int
    how: str


@dataclass(frozen=True)
class Step:
    """A statement that will run, and the strongest lock that it takes on the tables."""

    title: str
    sql: str
    lock: str


@dataclass(frozen=True)
class Unknown:
    """What could not be told, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Finding:
    """Something to know before moving; ``remedy`` is how to lift it, empty where nothing needs to be done."""

    code: str
    sentence: str
    remedy: str = ""


@dataclass(frozen=True)
class Plan:
    """``blocks`` must be lifted first; ``warnings`` are what the migration will meet and deal with."""

    mapping: str
    digest: str
    server_version: str
    role: str
    source: Table | None
    target: Table | None
    missing_columns: tuple[str, ...]
    started: bool
    rows: Rows | None
    keys: Keys | None
    conflicts: tuple[Conflict, ...] | None
    links: tuple[BrokenLinks, ...] | None
    estimate: Estimate | None
    locks: tuple[Lock, ...] | None
    long_transactions: tuple[LongTransaction, ...] | None
    missing_grants: tuple[str, ...] | None
    scans: tuple[Scan, ...]
    steps: tuple[Step, ...]
    unknown: tuple[Unknown, ...]
    blocks: tuple[Finding, ...]
    warnings: tuple[Finding, ...]

    @property
    def ready(self) -> bool:
        return not self.blocks

    def as_json(self) -> dict[str, Any]:
        """All fields, and whether it is ready."""
        return {"ready": self.ready, **asdict(self)}
