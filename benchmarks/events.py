"""Moving the events of executions that have been moved, beside their plain INSERT ... SELECT."""

from __future__ import annotations

from benchmarks.history import EVENTS, EXECUTIONS, history
from benchmarks.rounds import Side, compare
from benchmarks.setup import Setup
from spine_migrate.backfill.run import Options


def events(setup: Setup) -> None:
    with setup.server() as server:
        lived = history(server, executions=setup.rows, events=4)
        lived.empty_target()
        lived.move(EXECUTIONS)
        with lived.connect() as connection:
            connection.execute("VACUUM ANALYZE runs")
        rows = lived.rows["execution_events"]
        print(f"{rows:,} events of {setup.rows:,} executions; the target has its foreign key to runs and its indexes")

        def plain() -> None:
            assert lived.plain_insert(EVENTS) == rows

        def ours(workers: int) -> None:
            lived.move(EVENTS, Options(workers=workers))

        sides = {
            "plain": Side(lived.empty_events, plain),
            "1 worker": Side(lived.empty_events, lambda: ours(1)),
            "2 workers": Side(lived.empty_events, lambda: ours(2)),
        }
        compare(setup.alternate(sides), "plain", rows=rows)
