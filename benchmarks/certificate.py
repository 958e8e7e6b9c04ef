"""``compare --certificate`` beside ``compare``: what hashing both sides costs in time, memory and temporary files.

Verifying is measured too: it hashes and does not compare. Temporary files are those of one certified comparison, from
pg_stat_database; the tool's memory is what it had at most.
"""

from __future__ import annotations

import resource
import time
from functools import partial

from benchmarks.compare import ours as compared
from benchmarks.history import EXECUTIONS, History, history
from benchmarks.rounds import Side
from benchmarks.rounds import compare as show
from benchmarks.setup import Setup
from spine_migrate.db.connect import connect
from spine_migrate.parity.certificate import Certificate, seal
from spine_migrate.parity.certificate_check import Outcome, check
from spine_migrate.parity.compare import compare as compare_migrations
from spine_migrate.parity.model import Report


def certified(moved: History) -> Certificate:
    issued: list[Certificate] = []
    with connect(moved.url) as connection:

        def closing(report: Report) -> None:
            issued.append(seal(connection, report))

        compare_migrations(connection, [EXECUTIONS], closing=closing)
    return issued[0]


def verified(moved: History, certificate: Certificate) -> None:
    with connect(moved.url) as connection:
        assert check(connection, certificate).outcome is Outcome.HOLDS


def certificate(setup: Setup) -> None:
    with setup.server() as server:
        moved = history(server, executions=setup.rows)
        moved.empty_target()
        moved.move(EXECUTIONS)
        with moved.connect() as connection:
            connection.execute("VACUUM ANALYZE runs")
        print(f"{setup.rows:,} executions, all moved")
        before = _temporary(moved)
        issued = certified(moved)
        print(f"  temporary files of one: {(_temporary(moved) - before) / 2**20:.0f} MB")
        sides = {
            "compare": Side(lambda: None, partial(compared, moved)),
            "compare --certificate": Side(lambda: None, partial(_issue, moved)),
            "certificate verify": Side(lambda: None, partial(verified, moved, issued)),
        }
        ratios = show(setup.alternate(sides), "compare", rows=setup.rows)
        for name in list(sides)[1:]:
            ratio = ratios[name]
            times = f"{1 / ratio.median:.2f} ({1 / ratio.high:.2f} to {1 / ratio.low:.2f})"
            print(f"  {name} takes {times} times as long as compare")
        print(f"  most memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


def _issue(moved: History) -> None:
    assert len(certified(moved).migrations) == 1


def _temporary(moved: History) -> int:
    """Bytes so far. Backends report their share when they end."""
    time.sleep(1)
    with moved.connect() as connection:
        query = "SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database()"
        return int(connection.execute(query).fetchall()[0][0])
