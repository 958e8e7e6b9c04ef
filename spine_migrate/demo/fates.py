"""What became of each kind of awkward row, held against what the catalogue promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.rows import class_row

from spine_migrate.demo import kind
from spine_migrate.demo.ordinary import statement


@dataclass(frozen=True)
class Fate:
    """One kind: ``fate`` is promised, the counts are found. ``reasons`` are those of the quarantined rows."""

    entity: str
    kind: str
    fate: str
    rows: int
    quarantined: int
    reasons: str | None
    broken: int
    waiting: int

    @property
    def found(self) -> str:
        """In words, for example ``4 moved, 4 links lead nowhere``."""
        moved = self.rows - self.quarantined
        parts = [
            *([f"{moved:,} moved"] if moved else []),
            *([f"{self.quarantined:,} quarantined ({self.reasons})"] if self.quarantined else []),
            *([f"{self.broken:,} with a link that leads nowhere"] if self.broken else []),
            *([f"{self.waiting:,} waiting for a quarantined parent"] if self.waiting else []),
        ]
        return ", ".join(parts)

    @property
    def as_promised(self) -> bool:
        promise, _, reason = self.fate.partition(":")
        match promise:
            case "quarantined":
                return self.quarantined == self.rows and self.reasons == reason
            case "one_moves":
                return 0 < self.quarantined < self.rows and self.reasons == reason
            case _:
                links = {kind.LINK_BROKEN: self.broken, kind.LINK_WAITING: self.waiting}
                return not self.quarantined and links.get(self.fate, self.rows) == self.rows


def fates(connection: psycopg.Connection[Any]) -> list[Fate]:
    """All kinds that the demonstration database has, in table order."""
    with connection.cursor(row_factory=class_row(Fate)) as cursor:
        return cursor.execute(statement("fates")).fetchall()
