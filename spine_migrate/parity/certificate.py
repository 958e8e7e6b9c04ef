"""A certificate: what a comparison that found nothing stands on, so that anybody can find it again.

It holds one SHA-256 root per side and migration. Of an equal comparison both sides have the same root: how values are
spelled is evened out as far as the equality is by value, and links that the ledger records as open are NULL on both.
So the roots are a second proof beside the join, and where they differ there is neither a certificate nor a verdict.
It is not signed; who needs to know who issued it signs the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spine_migrate.db import ledger
from spine_migrate.db.connect import Connection
from spine_migrate.db.ledger import Migration
from spine_migrate.errors import Refused, ServerFault
from spine_migrate.mapping.load import load
from spine_migrate.mapping.model import Mapping
from spine_migrate.parity.evidence import Equality
from spine_migrate.parity.model import Comparison, Counts, Links, Quarantined, Report, Snapshot, Verdict
from spine_migrate.parity.roots import PINNED, Roots, Side, roots


@dataclass(frozen=True)
class Sealed:
    """One migration. ``statements`` gave the digests of the old and the new side; ``$1`` in them is the migration.

    ``method`` is how the comparison looked for differences, ``self_test`` how many kinds of difference it found in a
    scratch copy; None where it did not say, or had none.
    """

    mapping: str
    file: str | None
    digest: str
    migration_id: int
    source_table: str
    target_table: str
    counts: Counts
    quarantine: list[Quarantined]
    links: list[Links]
    method: str | None
    self_test: int | None
    old: Side
    new: Side
    statements: tuple[str, str]
    not_compared: list[str]


@dataclass(frozen=True)
class Certificate:
    """``settings`` are those of the session that the text of rows depends on; ``not_checked`` are the blind spots."""

    tool_version: str
    snapshot: Snapshot
    mode: Equality
    equality: str
    not_checked: list[str]
    settings: dict[str, str]
    migrations: list[Sealed]


def seal(connection: Connection, report: Report, names: Sequence[str] = ()) -> Certificate:
    """The certificate of an equal report, in whose snapshot the connection must still be.

    ``names`` as they were compared: shipped mappings, or paths. Raises Refused for a report that is not equal,
    ServerFault where the roots contradict it.
    """
    if report.verdict is not Verdict.EQUAL:
        sentence = f"Only an equal comparison has a certificate; the verdict of this one is: {report.verdict.value}."
        raise Refused("not-equal", sentence)
    if report.source_snapshot is not None:
        raise Refused("two-databases", "The tables are in two databases; a certificate is of one snapshot.")
    files = {mapping.name: mapping for mapping in map(load, names)}
    live = {migration.migration_id: migration for migration in ledger.migrations(connection)}
    sealed = [
        _sealed(connection, one, live, files.get(one.mapping) or load(one.mapping), report.mode)
        for one in report.comparisons
    ]
    return Certificate(
        report.tool_version, report.snapshot, report.mode, report.equality, report.not_checked, PINNED, sealed
    )


def _sealed(
    connection: Connection, one: Comparison, live: dict[int, Migration], mapping: Mapping, mode: Equality
) -> Sealed:
    if one.migration_id is None or one.counts is None or one.source_table is None or one.target_table is None:
        raise Refused("not-compared", f"{one.mapping} was not compared; there is nothing to certify.")
    found = roots(connection, live[one.migration_id], mapping, exact=mode is Equality.EXACT)
    _check_agree(one, one.counts, found)
    return Sealed(
        mapping=one.mapping,
        file=one.file,
        digest=mapping.digest,
        migration_id=one.migration_id,
        source_table=one.source_table,
        target_table=one.target_table,
        counts=one.counts,
        quarantine=one.quarantine,
        links=one.links,
        method=one.method.name if one.method else None,
        self_test=len(one.self_test.injections) if one.self_test and not one.self_test.skipped else None,
        old=found.old,
        new=found.new,
        statements=found.statements,
        not_compared=one.not_compared,
    )


def _check_agree(one: Comparison, counts: Counts, found: Roots) -> None:
    if found.old == found.new and found.new.rows == counts.target_rows:
        return
    raise ServerFault(
        f"{one.mapping}: the comparison found no difference, but {len(found.new.changed(found.old))} of "
        f"{len(found.new.buckets)} SHA-256 digests differ between the sides (rows {found.old.rows} and "
        f"{found.new.rows}); rely on neither, no certificate was written. Compare again; if it stays, it is a defect."
    )
