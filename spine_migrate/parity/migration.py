"""One migration compared: row parity, and the counts that must add up beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from spine_migrate.db.connect import Connection
from spine_migrate.db.ledger import Migration
from spine_migrate.db.queries import query
from spine_migrate.mapping.emit.parity import Parity
from spine_migrate.mapping.model import Mapping
from spine_migrate.parity import rows
from spine_migrate.parity.checkpoint import Reading
from spine_migrate.parity.choice import choose
from spine_migrate.parity.evidence import Scope
from spine_migrate.parity.find import Finder
from spine_migrate.parity.in_flight import in_flight, reason
from spine_migrate.parity.looked import Looked, apart, here
from spine_migrate.parity.model import (
    COMPLETE,
    CUT_OVER,
    Comparison,
    Counts,
    Difference,
    Equation,
    Links,
    Quarantined,
    Reason,
    Verdict,
)
from spine_migrate.parity.options import Options
from spine_migrate.parity.part import select
from spine_migrate.parity.scope import not_compared
from spine_migrate.parity.tables import Tables


def file_of(mapping: Mapping) -> str:
    """A mapping's file as rules name it, without the folders above its application's."""
    return f"{mapping.file.parent.name}/{mapping.file.name}"


@dataclass(frozen=True)
class Comparer:
    """One migration whose mapping and tables are as they should be."""

    tables: Tables
    options: Options
    progress: Callable[[int, int], None]

    @property
    def connection(self) -> Connection:
        return self.tables.connection

    @property
    def migration(self) -> Migration:
        return self.tables.migration

    @property
    def parity(self) -> Parity:
        return self.tables.parity

    @property
    def named(self) -> int:
        return self.options.max_differences

    def run(self) -> Comparison:
        """Raises Refused where this cannot be compared as it was asked for, or not in this snapshot."""
        self.tables.lock()
        migration_id = self.migration.migration_id
        partial = self.options.scope.partial
        unfinished = self.migration.step not in COMPLETE
        method = choose(self.tables, self.options)
        legacy = self.tables.legacy()
        selection = select(self.tables, self.options.scope, legacy)
        duplicate_keys, differences = (0, []) if partial else self._duplicates(legacy)
        finder = Finder(self.tables, selection, legacy, self.options.workers, self.progress, self.options.checkpoint)
        if self.tables.apart:
            looked = apart(self.tables, finder, self.options, legacy, finished=not unfinished)
        else:
            looked = here(self.tables, finder, method, self.options, finished=not unfinished)
        found = looked.found
        differences += [*looked.differences, *looked.gone.differences]
        counts = _counts(looked, duplicate_keys, unfinished=unfinished)
        if unfinished:
            differences = [one for one in differences if one.kind != "missing"]
        links = [] if partial else self._links(found)
        # What adds up for the whole does not for a part of it.
        equations = [] if partial else self._equations(looked, counts, links)
        total = counts.missing + counts.extra + counts.doubled + counts.duplicate_keys + found.fields_differing
        total += counts.gone
        reasons = list(_reasons(counts, equations, found.fields_differing))
        verdict = Verdict.DIFFERENT if reasons else Verdict.EQUAL
        reading = finder.seen.reading
        if partial or unfinished or looked.unsettled or reading.changed:
            verdict = verdict if reasons else Verdict.UNKNOWN
        if verdict is Verdict.DIFFERENT and (uncertain := self._uncertain(differences, total)) is not None:
            verdict, reasons = Verdict.UNKNOWN, uncertain
        if partial:
            reasons.append(_partial(self.options.scope, counts))
        if looked.unsettled:
            reasons.append(_unsettled(looked.unsettled))
        if reading.changed:
            reasons.append(_resumed(reading))
        if unfinished:
            reasons.append(_unfinished(self.migration, counts))
        finder.close()
        if reading.snapshots > 1:
            method = replace(
                method, why=f"{method.why}; it was gone on with, so its digests are of {reading.snapshots} snapshots"
            )
        mapping = self.parity.binding.mapping
        return Comparison(
            mapping=mapping.name,
            file=file_of(mapping),
            digest=mapping.digest,
            migration_id=migration_id,
            step=self.migration.step,
            source_table=self.migration.source_table,
            target_table=self.migration.target_table,
            verdict=verdict,
            reasons=reasons,
            counts=counts,
            equations=equations,
            quarantine=[] if partial else self._quarantine(),
            links=links,
            fields=rows.field_counts(self.parity, found),
            differences_total=total,
            differences=differences[: self.named],
            not_compared=list(not_compared(self.parity.binding)),
            path=str(mapping.file.resolve()),
            method=method,
            scope=self.options.scope,
            forgiven=[] if partial else rows.forgiven(self.tables.source.connection, self.tables.legacy_side, legacy),
        )

    def _uncertain(self, differences: list[Difference], total: int) -> list[Reason] | None:
        """Why differences prove nothing; None where they do."""
        if self.migration.step == "cutover":
            return [CUT_OVER]
        flying = in_flight(self.connection, self.migration.migration_id, self.parity.binding)
        return [reason(flying)] if flying.explains(differences, total) else None

    def _duplicates(self, legacy: Any) -> tuple[int, list[Difference]]:
        """Asked of the rows only where no unique index answers it."""
        mapping = self.parity.binding.mapping
        keys, listed = 0, []
        for source, oid, column in (
            (True, self.tables.source_oid, mapping.key),
            (False, self.tables.target_oid, mapping.target.key),
        ):
            names = {"oid": oid, "column": column}
            connection = self.tables.source.connection if source else self.connection
            (unique,) = connection.execute(query("parity", "unique_column"), names).fetchall()[0]
            if unique and (self.parity.one_to_one or not source):
                continue
            parity, first = (self.tables.legacy_side, legacy) if source else (self.parity, self.tables.migration_id)
            found, some = rows.duplicates(connection, parity, first, source=source, named=self.named)
            keys += found
            listed.extend(some)
        return keys, listed

    def _equations(self, looked: Looked, counts: Counts, links: list[Links]) -> list[Equation]:
        """What must add up."""
        names = {"migration_id": self.migration.migration_id}
        moved, adopted = self.connection.execute(query("parity", "counters"), names).fetchall()[0]
        since = counts.target_rows - moved - adopted
        entries = sum(held.open + held.discarded for held in self._quarantine())
        adding_up = [
            *(_joined(counts) if looked.sides is None else looked.sides),
            # An application that writes both tables alike adds and deletes rows of this mapping, which no checkpoint
            # counts and which is no difference: that much is told, and the join has the say.
            Equation(
                "checkpoints",
                {"moved": moved, "adopted": adopted, "come since, by others": max(0, since)},
                {"target rows of this mapping": counts.target_rows, "gone since": max(0, -since)},
            ),
        ]
        if looked.unsettled:
            # Whether the rows of the others are among those that were left is not known.
            return adding_up
        return [
            *adding_up,
            Equation(
                "quarantine",
                {"entries in quarantine": entries},
                {
                    "legacy rows in quarantine": counts.quarantined + counts.doubled,
                    "whose legacy row is gone": counts.gone,
                    "whose legacy row is gone, discarded": looked.gone.discarded,
                },
            ),
            Equation(
                "links",
                {"links recorded as open": sum(one.waiting + one.broken for one in links)},
                {
                    "links open on the target": sum(one.found for one in links),
                    "whose row is there by now": sum(one.stale for one in links),
                },
            ),
        ]

    def _links(self, found: rows.Found) -> list[Links]:
        names = {"migration_id": self.migration.migration_id}
        recorded = self.connection.execute(query("parity", "links"), names).fetchall()
        return [
            Links(name, waiting, broken, found.linked[name], found.stale[name]) for name, waiting, broken in recorded
        ]

    def _quarantine(self) -> list[Quarantined]:
        names = {"migration_id": self.migration.migration_id}
        return [Quarantined(*row) for row in self.connection.execute(query("parity", "quarantine"), names)]


def _counts(looked: Looked, duplicate_keys: int, *, unfinished: bool) -> Counts:
    source, ours, others = looked.sizes
    kinds = looked.found.kinds
    return Counts(
        source_rows=source,
        target_rows=ours,
        target_others=others,
        matching=ours - kinds["extra"] - kinds["differing"] - kinds["doubled"],
        differing=kinds["differing"],
        missing=0 if unfinished else kinds["missing"],
        not_reached=kinds["missing"] if unfinished else 0,
        extra=kinds["extra"],
        doubled=kinds["doubled"],
        quarantined=kinds["quarantined"],
        duplicate_keys=duplicate_keys,
        gone=looked.gone.open,
    )


def _reasons(counts: Counts, equations: list[Equation], fields: int) -> Iterator[Reason]:
    """What speaks against equality; nothing where all is as it should be."""
    sentences = {
        "missing": (counts.missing, "Legacy rows that are neither on the target nor in quarantine"),
        "extra": (counts.extra, "Target rows of this mapping without a legacy row"),
        "differing": (counts.differing, f"Rows that differ, in {fields} places altogether"),
        "doubled": (counts.doubled, "Rows that are in quarantine and on the target as well"),
        "duplicates": (counts.duplicate_keys, "Keys that are in use more than once"),
        "gone": (counts.gone, "Rows in quarantine, not discarded, whose legacy row is gone"),
    }
    for code, (number, words) in sentences.items():
        if number:
            yield Reason(code, f"{words}: {number}.")
    for equation in equations:
        if not equation.holds:
            yield Reason(f"counts-{equation.name}", f"The counts do not add up ({equation.name}): {equation}.")


def _unfinished(migration: Migration, counts: Counts) -> Reason:
    return Reason(
        "unfinished",
        f"Migration {migration.migration_id} is unfinished (step {migration.step}): legacy rows without a "
        f"target row, which may not have been reached: {counts.not_reached}; run it to its end, then compare again.",
    )


def _partial(scope: Scope, counts: Counts) -> Reason:
    rows = f"{counts.source_rows} legacy rows and {counts.target_rows} target rows"
    return Reason(
        "partial", f"Only a part was compared, {scope}: {rows}. A part that agrees proves nothing of the rest."
    )


def _unsettled(groups: int) -> Reason:
    return Reason(
        "unsettled",
        f"Rows that differ between the two servers and were still being changed at the end, they or what the ledger "
        f"says of them: {groups}; compare again when less is written.",
    )


def _resumed(reading: Reading) -> Reason:
    return Reason(
        "resumed",
        f"The comparison was interrupted, and in {reading.changed} of {len(reading.portions)} portions rows were "
        f"written that it had read by then: what it tells is so, but more may differ. Compare again; the next "
        f"comparison begins anew.",
    )


def _joined(counts: Counts) -> list[Equation]:
    """How the join and the counts without it add up.

    Matching rows are what the join leaves of the target's own count, so that the first equation sets the two
    independent counts and the join against each other.
    """
    return [
        Equation(
            "source",
            {"source rows": counts.source_rows},
            {
                "matching": counts.matching,
                "differing": counts.differing,
                "in quarantine": counts.quarantined + counts.doubled,
                "missing": counts.missing,
                "not reached": counts.not_reached,
            },
        ),
        Equation(
            "target",
            {"target rows of this mapping": counts.target_rows},
            {
                "matching": counts.matching,
                "differing": counts.differing,
                "in quarantine as well": counts.doubled,
                "extra": counts.extra,
            },
        ),
    ]
