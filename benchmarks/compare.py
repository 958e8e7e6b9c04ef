"""``compare`` beside the bare FULL JOIN that a DBA would write: same rows, same columns, same session settings.

The bare side is one ``SELECT count(*)`` over forward(source) FULL JOIN target with one IS DISTINCT FROM per column.
Ours is all that ``spine-migrate compare`` does but for printing: the classified join, both tables counted a second
time, quarantine, links and checkpoints. The bare side cannot read awkward rows (it fails on a value out of range), so
there are none.

    python -m benchmarks.compare --folder DIR --rows 1000000
"""

from __future__ import annotations

import argparse
import resource
from functools import partial
from pathlib import Path

from psycopg import sql

from benchmarks.history import EXECUTIONS, History, history
from benchmarks.rounds import Side, alternate, compare
from benchmarks.server import PROFILES, running
from spine_migrate.db import catalog
from spine_migrate.db.connect import connect
from spine_migrate.db.raw import execute
from spine_migrate.mapping.bind import bind
from spine_migrate.mapping.emit.sql import forward, is_ours
from spine_migrate.mapping.load import load
from spine_migrate.parity.compare import compare as compare_migrations
from spine_migrate.parity.model import Verdict
from spine_migrate.parity.snapshot import SETTINGS


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


def ours(moved: History) -> None:
    with connect(moved.url) as connection:
        report = compare_migrations(connection, [EXECUTIONS])
    assert report.verdict is Verdict.EQUAL, report.comparisons[0].reasons


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--folder", type=Path, required=True, help="where the server's data are, or are made")
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--profile", choices=PROFILES, default="production")
    given = arguments.parse_args()
    with running(given.folder, given.profile) as server:
        moved = history(server, executions=given.rows, name=f"compare_{given.rows}")
        moved.empty_target()
        moved.move(EXECUTIONS)
        with connect(moved.url) as connection:
            connection.execute("VACUUM ANALYZE runs")
        print(f"compare, {given.rows:,} executions")
        sides = {name: Side(lambda: None, partial(side, moved)) for name, side in _SIDES.items()}
        seconds = alternate(sides, given.rounds)
        ratio = compare(seconds, "bare FULL JOIN", rows=given.rows)["spine-migrate compare"]
        print(f"  time against the bare FULL JOIN: {1 / ratio.median:.2f}")
        print(f"  most memory of this client: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


_SIDES = {"bare FULL JOIN": bare, "spine-migrate compare": ours}

if __name__ == "__main__":
    main()
