"""Every kind of difference of tests/corpus.py in 1, 10 and 1,000 rows: what each method finds of it, and invents.

Not a race: it prints how long a method took, but what counts is that all is found and nothing else is.
"""

from __future__ import annotations

import time

from psycopg import sql

from benchmarks.history import EXECUTIONS, copy_of, history
from benchmarks.setup import Setup
from spine_migrate.db.connect import connect
from spine_migrate.db.raw import execute
from spine_migrate.parity.compare import compare
from spine_migrate.parity.evidence import Equality
from spine_migrate.parity.options import Finding, Options
from tests.corpus import KINDS, Place, inject

_METHODS = (Finding.JOIN, Finding.BUCKETS)


def corpus(setup: Setup) -> None:
    with setup.server() as server:
        original = history(server, executions=setup.rows)
        original.empty_target()
        original.move(EXECUTIONS)
        print(f"{setup.rows:,} executions, moved; {len(KINDS)} kinds of difference")
        for rows in (1, 10, 1000):
            moved = copy_of(server, original, "corpus")
            expected: set[Place] = set()
            exact: set[Place] = set()
            with moved.connect() as connection:
                # Without them each row that is deleted has the table read through twice, for its foreign keys.
                for column in ("parent_run_id", "retry_of_run_id"):
                    execute(connection, sql.SQL("CREATE INDEX ON runs ({})").format(sql.Identifier(column)))
                for kind, findings in inject(connection, KINDS, rows):
                    (exact if kind.exact else expected).update(findings)
                connection.execute("VACUUM ANALYZE runs")
            for equality in Equality:
                wanted = expected | exact if equality is Equality.EXACT else expected
                for method in _METHODS:
                    began = time.perf_counter()
                    with connect(moved.url) as connection:
                        options = Options(equality=equality, method=method, max_differences=10_000_000)
                        (comparison,) = compare(connection, [EXECUTIONS], options).comparisons
                    found = {(one.kind, one.target_key, one.field) for one in comparison.differences}
                    took = time.perf_counter() - began
                    print(
                        f"  {rows:5,} rows of each, {equality}, {method}: {len(wanted & found):,} of {len(wanted):,}"
                        f" found, {len(found - wanted)} invented, in {took:.1f} s",
                        flush=True,
                    )
                    assert found == wanted, sorted(found ^ wanted, key=str)[:10]
