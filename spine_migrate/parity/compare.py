"""Compare every migration of the ledger with what it was made from, in one snapshot.

Verdicts. An unfinished migration is compared all the same: a difference that is there is certain, but rows that are
absent cannot be told from rows not reached, so without one the verdict is "could not tell". Where the mapping file is
not the one that the migration was run with, or the tables no longer have its shape, nothing is compared at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import psycopg

from spine_migrate import __version__
from spine_migrate.db import catalog, ledger
from spine_migrate.db.connect import Connection
from spine_migrate.db.ledger import Migration
from spine_migrate.errors import MappingError, Refused
from spine_migrate.mapping.bind import bind
from spine_migrate.mapping.emit.parity import parity as compiled
from spine_migrate.mapping.load import load, shipped
from spine_migrate.mapping.model import Mapping
from spine_migrate.parity.evidence import Equality
from spine_migrate.parity.migration import Comparer, file_of
from spine_migrate.parity.model import Comparison, Reason, Report, Snapshot, Verdict, overall
from spine_migrate.parity.options import Options
from spine_migrate.parity.scope import EQUALITY, EVENTS, EXACT, NOT_CHECKED
from spine_migrate.parity.snapshot import snapshot


def compare(
    connection: Connection,
    names: Sequence[str] = (),
    options: Options | None = None,
    *,
    started: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Compare the migrations of these mappings, or all that are not undone.

    ``names`` are shipped mappings or paths that end in .toml. ``started(name, number, of)`` is called before each.
    Reads only; the connection must be idle and in autocommit. Raises MappingError for a name that is no mapping, and
    psycopg.Error where the server fails.
    """
    options = options or Options()
    files = {mapping.name: mapping for mapping in map(load, names)}
    with snapshot(connection) as taken:
        try:
            ledger.require(connection)
        except Refused as refused:
            return _report(options, taken, [], [Reason(refused.precondition, refused.sentence)])
        found = [one for one in ledger.migrations(connection) if not files or one.mapping in files]
        comparisons: list[Comparison] = []
        for number, migration in enumerate(found, start=1):
            if started is not None:
                started(migration.mapping, number, len(found))
            comparisons.append(_compare(connection, migration, files.get(migration.mapping), options))
        comparisons.extend(
            _absent(mapping) for name, mapping in files.items() if name not in {m.mapping for m in found}
        )
        nothing = Reason("no-migration", "The ledger has no migration; there is nothing to compare.")
        return _report(options, taken, comparisons, [] if comparisons else [nothing])


def _report(options: Options, taken: Snapshot, comparisons: list[Comparison], reasons: list[Reason]) -> Report:
    verdict = overall([comparison.verdict for comparison in comparisons])
    equality = EXACT if options.equality is Equality.EXACT else EQUALITY
    return Report(
        verdict, reasons, taken, comparisons, equality, NOT_CHECKED, EVENTS, __version__, mode=options.equality
    )


def _absent(mapping: Mapping) -> Comparison:
    reason = Reason("no-migration", f"The ledger has no migration of {mapping.name} that is not undone.")
    return Comparison(mapping.name, file_of(mapping), mapping.digest, None, None, None, None, Verdict.UNKNOWN, [reason])


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
    )


def _compare(connection: Connection, migration: Migration, given: Mapping | None, options: Options) -> Comparison:
    mapping = given
    try:
        mapping = given or _shipped(migration)
        _check_comparable(migration, mapping)
        # A savepoint, so that what a value makes fail here leaves the snapshot usable for the other migrations.
        with connection.transaction():
            names = (migration.source_table, migration.target_table)
            source, target = (catalog.named(connection, name) for name in names)
            exact = options.equality is Equality.EXACT
            parity = compiled(bind(mapping, source, target), target.columns, exact=exact)
            return Comparer(connection, migration, parity, source.oid, target.oid, options).run()
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
