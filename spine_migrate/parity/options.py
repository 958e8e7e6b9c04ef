"""How a comparison is made."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from spine_migrate.parity.evidence import Equality, Scope


class Finding(StrEnum):
    """How rows that differ are found: ``join`` brings all rows together on the server, ``buckets`` compares digests."""

    AUTO = "auto"
    JOIN = "join"
    BUCKETS = "buckets"


@dataclass(frozen=True)
class Options:
    """``max_differences`` limits what is listed per mapping, never what is counted; ``workers`` read buckets.

    ``picture`` asks where along time or keys the rows agree, for which the legacy tables are read once more.
    """

    method: Finding = Finding.AUTO
    equality: Equality = Equality.VALUE
    scope: Scope = field(default_factory=Scope)
    max_differences: int = 100
    picture: bool = False
    workers: int = 2
