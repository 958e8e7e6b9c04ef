"""Row parity of one bound mapping: runs the compiled statements and names what they found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from spine_migrate.db.connect import Connection
from spine_migrate.db.raw import execute, rows
from spine_migrate.mapping.emit.checks import Check
from spine_migrate.mapping.emit.chosen import Chosen, everything, keyed
from spine_migrate.mapping.emit.forgiven import counted, losses
from spine_migrate.mapping.emit.parity import Parity
from spine_migrate.mapping.model import Field
from spine_migrate.parity.evidence import Forgiven
from spine_migrate.parity.model import OPEN_LINK, Difference, FieldCount, Rule

GONE = "the entry in quarantine is all that is left of it; discard it, or bring the row back"


@dataclass(frozen=True)
class Part:
    """The rows that one statement is about, and its parameters after those that every statement has."""

    chosen: Chosen
    parameters: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Keys:
    """Rows by key, as text. What belongs together, by the target's key, is in one of several ``Keys``, never in two."""

    source: list[str]
    target: list[str]


@dataclass(frozen=True)
class Pair:
    """A named pair that is not as it should be; ``differs`` has a flag per check, ``stale`` one per link."""

    kind: str
    differs: list[bool] | None
    stale: list[bool] | None
    source_key: str | None
    target_key: str | None


@dataclass
class Found:
    """What one pass over both tables gave. ``kinds`` counts rows by kind, ``fields`` by the number of the check,
    ``linked`` and ``stale`` links by name: those that are open as recorded, and those that are recorded so and need not
    be.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    fields: Counter[int] = field(default_factory=Counter)
    linked: Counter[str] = field(default_factory=Counter)
    stale: Counter[str] = field(default_factory=Counter)
    pairs: list[Pair] = field(default_factory=list)

    @property
    def fields_differing(self) -> int:
        return sum(self.fields.values())


@dataclass(frozen=True)
class Gone:
    """Entries of the quarantine without a legacy row; ``differences`` are the first of those that are not discarded."""

    entries: int
    discarded: int
    differences: list[Difference]

    @property
    def open(self) -> int:
        return self.entries - self.discarded


class Source(Protocol):
    """Where legacy rows come from: the same server as the target's, or another (``parity.apart``)."""

    def part(self, keys: Keys, first: int) -> Part:
        """These rows for a statement on the target's server whose parameters for them are from ``$first`` on."""


@dataclass(frozen=True)
class Beside:
    """Both tables are on one server."""

    parity: Parity

    def part(self, keys: Keys, first: int) -> Part:
        return Part(keyed(self.parity, first), (keys.source, keys.target))


def look(
    connection: Connection,
    parity: Parity,
    migration_id: int,
    named: int,
    *,
    finished: bool,
    parts: Iterable[Part] | None = None,
) -> Found:
    """What is not in order among the rows of ``parts``, or among all. At most ``named`` pairs are named, the counts are
    exact.
    """
    found, groups = Found(), _Groups(named)
    for part in parts if parts is not None else [Part(everything(parity))]:
        query = parity.suspects(part.chosen, finished=finished)
        for row in rows(connection, query, migration_id, named, *part.parameters):
            if row["count"] is None:
                groups.add(Pair(row["kind"], row["differs"], row["stale"], row["source_key"], row["target_key"]))
            else:
                _count(found, parity, row)
        groups.close_part()
    found.pairs.extend(groups.named())
    return found


def _count(found: Found, parity: Parity, row: dict[str, Any]) -> None:
    found.kinds[row["kind"]] += row["count"]
    for number, differs in enumerate(row["differs"] or []):
        if differs:
            found.fields[number] += row["count"]
    for check, linked in zip(parity.links, row["linked"] or [], strict=False):
        if linked:
            found.linked[check.name] += row["count"]
    for check, stale in zip(parity.links, row["stale"] or [], strict=False):
        if stale:
            found.stale[check.name] += row["count"]


