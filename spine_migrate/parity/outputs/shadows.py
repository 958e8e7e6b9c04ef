"""What the shims have compared in the mode shadow, and whether that is enough to say that a handler does as the old
body did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spine_migrate.db.shadows import Shadowed
from spine_migrate.parity.model import Verdict, overall
from spine_migrate.parity.outputs.confidence import samples_needed, upper_bound


@dataclass(frozen=True)
class Summary:
    """Of one task. ``bound`` is what its mismatch rate is below, with ``confidence``, as far as calls to come are like
    those that were compared. ``verdict`` is against ``max_rate``, None where there is none; ``needed`` are the
    comparisons by which it would be reached, with the mismatches there are, where that is what is missing.
    """

    of: Shadowed
    confidence: float
    max_rate: float | None = None

    @property
    def samples(self) -> int:
        """Comparisons that came to something: a result that is no JSON tells nothing."""
        return self.of.matches + self.of.mismatches

    @property
    def rate(self) -> float | None:
        return self.of.mismatches / self.samples if self.samples else None

    @property
    def bound(self) -> float:
        return upper_bound(self.of.mismatches, self.samples, self.confidence)

    @property
    def verdict(self) -> Verdict | None:
        """Different where more mismatch than may; unknown where too few were compared to say that they do not."""
        if self.max_rate is None:
            return None
        if self.bound <= self.max_rate:
            return Verdict.EQUAL
        return Verdict.DIFFERENT if (self.rate or 0.0) > self.max_rate else Verdict.UNKNOWN

    @property
    def needed(self) -> int | None:
        if self.max_rate is None or self.verdict is not Verdict.UNKNOWN:
            return None
        return samples_needed(self.of.mismatches, self.max_rate, self.confidence)


def gate(summaries: Sequence[Summary], missing: Sequence[str] = ()) -> Verdict:
    """Of all tasks; unknown where there is none, and of those that are ``missing``."""
    found = [one.verdict for one in summaries if one.verdict is not None]
    return overall([*found, *(Verdict.UNKNOWN for _ in missing)])
