"""Compare every migration of the ledger with what it was made from, in one snapshot.

Verdicts. An unfinished migration is compared all the same: a difference that is there is certain, but rows that are
absent cannot be told from rows not reached, so without one the verdict is "could not tell". Where the mapping file is
not the one that the migration was run with, or the tables no longer have its shape, nothing is compared at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import psycopg

from spine_migrate import __version__
from spine_migrate.db import catalog, ledger
from spine_migrate.db.connect import Connection
from spine_migrate.db.ledger import Migration
from spine_migrate.db.retirements import refusal
from spine_migrate.errors import MappingError, Refused
from spine_migrate.mapping.bind import bind
from spine_migrate.mapping.emit.parity import parity as compiled
from spine_migrate.mapping.load import load, shipped
from spine_migrate.mapping.model import Mapping
from spine_migrate.parity.evidence import Equality
from spine_migrate.parity.histories import histories
from spine_migrate.parity.migration import Comparer, file_of
from spine_migrate.parity.model import Comparison, Reason, Report, Snapshot, Verdict, overall
from spine_migrate.parity.options import Options
from spine_migrate.parity.picture import drawn
from spine_migrate.parity.scope import APART, EQUALITY, EVENTS, EXACT, NOT_CHECKED, WITHOUT_EVENTS
from spine_migrate.parity.self_test import self_test, with_self_test
from spine_migrate.parity.snapshot import Shared, export, same, snapshot
from spine_migrate.parity.tables import Tables


def compare(
    connection: Connection,
    names: Sequence[str] = (),
    options: Options | None = None,
    *,
    source: Connection | None = None,
    started: Callable[[str, int, int], None] | None = None,
    closing: Callable[[Report], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    scratch: Connection | None = None,
) -> Report:
    """Compare the migrations of these mappings, or all that are not undone.

    ``names`` are shipped mappings or paths that end in .toml. ``connection`` leads to the target tables and the ledger,
    ``source`` to the legacy tables where they are elsewhere. ``scratch`` is one more, to the target's server, for the
    self-test of each comparison. ``started(name, number, of)`` is called before each, ``closing(report)`` at the end
    with the snapshot still open, ``progress(done, of)`` with the blocks read of a mapping, where its method counts
    them. Reads only; connections must be idle and in autocommit. Raises MappingError for a name that is no mapping, and
    psycopg.Error where the server fails.
    """
    options = options or Options()
    files = {mapping.name: mapping for mapping in map(load, names)}
    with ExitStack() as stack:
        taken = stack.enter_context(snapshot(connection))
        elsewhere = stack.enter_context(snapshot(source)) if source and not same(source, connection) else None
        try:
            ledger.require(connection)
        except Refused as refused:
            refusal = _report(options, taken, elsewhere, [], [Reason(refused.precondition, refused.sentence)])
            return _closed(refusal, closing)
        shared = export(connection)
        known = ledger.migrations(connection)
        # Of those that are retired there is nothing to compare; who asks for one, or has no other, is told so.
        live = [one for one in known if one.step != "retired"] or known
        found = [one for one in known if one.mapping in files] if files else live
        legacy = export(source) if source and elsewhere else shared
        comparing = _Comparing(legacy, shared, options, progress or (lambda _done, _of: None), scratch)
        comparisons: list[Comparison] = []
        for number, migration in enumerate(found, start=1):
            if started is not None:
                started(migration.mapping, number, len(found))
            comparisons.append(comparing.one(migration, files.get(migration.mapping)))
        comparisons.extend(
            _absent(mapping) for name, mapping in files.items() if name not in {m.mapping for m in found}
        )
        nothing = Reason("no-migration", "The ledger has no migration; there is nothing to compare.")
        report = _report(options, taken, elsewhere, comparisons, [] if comparisons else [nothing])
        return _closed(_with_histories(report, connection, files, options), closing)


def _with_histories(report: Report, connection: Connection, files: dict[str, Mapping], options: Options) -> Report:
    """Both sides of a history are put together on one server."""
    if not options.events or report.source_snapshot is not None:
        unseen = WITHOUT_EVENTS if not options.events else APART
        return replace(report, not_checked=[*NOT_CHECKED, unseen], events=unseen)
    lives = histories(connection, report.comparisons, files, options.max_differences)
    verdicts = [*(one.verdict for one in report.comparisons), *(one.verdict for one in lives)]
    return replace(report, histories=lives, verdict=overall(verdicts))


def _closed(report: Report, closing: Callable[[Report], None] | None) -> Report:
    if closing is not None:
        closing(report)
    return report


def _report(
    options: Options,
    taken: Snapshot,
    elsewhere: Snapshot | None,
    comparisons: list[Comparison],
    reasons: list[Reason],
) -> Report:
    verdict = overall([comparison.verdict for comparison in comparisons])
    equality = EXACT if options.equality is Equality.EXACT else EQUALITY
    return Report(
        verdict,
        reasons,
        taken,
        comparisons,
        equality,
        NOT_CHECKED,
        EVENTS,
        __version__,
        mode=options.equality,
        source_snapshot=elsewhere,
    )


def _absent(mapping: Mapping) -> Comparison:
    reason = Reason("no-migration", f"The ledger has no migration of {mapping.name} that is not undone.")
    return Comparison(
        mapping.name,
        file_of(mapping),
        mapping.digest,
        *(None, None, None, None),
        Verdict.UNKNOWN,
        [reason],
        path=str(mapping.file.resolve()),
    )


def _untold(migration: Migration, mapping: Mapping | None, code: str, sentence: str) -> Comparison:
    return Comparison(
        migration.mapping,
        file_of(mapping) if mapping else None,
        mapping.digest if mapping else None,
        migration.migration_id,
        migration.step,
        migration.source_table,
        migration.target_table,
        Verdict.UNKNOWN,
        [Reason(code, sentence)],
        path=str(mapping.file.resolve()) if mapping else None,
    )


@dataclass(frozen=True)
class _Comparing:
    source: Shared
    target: Shared
    options: Options
    progress: Callable[[int, int], None]
    scratch: Connection | None = None

    def one(self, migration: Migration, given: Mapping | None) -> Comparison:
        mapping = given
        try:
            if migration.step == "retired":
                raise refusal(self.target.connection, migration.migration_id, migration.mapping)
            mapping = given or _shipped(migration)
            _check_comparable(migration, mapping)
            # A savepoint, so that what a value makes fail here leaves the snapshot usable for the other migrations.
            with self.source.connection.transaction(), self.target.connection.transaction():
                tables = self._tables(migration, mapping)
                found = Comparer(tables, self.options, self.progress).run()
                if self.scratch is not None:
                    method = found.method.name if found.method else "join"
                    test = self_test(
                        self.scratch, tables.parity, migration.migration_id, method=method, apart=tables.apart
                    )
                    found = with_self_test(found, test)
                return drawn(tables, found) if self.options.picture else found
        except Refused as refused:
            return _untold(migration, mapping, refused.precondition, refused.sentence)
        except MappingError as error:
            return _untold(migration, mapping, "mapping-broken", error.sentence)
        except psycopg.DataError as error:
            # The message may hold a value of the row; the code does not.
            sentence = (
                f"The server cannot evaluate the mapping's rules on some legacy row (SQLSTATE {error.sqlstate}) "
                f"that is not in quarantine; the row was changed after it was moved."
            )
            return _untold(migration, mapping, "value-fails", sentence)

    def _tables(self, migration: Migration, mapping: Mapping) -> Tables:
        source = catalog.named(self.source.connection, migration.source_table)
        target = catalog.named(self.target.connection, migration.target_table)
        exact = self.options.equality is Equality.EXACT
        parity = compiled(bind(mapping, source, target), target.columns, exact=exact)
        return Tables(migration, parity, self.source, self.target, source.oid, target.oid)


def _shipped(migration: Migration) -> Mapping:
    if migration.mapping not in shipped():
        sentence = f"{migration.mapping} does not ship with this version; give the path of its file as an argument."
        raise Refused("mapping-unknown", sentence)
    return load(migration.mapping)


def _check_comparable(migration: Migration, mapping: Mapping) -> None:
    if mapping.digest != migration.mapping_digest:
        raise Refused(
            "mapping-changed",
            f"{mapping.name} was changed after migration {migration.migration_id} began (digest "
            f"{migration.mapping_digest[:12]}, now {mapping.digest[:12]}); compare with the file that it began with.",
        )
    if migration.step == "undoing":
        raise Refused("undoing", f"Migration {migration.migration_id} is being undone; there is nothing to compare.")
