"""How a comparison is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from spine_migrate.parity.evidence import Equality, Scope


class Finding(StrEnum):
    """How rows that differ are found: ``join`` brings all rows together on the server, ``buckets`` compares digests."""

    AUTO = "auto"
    JOIN = "join"
    BUCKETS = "buckets"


@dataclass(frozen=True, kw_only=True)
class Options:
    """``max_differences`` limits what is listed per mapping, never what is counted. ``events`` asks for the histories
    of runs as well, ``picture`` for the picture of where along time or keys the rows agree, which reads the legacy
    tables once more. ``workers`` read buckets. A difference between two servers must have stood for
    ``settle_seconds``. ``checkpoint`` is a file that digests are kept in, so that a comparison that was stopped can be
    gone on with.
    """

    equality: Equality = Equality.VALUE
    events: bool = True
    scope: Scope = field(default_factory=Scope)
    max_differences: int = 100
    picture: bool = False
    method: Finding = Finding.AUTO
    workers: int = 2
    settle_seconds: float = 2.0
    checkpoint: Path | None = None
