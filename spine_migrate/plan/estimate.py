"""How long it will take and how much room it will need, from a sample of this data moved on this server.

The sample goes into a temporary table made like the target, with its indexes, in a transaction that is rolled back; it
is the only thing a plan writes, and nothing of it stays. A temporary table writes no WAL and has no foreign keys, and
its indexes are small: the upper end of the range allows for that with ``OVERHEAD``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from psycopg import sql

from spine_migrate.db.catalog import Leaf, Relation, leaves
from spine_migrate.db.connect import Connection
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.db.row_shape import Filled
from spine_migrate.mapping.bind import Binding
from spine_migrate.mapping.emit import unique
from spine_migrate.plan.model import Estimate
from spine_migrate.plan.questions import passes

SAMPLES = 8
SAMPLE_BLOCKS = 128
OVERHEAD = 2.5

HOW = (
    f"up to {SAMPLES} ranges of {SAMPLE_BLOCKS} blocks, spread over the source, were judged and moved into a temporary "
    "table with the target's indexes; the range runs from the fastest of them to the slowest times "
    f"{OVERHEAD} for what a temporary table does not pay (WAL, foreign keys, larger indexes)"
)


def estimate(
    connection: Connection, binding: Binding, source: Relation, shape: tuple[Filled, ...], rows: int
) -> Estimate:
    """For ``rows`` rows.

    Raises psycopg.Error where the role may make no temporary table or the sample cannot be moved.
    """
    with connection.transaction(force_rollback=True):
        _make_copy(connection, binding)
        return _measure(connection, binding, shape, leaves(connection, source.oid), rows)


def _make_copy(connection: Connection, binding: Binding) -> None:
    execute(
        connection,
        sql.SQL("CREATE TEMPORARY TABLE spine_sample (LIKE {} INCLUDING INDEXES INCLUDING GENERATED)").format(
            binding.target.identifier
        ),
    )
    # Defaults are not copied, a sequence would be drawn from; what they would fill may be empty here.
    produced = [field.target for field in binding.mapping.fields]
    for (name,) in connection.execute(query("plan", "not_null_columns"), {"produced": produced}).fetchall():
        execute(
            connection,
            sql.SQL("ALTER TABLE pg_temp.spine_sample ALTER COLUMN {} DROP NOT NULL").format(sql.Identifier(name)),
        )


def _measure(
    connection: Connection, binding: Binding, shape: tuple[Filled, ...], parts: list[Leaf], rows: int
) -> Estimate:
    written = [column for column in shape if not column.generated]
    names = sql.SQL(", ").join(sql.Identifier(column.name) for column in written)
    moved, seconds = 0, 0.0
    paces: list[float] = []
    for leaf, low in _ranges(parts):
        table = sql.SQL("ONLY {} AS s").format(leaf.name.identifier)
        condition = sql.SQL("s.ctid >= {}::tid AND s.ctid < {}::tid AND {}").format(
            sql.Literal(f"({low},0)"), sql.Literal(f"({low + SAMPLE_BLOCKS},0)"), passes(binding, "s")
        )
        statement = sql.SQL(
            "INSERT INTO pg_temp.spine_sample ({names}) SELECT {names} FROM ({rows}) AS moved ON CONFLICT DO NOTHING"
        ).format(names=names, rows=unique.candidates(binding, table, condition, shape))
        began = time.perf_counter()
        count = execute(connection, statement).rowcount
        spent = time.perf_counter() - began
        if count:
            paces.append(spent / count)
            moved, seconds = moved + count, seconds + spent
    row = connection.execute(query("plan", "sample_bytes")).fetchone()
    size = int(row[0]) if row and moved else 0
    fastest, slowest = min(paces, default=0.0), max(paces, default=0.0)
    return Estimate(
        sample_rows=moved,
        sample_seconds=round(seconds, 3),
        seconds_low=round(rows * fastest, 1),
        seconds_high=round(rows * slowest * OVERHEAD, 1),
        target_bytes=round(size * rows / moved) if moved else 0,
        how=HOW,
    )


def _ranges(parts: list[Leaf]) -> Iterator[tuple[Leaf, int]]:
    """Where samples begin: spread evenly over all blocks."""
    total = sum(leaf.blocks for leaf in parts)
    for number in range(min(SAMPLES, -(-total // SAMPLE_BLOCKS))):
        at = total * number // SAMPLES if total > SAMPLES * SAMPLE_BLOCKS else number * SAMPLE_BLOCKS
        for leaf in parts:
            if at < leaf.blocks:
                yield leaf, at
                break
            at -= leaf.blocks
