"""One migration compared: row parity, and the counts that must add up beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spine_migrate.db.connect import Connection
from spine_migrate.db.ledger import Migration
from spine_migrate.db.queries import query
from spine_migrate.mapping.emit.parity import Parity
from spine_migrate.mapping.model import Mapping
from spine_migrate.parity import rows
from spine_migrate.parity.model import (
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
from spine_migrate.parity.scope import not_compared


def file_of(mapping: Mapping) -> str:
    """A mapping's file as rules name it, without the folders above its application's."""
    return f"{mapping.file.parent.name}/{mapping.file.name}"


@dataclass(frozen=True)
class Comparer:
    """One migration whose mapping and tables are as they should be."""

    connection: Connection
    migration: Migration
    parity: Parity
    source_oid: int
    target_oid: int
    options: Options

    @property
    def named(self) -> int:
        return self.options.max_differences

    def run(self) -> Comparison:
        migration_id = self.migration.migration_id
        duplicate_keys, differences = self._duplicates()
        unfinished = self.migration.step != "done"
        found = rows.look(self.connection, self.parity, migration_id, self.named, finished=not unfinished)
        differences.extend(rows.differences(self.connection, self.parity, migration_id, found))
        gone = rows.gone(self.connection, self.parity, migration_id, self.named)
        differences.extend(gone.differences)
        counts = self._counts(found, duplicate_keys, gone, unfinished=unfinished)
        if unfinished:
            differences = [one for one in differences if one.kind != "missing"]
        links = self._links(found)
        equations = self._equations(counts, links, gone)
        total = counts.missing + counts.extra + counts.doubled + counts.duplicate_keys + found.fields_differing
        total += counts.gone
        reasons = list(_reasons(counts, equations, found.fields_differing))
        verdict = Verdict.DIFFERENT if reasons else Verdict.EQUAL
        if unfinished:
            verdict = verdict if reasons else Verdict.UNKNOWN
            reasons.append(_unfinished(self.migration, counts))
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
            quarantine=self._quarantine(),
            links=links,
            fields=rows.field_counts(self.parity, found),
            differences_total=total,
            differences=differences[: self.named],
            not_compared=list(not_compared(self.parity.binding)),
        )

    def _duplicates(self) -> tuple[int, list[Difference]]:
        """Asked of the rows only where no unique index answers it."""
        mapping = self.parity.binding.mapping
        keys, listed = 0, []
        for source, oid, column in ((True, self.source_oid, mapping.key), (False, self.target_oid, mapping.target.key)):
            names = {"oid": oid, "column": column}
            (unique,) = self.connection.execute(query("parity", "unique_column"), names).fetchall()[0]
            if unique and (self.parity.one_to_one or not source):
                continue
            found, some = rows.duplicates(
                self.connection, self.parity, self.migration.migration_id, source=source, named=self.named
            )
            keys += found
            listed.extend(some)
        return keys, listed

    def _counts(self, found: rows.Found, duplicate_keys: int, gone: rows.Gone, *, unfinished: bool) -> Counts:
        source, ours, others = rows.sizes(self.connection, self.parity)
        kinds = found.kinds
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
            gone=gone.open,
        )

    def _equations(self, counts: Counts, links: list[Links], gone: rows.Gone) -> list[Equation]:
        """What must add up.

        Matching rows are what the join leaves of the target's own count, so that the first equation sets the two
        independent counts and the join against each other.
        """
        names = {"migration_id": self.migration.migration_id}
        moved, adopted = self.connection.execute(query("parity", "counters"), names).fetchall()[0]
        entries = sum(held.open + held.discarded for held in self._quarantine())
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
            Equation(
                "checkpoints",
                {"moved": moved, "adopted": adopted},
                {"target rows of this mapping": counts.target_rows},
            ),
            Equation(
                "quarantine",
                {"entries in quarantine": entries},
                {
                    "legacy rows in quarantine": counts.quarantined + counts.doubled,
                    "whose legacy row is gone": counts.gone,
                    "whose legacy row is gone, discarded": gone.discarded,
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
