"""How a comparison is made."""

from __future__ import annotations

from dataclasses import dataclass, field

from spine_migrate.parity.evidence import Equality, Scope


@dataclass(frozen=True)
class Options:
    """``max_differences`` limits what is listed per mapping, never what is counted."""

    equality: Equality = Equality.VALUE
    scope: Scope = field(default_factory=Scope)
    max_differences: int = 100
