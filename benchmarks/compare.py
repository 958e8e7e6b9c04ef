"""``compare`` beside the bare FULL JOIN that a DBA would write: same rows, same columns, same session settings.

The bare side is one ``SELECT count(*)`` over forward(source) FULL JOIN target with one IS DISTINCT FROM per column.
Ours is all that ``spine-migrate compare`` does but for printing: the classified join, both tables counted a second
time, quarantine, links and checkpoints. The bare side cannot read awkward rows (it fails on a value out of range), so
there are none.
"""

from __future__ import annotations

import resource
from functools import partial

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


def compare(setup: Setup) -> None:
    with setup.server() as server:
        moved = history(server, executions=setup.rows)
        moved.empty_target()
        moved.move(EXECUTIONS)
        with moved.connect() as connection:
            connection.execute("VACUUM ANALYZE runs")
        print(f"{setup.rows:,} executions, all moved")
        sides = {name: Side(lambda: None, partial(side, moved)) for name, side in _SIDES.items()}
        ratio = show(setup.alternate(sides), "bare FULL JOIN", rows=setup.rows)["spine-migrate compare"]
        print(f"  compare takes {1 / ratio.median:.2f} ({1 / ratio.high:.2f} to {1 / ratio.low:.2f}) times as long")
        print(f"  most memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


_SIDES = {"bare FULL JOIN": bare, "spine-migrate compare": ours}