class _Groups:
    """Named pairs of several parts, so that each kind of pair is named before any is named twice. Of each kind no more
    than ``limit`` are kept, the lowest keys.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._groups: dict[tuple[Any, ...], list[Pair]] = {}
        self._parts = 0

    def add(self, pair: Pair) -> None:
        self._groups.setdefault((pair.kind, *(pair.differs or ())), []).append(pair)

    def close_part(self) -> None:
        self._parts += 1
        # The first part comes in the order of the keys as the server has it.
        if self._parts > 1:
            for name, group in self._groups.items():
                self._groups[name] = sorted(group, key=_order)[: self._limit]

    def named(self) -> list[Pair]:
        ranked = [(rank, _order(pair), pair) for group in self._groups.values() for rank, pair in enumerate(group)]
        return [pair for *_, pair in sorted(ranked, key=lambda one: one[:2])][: self._limit]


def _order(pair: Pair) -> tuple[str, str, str]:
    return pair.kind, pair.target_key or "", pair.source_key or ""


def gone(connection: Connection, parity: Parity, migration_id: int, named: int) -> Gone:
    """Legacy rows that were deleted after they had gone to quarantine."""
    counted, *listed = rows(connection, parity.gone(), migration_id, named)
    differences = [Difference("gone", row["source_key"], None, note=GONE) for row in listed]
    return Gone(counted["entries"], counted["discarded"], differences)


def sizes(connection: Connection, parity: Parity) -> tuple[int, int, int]:
    """Rows of the source, rows of the target that are ours, other rows of the target; counted without the join."""
    ((source,),) = execute(connection, parity.source_count()).fetchall()
    ((ours, others),) = execute(connection, parity.target_counts()).fetchall()
    return source, ours, others


def rule(field: Field | None) -> Rule | None:
    if field is None:
        return None
    place = field.place
    return Rule(field.name, f"{place.file.parent.name}/{place.file.name}", place.line, field.column)


def forgiven(connection: Connection, parity: Parity, first: Any) -> list[Forgiven]:
    """What the rules were allowed to lose; ``first`` is ``$1`` of the legacy side."""
    found = list(losses(parity))
    if not found:
        return []
    (counts,) = execute(connection, counted(parity, found), first).fetchall()
    return [Forgiven(loss.what, rule(loss.rule), number) for loss, number in zip(found, counts, strict=True)]


def field_counts(parity: Parity, found: Found) -> list[FieldCount]:
    """Fields that differ, the most frequent first."""
    return [
        FieldCount(_name(parity.checks[number]), rule(parity.checks[number].rule), count)
        for number, count in sorted(found.fields.items(), key=lambda one: (-one[1], one[0]))
    ]


def _name(check: Check) -> str:
    return f"{check.name}.*" if check.keys and check.rule is None else check.name


def duplicates(
    connection: Connection, parity: Parity, first: Any, *, source: bool, named: int
) -> tuple[int, list[Difference]]:
    """How many keys more than one row has, and the first of them. ``first`` is ``$1`` of the side, see ``Sides``."""
    side = "legacy rows lead to" if source else "target rows have"
    found = execute(connection, parity.duplicates(source=source), first, max(named, 1)).fetchall()
    listed = [
        Difference("duplicate", None, key, field=parity.binding.mapping.target.key, note=f"{count} {side} this key")
        for key, count, _ in found[:named]
    ]
    return (found[0][2] if found else 0), listed


def differences(
    connection: Connection, parity: Parity, migration_id: int, found: Found, source: Source | None = None
) -> Iterator[Difference]:
    """The named pairs in full, in the order in which they were named."""
    pairs = found.pairs
    both = [pair for pair in pairs if pair.differs is not None]
    values = _values(connection, parity, migration_id, both, source or Beside(parity))
    without_mark = _unmarked(connection, parity, [pair.target_key for pair in pairs if pair.kind == "missing"])
    for pair in pairs:
        note = None
        if pair.kind == "missing" and pair.target_key in without_mark:
            note = "a row with this key is on the target, but without the mark of this mapping"
        elif pair.kind == "doubled":
            note = "the legacy row is in quarantine, yet the target has it"
        if pair.kind != "differing":
            yield Difference(pair.kind, pair.source_key, pair.target_key, note=note)
        for row in values.get((pair.source_key, pair.target_key), ()):
            if pair.differs is not None and pair.differs[row["number"]]:
                check = parity.checks[row["number"]]
                stale = check.link and (pair.stale or [False] * len(parity.links))[parity.links.index(check)]
                yield _field_difference(check, pair, row, stale=stale)


def _values(
    connection: Connection, parity: Parity, migration_id: int, pairs: list[Pair], source: Source
) -> dict[tuple[str | None, str | None], list[dict[str, Any]]]:
    if not pairs:
        return {}
    keys = Keys([str(pair.source_key) for pair in pairs], [str(pair.target_key) for pair in pairs])
    part = source.part(keys, 2)
    values: dict[tuple[str | None, str | None], list[dict[str, Any]]] = {}
    for row in rows(connection, parity.values(part.chosen), migration_id, *part.parameters):
        values.setdefault((row["source_key"], row["target_key"]), []).append(row)
    return values


def _unmarked(connection: Connection, parity: Parity, keys: list[str | None]) -> set[str | None]:
    if not keys:
        return set()
    return {key for (key,) in execute(connection, parity.unmarked(), keys)}


def _field_difference(check: Check, pair: Pair, row: dict[str, Any], *, stale: bool) -> Difference:
    name, note = check.name, None
    if stale:
        note = OPEN_LINK
    elif row["refused"]:
        note = "the rule cannot carry the legacy value any more"
    elif check.rule is None:
        note = "no rule writes this"
    if row["json_key"] is not None:
        name = f"{check.name}.{row['json_key']}"
    return Difference(
        "field",
        pair.source_key,
        pair.target_key,
        field=name,
        type=check.kind,
        old=row["old"],
        new=row["new"],
        rule=rule(check.rule),
        note=note,
        explained=bool(row["refused"]),
    )
