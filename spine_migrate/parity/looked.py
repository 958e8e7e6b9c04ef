"""All that is looked at in one migration's rows, on one server or on two."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from spine_migrate.db.raw import execute
from spine_migrate.mapping.emit.chosen import of_target_keys
from spine_migrate.parity import rows
from spine_migrate.parity.apart import Apart
from spine_migrate.parity.evidence import Method
from spine_migrate.parity.find import Finder
from spine_migrate.parity.model import Difference, Equation
from spine_migrate.parity.options import Options
from spine_migrate.parity.rows import Found, Gone, Keys
from spine_migrate.parity.settle import Settling
from spine_migrate.parity.tables import Tables

_NOTHING_GONE = Gone(0, 0, [])


@dataclass(frozen=True)
class Looked:
    """``sizes`` are legacy rows, target rows of ours and others, counted by themselves. ``sides`` are, of two servers,
    how each side's count adds up; None on one server, where the join says more. ``unsettled`` rows went on changing.
    """

    found: Found
    differences: list[Difference]
    gone: Gone
    sizes: tuple[int, int, int]
    sides: list[Equation] | None = None
    unsettled: int = 0


def here(tables: Tables, finder: Finder, method: Method, options: Options, *, finished: bool) -> Looked:
    """Both tables are on one server, in one snapshot."""
    connection, parity, named, partial = (
        tables.connection,
        tables.parity,
        options.max_differences,
        options.scope.partial,
    )
    parts = finder.parts(method)
    found = rows.look(connection, parity, tables.migration_id, named, finished=finished, parts=parts)
    return Looked(
        found,
        list(rows.differences(connection, parity, tables.migration_id, found)),
        _NOTHING_GONE if partial else rows.gone(connection, parity, tables.migration_id, named),
        (*finder.selection.sizes(), 0) if partial else _sizes(tables, finder),
    )


def _sizes(tables: Tables, finder: Finder) -> tuple[int, int, int]:
    """Rows of ours were counted by digests of this snapshot; counting them once more would read every mark again."""
    if finder.seen.reading.snapshots != 1:
        return rows.sizes(tables.connection, tables.parity)
    ((source,),) = execute(tables.connection, tables.parity.source_count()).fetchall()
    ((every,),) = execute(tables.connection, tables.parity.target_count()).fetchall()
    ours = finder.seen.reading.target.rows + _aside(tables, finder)
    return source, ours, every - ours


def _aside(tables: Tables, finder: Finder) -> int:
    """How many target rows of ours were left out of the digests."""
    keys = finder.seen.aside.target
    if not keys:
        return 0
    relation = tables.parity.new(of_target_keys(tables.parity, 2))
    statement = sql.SQL("SELECT count(*) FROM {} AS n WHERE $1::bigint IS NOT NULL").format(relation)
    ((count,),) = execute(tables.connection, statement, tables.migration_id, keys).fetchall()
    return int(count)


def apart(tables: Tables, finder: Finder, options: Options, legacy: list[str], *, finished: bool) -> Looked:
    """The tables are on two servers, and what differs is told once it has stood for a while."""
    selection = finder.selection
    suspects: Iterable[Keys] = [selection.keys] if selection.keys is not None else finder.suspects()
    settling = Settling(tables, legacy, tables.afresh, options.max_differences, finished, options.settle_seconds)
    settled = settling.run(suspects)
    if options.scope.partial:
        return Looked(
            settled.found, settled.differences, _NOTHING_GONE, _part(finder, legacy), unsettled=settled.unsettled
        )
    ((source,),) = execute(tables.source.connection, tables.parity.source_count()).fetchall()
    ((ours, others),) = execute(tables.connection, tables.parity.target_counts()).fetchall()
    seen = finder.seen
    sides = [
        Equation("source", {"source rows": source}, _shares(seen.reading.source.rows, len(seen.aside.source))),
        Equation(
            "target", {"target rows of this mapping": ours}, _shares(seen.reading.target.rows, _aside(tables, finder))
        ),
    ]
    return Looked(
        settled.found,
        settled.differences,
        Apart(tables, legacy).gone(options.max_differences),
        (source, ours, others),
        # The counts are of the last snapshot alone.
        sides if seen.reading.snapshots == 1 else [],
        settled.unsettled,
    )


def _shares(read: int, aside: int) -> dict[str, int]:
    return {"in the digest": read, "looked at by key": aside}


def _part(finder: Finder, legacy: Any) -> tuple[int, int, int]:
    sources, targets = finder.selection.apart(legacy)
    return sources, targets, 0
