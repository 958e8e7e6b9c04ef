"""Event parity beside row parity: the histories of all runs, and the comparison of all rows of both tables.

The same snapshot settings, the same tables: executions and four events of each, all moved.
"""

from __future__ import annotations

from functools import partial

from benchmarks.history import EVENTS, EXECUTIONS, History, history
from benchmarks.rounds import Side
from benchmarks.rounds import compare as show
from benchmarks.setup import Setup
from spine_migrate.db.connect import connect
from spine_migrate.parity.compare import compare
from spine_migrate.parity.histories import histories as look
from spine_migrate.parity.model import Comparison, Verdict
from spine_migrate.parity.options import Options
from spine_migrate.parity.snapshot import snapshot


def rows(moved: History) -> list[Comparison]:
    with connect(moved.url) as connection:
        report = compare(connection, options=Options(events=False))
    assert report.verdict is Verdict.EQUAL
    return report.comparisons


def lives(moved: History, comparisons: list[Comparison]) -> None:
    with connect(moved.url) as connection, snapshot(connection):
        (found,) = look(connection, comparisons, {}, 100)
    assert (found.verdict, found.events, len(found.checks)) == (Verdict.EQUAL, EVENTS, 14)


def histories(setup: Setup) -> None:
    with setup.server() as server:
        moved = history(server, executions=setup.rows, events=4)
        moved.empty_target()
        for mapping in (EXECUTIONS, EVENTS):
            moved.move(mapping)
        with moved.connect() as connection:
            connection.execute("VACUUM ANALYZE runs")
            connection.execute("VACUUM ANALYZE run_events")
        print(f"{moved.rows['executions']:,} executions, {moved.rows['execution_events']:,} events, all moved")
        sides = {
            "row parity": Side(lambda: None, partial(rows, moved)),
            "event parity": Side(lambda: None, partial(lives, moved, rows(moved))),
        }
        ratio = show(setup.alternate(sides), "row parity", rows=setup.rows)["event parity"]
        print(
            f"  event parity takes {1 / ratio.median:.2f} ({1 / ratio.high:.2f} to {1 / ratio.low:.2f}) times as long"
        )
