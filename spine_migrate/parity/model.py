"""What a comparison found: plain data, from which every report is rendered."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from spine_migrate.parity.evidence import Equality, Forgiven, Histories, Method, Picture, Scope, SelfTest

# Where the ledger is behind: whoever completes links has not come to this one yet.
OPEN_LINK = "recorded as open, but the row that it names is there by now; run the move again"


class Verdict(StrEnum):
    """One of three, never two. What could not be compared is neither equal nor different."""

    EQUAL = "equal"
    DIFFERENT = "different"
    UNKNOWN = "could not tell"


@dataclass(frozen=True)
class Reason:
    """Why a verdict is what it is. ``code`` is stable, ``sentence`` is for people."""

    code: str
    sentence: str


# Steps of a migration by which all of it has been moved.
COMPLETE = ("done", "cutover")
CUT_OVER = Reason(
    "cut-over",
    "It has been cut over: the target counts since, may hold more than the rules make of a legacy row, and is carried "
    "to the legacy tables a moment later (spine-migrate sync status); after a rollback a difference is certain again.",
)


@dataclass(frozen=True)
class Rule:
    """A mapping rule and where it stands; ``line`` is 1-based. ``source_column`` is None for constants."""

    field: str
    file: str
    line: int | None
    source_column: str | None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be.

    ``kind``: ``field``, ``missing`` (no target row), ``extra`` (a target row of ours without a legacy row), ``doubled``
    (in quarantine, yet on the target), ``duplicate`` (several rows of one side share a key), ``gone`` (in quarantine,
    not discarded, and without a legacy row). ``old`` is what the legacy row becomes under the mapping,
    ``new`` what the target has, as the server writes them; None is SQL NULL or, inside
    JSON, an absent key. ``type`` is the logical type of both. ``rule`` is None where no rule writes the field.
    ``explained``: the rule itself accounts for the difference, since it cannot carry the legacy value.
    """

    kind: str
    key: str | None
    target_key: str | None
    field: str | None = None
    type: str | None = None
    old: str | None = None
    new: str | None = None
    rule: Rule | None = None
    note: str | None = None
    explained: bool = False

    @property
    def open_link(self) -> bool:
        """A link that is recorded as open, to a row that is there. An applier completes it a moment later."""
        return self.note == OPEN_LINK


@dataclass(frozen=True)
class FieldCount:
    """How many rows differ in a field; ``rule`` is None where no rule writes it."""

    field: str
    rule: Rule | None
    rows: int


@dataclass(frozen=True)
class Counts:
    """Rows. ``source_rows``, ``target_rows`` (ours) and ``target_others`` are counted without the join, the rest in it.

    ``matching`` are pairs that agree, those that wait for a recorded link included. ``not_reached`` are legacy rows
    without a target row while the migration is unfinished; afterwards the same rows are ``missing``. ``duplicate_keys``
    are keys that more than one row of a side has. ``gone`` are entries of the quarantine, not discarded, whose legacy
    row was deleted; they are among no other number.
    """

    source_rows: int
    target_rows: int
    target_others: int
    matching: int
    differing: int
    missing: int
    not_reached: int
    extra: int
    doubled: int
    quarantined: int
    duplicate_keys: int
    gone: int = 0


@dataclass(frozen=True)
class Equation:
    """Two sums that must be the same; the names say what was added up."""

    name: str
    left: dict[str, int]
    right: dict[str, int]

    @property
    def holds(self) -> bool:
        return sum(self.left.values()) == sum(self.right.values())

    def __str__(self) -> str:
        left, right = (" + ".join(f"{rows} {name}" for name, rows in side.items()) for side in (self.left, self.right))
        return f"{left} {'=' if self.holds else 'is not'} {right}"


@dataclass(frozen=True)
class Quarantined:
    reason: str
    open: int
    discarded: int


@dataclass(frozen=True)
class Links:
    """References that are still NULL: ``waiting`` and ``broken`` by the ledger, ``found`` on the target; ``stale`` ones
    are recorded as open although the row that they name is there by now.
    """

    field: str
    waiting: int
    broken: int
    found: int
    stale: int


@dataclass(frozen=True)
class Comparison:
    """One migration. Everything after ``reasons`` is empty where nothing was compared, but for ``path``, where the
    mapping's file lies on this machine.
    """

    mapping: str
    file: str | None
    digest: str | None
    migration_id: int | None
    step: str | None
    source_table: str | None
    target_table: str | None
    verdict: Verdict
    reasons: list[Reason]
    counts: Counts | None = None
    equations: list[Equation] = field(default_factory=list)
    quarantine: list[Quarantined] = field(default_factory=list)
    links: list[Links] = field(default_factory=list)
    fields: list[FieldCount] = field(default_factory=list)
    differences_total: int = 0
    differences: list[Difference] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)
    method: Method | None = None
    scope: Scope = field(default_factory=Scope)
    forgiven: list[Forgiven] = field(default_factory=list)
    self_test: SelfTest | None = None
    path: str | None = None
    picture: Picture | None = None


@dataclass(frozen=True)
class Snapshot:
    """The one snapshot that everything was read in. ``lsn`` is the WAL position beside it, None before any replay."""

    snapshot: str
    lsn: str | None
    standby: bool
    database: str
    server_version: str
    taken_at: datetime


@dataclass(frozen=True)
class Report:
    """All comparisons of one snapshot. ``reasons`` say why there is nothing to compare, if so."""

    verdict: Verdict
    reasons: list[Reason]
    snapshot: Snapshot
    comparisons: list[Comparison]
    equality: str
    not_checked: list[str]
    events: str
    tool_version: str
    mode: Equality = Equality.VALUE
    source_snapshot: Snapshot | None = None
    """Of the legacy tables, where they are on another server."""
    histories: list[Histories] = field(default_factory=list)


def overall(verdicts: list[Verdict]) -> Verdict:
    """A difference that was found is certain, whatever else could not be told; nothing compared is nothing told."""
    if Verdict.DIFFERENT in verdicts:
        return Verdict.DIFFERENT
    return Verdict.EQUAL if verdicts and set(verdicts) == {Verdict.EQUAL} else Verdict.UNKNOWN
