"""``compare`` by both methods beside the bare SQL that a DBA would write: same rows, columns and session settings.

The bare join is one ``SELECT count(*)`` over forward(source) FULL JOIN target with one IS DISTINCT FROM per column. The
bare buckets are one ``bit_xor(hash_record_extended(...))`` per 65,536th of the keys over each side, both sides at once
in one exported snapshot; unlike ours they hash jsonb and 64-bit values as they are, and so take {} for NULL.
Ours is all that ``spine-migrate compare`` does with rows: classified rows, both tables counted a second time,
quarantine, links and checkpoints. The bare sides cannot read awkward rows (they fail on a value out of range), so there
are none.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from psycopg import sql

from benchmarks.history import EXECUTIONS, History, history
from benchmarks.rounds import Side
from benchmarks.rounds import compare as show
from benchmarks.setup import Setup
from spine_migrate.db import catalog
from spine_migrate.db.connect import connect
from spine_migrate.db.raw import execute
from spine_migrate.mapping.bind import bind
from spine_migrate.mapping.emit.sql import forward, is_ours
from spine_migrate.mapping.load import load
from spine_migrate.parity.compare import compare as compare_migrations
from spine_migrate.parity.model import Verdict
from spine_migrate.parity.options import Finding, Options
from spine_migrate.parity.snapshot import SETTINGS, export, snapshot


def bare(moved: History) -> None:
    """The count of rows that differ, and nothing else."""
    mapping = load(EXECUTIONS)
    with connect(moved.url, settings=SETTINGS) as connection:
        source = catalog.find(connection, mapping.source_table, None)
        target = catalog.find(connection, mapping.target.name, None)
        binding = bind(mapping, source, target)
        columns = [(sql.Identifier(name), value) for name, value in forward(binding, "s").items()]
        query = sql.SQL(
            "SELECT count(*) FROM (SELECT {values} FROM {source} AS s) AS o"
            " FULL JOIN (SELECT * FROM {target} AS t WHERE {ours}) AS n ON n.{key} = o.{key} WHERE {differs}"
        ).format(
            values=sql.SQL(", ").join(sql.SQL("{} AS {}").format(value, name) for name, value in columns),
            source=binding.source.identifier,
            target=binding.target.identifier,
            ours=is_ours(binding, "t"),
            key=sql.Identifier(mapping.target.key),
            differs=sql.SQL(" OR ").join(sql.SQL("o.{0} IS DISTINCT FROM n.{0}").format(name) for name, _ in columns),
        )
        assert execute(connection, query).fetchall() == [(0,)]


def bare_buckets(moved: History) -> None:
    """The buckets of each side, brought here and held against each other."""
    with connect(moved.url) as connection, snapshot(connection), ThreadPoolExecutor(2) as pool:
        shared = export(connection)
        mapping = load(EXECUTIONS)
        binding = bind(
            mapping,
            catalog.find(connection, mapping.source_table, None),
            catalog.find(connection, mapping.target.name, None),
        )
        produced = forward(binding, "s")
        of_target = [sql.Identifier("t", name) for name in produced]
        sides = (
            (produced[mapping.target.key], list(produced.values()), binding.source.identifier, "s", sql.SQL("true")),
            (sql.Identifier("t", mapping.target.key), of_target, binding.target.identifier, "t", is_ours(binding, "t")),
        )

        def read(side: tuple[sql.Composable, list[sql.Composable], sql.Identifier, str, sql.Composable]) -> list[Any]:
            key, columns, table, alias, rows = side
            query = sql.SQL(
                "SELECT (hash_record_extended(ROW({key}), 0) & 65535)::int, count(*),"
                " bit_xor(hash_record_extended(ROW({columns}), 0)) FROM {table} AS {alias} WHERE {rows}"
                " GROUP BY 1"
            ).format(key=key, columns=sql.SQL(", ").join(columns), table=table, alias=sql.Identifier(alias), rows=rows)
            with shared.open() as session:
                return sorted(execute(session, query).fetchall())

        old, new = pool.map(read, sides)
        assert len(old) == len(new)


def ours(moved: History, method: Finding) -> None:
    with connect(moved.url) as connection:
        report = compare_migrations(connection, [EXECUTIONS], Options(method=method, events=False))
    assert report.verdict is Verdict.EQUAL, report.comparisons[0].reasons


def compare(setup: Setup) -> None:
    with setup.server() as server:
        moved = history(server, executions=setup.rows)
        moved.empty_target()
        moved.move(EXECUTIONS)
        with moved.connect() as connection:
            connection.execute("VACUUM ANALYZE runs")
        print(f"{setup.rows:,} executions, all moved")
        sides = {name: Side(lambda: None, partial(side, moved)) for name, side in _SIDES.items()}
        ratios = show(setup.alternate(sides), "bare FULL JOIN", rows=setup.rows)
        for name in ("compare --method join", "compare --method buckets"):
            ratio = ratios[name]
            print(f"  {name}: {1 / ratio.median:.2f} ({1 / ratio.high:.2f} to {1 / ratio.low:.2f}) times as long")
        print(f"  most memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
        for name, side in _SIDES.items():
            print(f"  temporary files, {name}: {_temporary(moved, side) / 2**20:,.0f} MB")


def _temporary(moved: History, side: Callable[[History], None]) -> int:
    """Bytes that one more turn writes to temporary files; the server tells them once the sessions have ended."""

    def written() -> int:
        time.sleep(1)
        with moved.connect() as connection:
            ((size,),) = connection.execute(
                "SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()"
            ).fetchall()
        return int(size)

    before = written()
    side(moved)
    return written() - before


_SIDES: dict[str, Callable[[History], None]] = {
    "bare FULL JOIN": bare,
    "bare buckets": bare_buckets,
    "compare --method join": partial(ours, method=Finding.JOIN),
    "compare --method buckets": partial(ours, method=Finding.BUCKETS),
}
