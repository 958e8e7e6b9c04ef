"""What a repair is asked for, and what it did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from spine_migrate.backfill.repair_batch import Kept, Mended

KINDS = ("missing", "differing", "extra")
# How many rows that were left a result names.
NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Options:
    """``only`` kinds of ``KINDS``, all where it is empty. ``max_rows`` is for all migrations together."""

    only: tuple[str, ...] = ()
    batch_size: int = 1000
    max_rows: int | None = None
    wait: bool = False
    retry_seconds: float = 60.0

    @property
    def kinds(self) -> tuple[str, ...]:
        return self.only or KINDS


@dataclass
class Repaired:
    """One migration. ``found`` rows by kind, ``rows`` repaired by kind (``quarantined``: missing rows that the rules
    refuse), ``fields`` by column, ``kept`` by reason, of which some are ``examples``. ``recounted``: by how much the
    ledger's count of moved rows was put right before, where rows had come or gone behind its back.
    """

    mapping: str
    migration_id: int
    found: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    examples: list[Kept] = field(default_factory=list)
    recounted: int = 0

    def add(self, mended: Mended) -> None:
        self.rows.update(mended.rows)
        self.fields.update(mended.fields)
        for one in mended.kept:
            self.keep(one)

    def keep(self, one: Kept) -> None:
        self.kept[one.reason] += 1
        if len(self.examples) < NAMED:
            self.examples.append(one)


@dataclass(frozen=True)
class Outcome:
    migrations: list[Repaired]
    interrupted: bool
