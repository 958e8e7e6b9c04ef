"""What a comparison rests on, beside the rows that it found: its method, its scope, its self-test, the histories."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spine_migrate.parity.model import Reason, Rule, Verdict


class Equality(StrEnum):
    """``value`` is IS DISTINCT FROM, ``exact`` the binary images of rows: the operator ``*<>``."""

    VALUE = "value"
    EXACT = "exact"


@dataclass(frozen=True)
class Method:
    """How the rows that differ were found. ``name`` is join or buckets, ``why`` one sentence."""

    name: str
    why: str


@dataclass(frozen=True)
class Scope:
    """The part of the rows that was compared; everything, where all are None.

    ``sample`` is a share of the keys (0 to 1), ``since`` a bound of the legacy rows' time, ``keys`` legacy keys. What
    is partial is never "equal".
    """

    sample: float | None = None
    since: datetime | None = None
    keys: tuple[str, ...] | None = None

    @property
    def partial(self) -> bool:
        return (self.sample, self.since, self.keys) != (None, None, None)

    def __str__(self) -> str:
        parts = [
            None if self.sample is None else f"a sample of {self.sample:.4%} of the keys",
            None if self.since is None else f"rows since {self.since.isoformat()}",
            None if self.keys is None else f"{len(self.keys)} keys",
        ]
        return " of ".join(part for part in parts if part) or "all rows"


@dataclass(frozen=True)
class Injection:
    """One kind of difference that was made in the scratch copy, and what the comparison found of it. Rows.

    ``field`` is the place that was changed, None where whole rows were. ``invented`` are rows that were reported and
    had not been touched.
    """

    kind: str
    field: str | None
    injected: int
    found: int
    invented: int = 0

    @property
    def passed(self) -> bool:
        return self.found == self.injected and self.invented == 0


@dataclass(frozen=True)
class SelfTest:
    """Known differences in a scratch copy of ``rows`` pairs. ``skipped`` says why there was none."""

    rows: int
    injections: list[Injection] = field(default_factory=list)
    skipped: Reason | None = None

    @property
    def failed(self) -> list[Injection]:
        return [one for one in self.injections if not one.passed]


@dataclass(frozen=True)
class Forgiven:
    """Legacy rows whose value a rule was allowed to change for good; ``what`` says how, ``rule`` is None for a column
    that the mapping drops.
    """

    what: str
    rule: Rule | None
    rows: int


@dataclass(frozen=True)
class HistoryExample:
    """One run whose history breaks a check. ``old`` and ``new`` show the legacy history and the target's, in short."""

    run: str
    legacy_key: str | None
    note: str
    old: str | None = None
    new: str | None = None


@dataclass(frozen=True)
class HistoryCheck:
    """One law of histories. ``runs`` break it on the target; ``inherited`` of them break it in the legacy tables too,
    which the migration has carried faithfully: they are told, and are no difference.
    """

    code: str
    law: str
    runs: int
    inherited: int
    examples: list[HistoryExample] = field(default_factory=list)

    @property
    def broken(self) -> int:
        return self.runs - self.inherited


@dataclass(frozen=True)
class Histories:
    """Event parity of one pair of tables, ``runs`` of which were looked at. ``mapping`` is that of the runs, ``events``
    the mapping of their events, None where none was moved.
    """

    mapping: str
    events: str | None
    verdict: Verdict
    runs: int
    checks: list[HistoryCheck] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)


@dataclass(frozen=True)
class Slice:
    """One stretch of a picture. Legacy rows, and of them those that are not simply equal; ``extra`` are target rows.

    ``start`` is the first time or key of the stretch as the server writes it, None for what lies before all others or
    has no time at all.
    """

    start: str | None
    rows: int = 0
    differing: int = 0
    missing: int = 0
    extra: int = 0
    doubled: int = 0
    quarantined: int = 0

    @property
    def wrong(self) -> int:
        return self.differing + self.missing + self.extra + self.doubled


@dataclass(frozen=True)
class Picture:
    """Where in time, or in the order of keys, the rows of one migration agree and where they do not.

    ``axis`` is time or key, ``column`` the legacy column behind it. ``slices`` are in order and of equal width in time,
    of about equally many rows by key. ``timeless`` are the rows without a time. ``unplaced`` are rows that were found
    wrong and have no place here: their legacy row is gone, or the key of a target row says nothing about the order.
    """

    axis: str
    column: str
    slices: list[Slice]
    timeless: Slice
    unplaced: int
