"""Each filter of ``list_runs`` beside a read by primary key, without further indexes on ``runs`` and with them.

The runs are a year's, made by the server: a few names, lanes and statuses have most of them, others hardly any. A list
is the ledger's own (100 runs, as objects); the read by key is one prepared ``SELECT *`` of a random run. What the
indexes cost is printed too: time to build, size, and how fast rows come in with and without them.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import psycopg
from psycopg import sql
from psycopg_pool import ConnectionPool

from benchmarks.server import load
from benchmarks.setup import Setup
from spine_migrate.db import catalog, schema
from spine_migrate.db.connect import connect
from spine_migrate.db.embedded import EmbeddedServer
from spine_migrate.db.run_indexes import Patience, RunIndexes, chosen
from spine_migrate.execution.ledgers.postgres import PostgresLedger
from spine_migrate.execution.ledgers.protocol import RunFilter
from spine_migrate.execution.runs import RunStatus

_END = datetime(2026, 11, 1, tzinfo=UTC)
_YEAR = timedelta(days=365)
_MORE = 20_000
_OWN = "tag value, 1 in 1,000"
#: A list may take this many times as long as a read by key.
_BOUND = 50

_FILL = """
INSERT INTO runs (run_id, kind, name, status, lane, parent_run_id, tags, params, result, created_at, started_at,
                  completed_at)
SELECT md5(n::text)::uuid,
       CASE WHEN n %% 10000 = 0 THEN 'workflow' WHEN n %% 20 = 0 THEN 'task' ELSE 'pipeline' END,
       CASE WHEN n %% 20000 = 7 THEN 'rare' ELSE 'handler_' || floor(200 * power(random(), 3)) END,
       CASE WHEN n %% 10000 = 1 THEN 'dead_lettered' WHEN n %% 30 = 1 THEN 'failed' WHEN n %% 200 = 3 THEN 'cancelled'
            WHEN n > %(rows)s - 50 THEN 'running' ELSE 'completed' END,
       CASE WHEN n %% 5000 = 4 THEN 'realtime' WHEN n %% 7 = 0 THEN 'slow' ELSE 'default' END,
       CASE WHEN n > 400 AND n %% 400 BETWEEN 1 AND 19 THEN md5((n - n %% 400)::text)::uuid END,
       CASE WHEN n %% 50000 = 5 THEN jsonb_build_object('incident', '1')
            ELSE jsonb_build_object('team', 'team ' || n %% 20, 'customer', (n * 7919 %% 1000)::text) END,
       jsonb_build_object('feed_id', n), jsonb_build_object('rows', n %% 977, 'note', repeat('x', 100)),
       made.at, made.at + interval '1 second', made.at + interval '20 seconds'
  FROM generate_series(%(first)s::bigint, %(last)s::bigint) AS n
 CROSS JOIN LATERAL (SELECT %(end)s - %(year)s * (1 - n::float8 / %(rows)s) AS at) AS made
"""

_FILTERS = {
    "none": RunFilter(),
    "status, 95 %": RunFilter(status=RunStatus.COMPLETED),
    "status, 3 %": RunFilter(status=RunStatus.FAILED),
    "status, 1 in 10,000": RunFilter(status=RunStatus.DEAD_LETTERED),
    "status, 50 runs": RunFilter(status=RunStatus.RUNNING),
    "name, 17 %": RunFilter(name="handler_0"),
    "name, 1 in 20,000": RunFilter(name="rare"),
    "name, none": RunFilter(name="nobody's"),
    "lane, 86 %": RunFilter(lane="default"),
    "lane, 1 in 5,000": RunFilter(lane="realtime"),
    "kind, 95 %": RunFilter(kind="pipeline"),
    "kind, 1 in 10,000": RunFilter(kind="workflow"),
    "parent, 19 runs": RunFilter(parent_run_id="08f90c1a-4171-5536-1a5c-4b8d297e0d78"),
    "tag key, 99.99 %": RunFilter(tag="team"),
    "tag key, 1 in 50,000": RunFilter(tag="incident"),
    "tag value, 5 %": RunFilter(tag="team=team 3"),
    "tag value, 1 in 1,000": RunFilter(tag="customer=77"),
    "since 1 day": RunFilter(since=_END - timedelta(days=1)),
    "since 300 days": RunFilter(since=_END - timedelta(days=300)),
    "until 300 days ago": RunFilter(until=_END - timedelta(days=300)),
    "one day, half a year ago": RunFilter(since=_END - timedelta(days=180), until=_END - timedelta(days=179)),
    "failed since 7 days": RunFilter(status=RunStatus.FAILED, since=_END - timedelta(days=7)),
    "name and lane": RunFilter(name="handler_3", lane="slow"),
}


def listing(setup: Setup) -> None:
    with setup.server() as server:
        url = _filled(server, setup.rows)
        with ConnectionPool(url, min_size=1, max_size=1) as pool, psycopg.connect(url, autocommit=True) as connection:
            ledger = PostgresLedger(pool)
            inserted = _insert(connection, setup.rows)
            without, by_key = _measure(ledger, connection, setup.rows, rounds=1, times=3)
            print(f"{setup.rows:,} runs; without further indexes a read by key takes {by_key:.3f} ms, {load()}")
            _index(url)
            connection.execute("VACUUM ANALYZE runs")
            slower = _insert(connection, setup.rows)
            withal, by_key = _measure(ledger, connection, setup.rows, rounds=setup.rounds, times=20)
            own = _with_an_index_of_its_own(ledger, connection)
        print(f"with them it takes {by_key:.3f} ms; p50 of each list, {load()}")
        _show(without, withal, by_key)
        print(f"  {_OWN}, with an index of its own: {own:.3f} ms, {own / by_key:.1f} times a read by key")
        print(f"  {_MORE:,} rows come in at {inserted:,.0f} rows/s without and {slower:,.0f} rows/s with all indexes")


def _filled(server: EmbeddedServer, rows: int) -> str:
    """A database of its own, made anew: an earlier run has left its indexes there."""
    name = sql.Identifier(f"listing_{rows}")
    with psycopg.connect(server.url(), autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(name))
        admin.execute(sql.SQL("CREATE DATABASE {}").format(name))
    url = server.url(f"listing_{rows}")
    schema.upgrade(url)
    with psycopg.connect(url, autocommit=True) as connection:
        began = time.perf_counter()
        # In pieces: the server keeps the checks of foreign keys in memory until a statement ends.
        for first in range(1, rows + 1, 500_000):
            connection.execute(_FILL, _piece(rows, first, min(rows, first + 499_999)))
        connection.execute("VACUUM ANALYZE runs")
        connection.execute("CHECKPOINT")
        print(f"  filled in {time.perf_counter() - began:.0f} s", flush=True)
    return url


def _piece(rows: int, first: int, last: int) -> dict[str, Any]:
    return {"rows": rows, "first": first, "last": last, "end": _END, "year": _YEAR}


def _insert(connection: psycopg.Connection[Any], rows: int) -> float:
    """Rows per second; what came in is taken back."""
    with connection.transaction(force_rollback=True):
        began = time.perf_counter()
        connection.execute(_FILL, _piece(rows, rows + 1, rows + _MORE))
        return _MORE / (time.perf_counter() - began)


def _index(url: str) -> None:
    with connect(url) as connection:
        indexes = RunIndexes(connection, catalog.find(connection, "runs", None))
        for one in chosen(()):
            began = time.perf_counter()
            assert indexes.create([one], Patience("1min", 60, threading.Event()), lambda _: None) == [one.key]
            took = time.perf_counter() - began
            (state,) = [state for state in indexes.states() if state.key == one.key]
            print(f"  {one.key:16} built in {took:6.1f} s, {(state.bytes or 0) / 1e6:8.1f} MB", flush=True)


def _measure(
    ledger: PostgresLedger, connection: psycopg.Connection[Any], rows: int, *, rounds: int, times: int
) -> tuple[dict[str, float], float]:
    """The p50 of each filter and of the read by key, in ms; all of them in each round, the reads between the lists."""
    chance = random.Random(1)
    taken: dict[str, list[float]] = {name: [] for name in _FILTERS}
    by_key: list[float] = []

    def read() -> None:
        values = (str(chance.randint(1, rows)),)
        query = "SELECT * FROM runs WHERE run_id = md5(%s)::uuid"
        assert connection.execute(query, values, prepare=True).fetchone() is not None

    for number in range(-1, rounds):
        for name, one in _FILTERS.items():
            lists = [_timed(partial(ledger.list_runs, one)) for _ in range(times)]
            reads = [_timed(read) for _ in range(max(50, times))]
            if number >= 0:
                taken[name] += lists
                by_key += reads
    return {name: statistics.median(lists) for name, lists in taken.items()}, statistics.median(by_key)


def _with_an_index_of_its_own(ledger: PostgresLedger, connection: psycopg.Connection[Any]) -> float:
    """As the runbook has it for a tag by which one lists much."""
    connection.execute(
        "CREATE INDEX CONCURRENTLY ON runs ((tags ->> 'customer'), created_at NULLS FIRST, run_id)"
        " WHERE tags ->> 'customer' IS NOT NULL"
    )
    connection.execute("ANALYZE runs")
    return statistics.median([_timed(partial(ledger.list_runs, _FILTERS[_OWN])) for _ in range(100)])


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _show(without: Mapping[str, float], withal: Mapping[str, float], by_key: float) -> None:
    print(f"  {'filter':26} {'without ms':>12} {'with ms':>10} {'with / read by key':>20}")
    for name, took in withal.items():
        ratio = took / by_key
        verdict = "" if ratio < _BOUND else f"  not under {_BOUND}"
        print(f"  {name:26} {without[name]:12.2f} {took:10.3f} {ratio:20.1f}{verdict}")
    worst = max(withal, key=lambda name: withal[name])
    print(f"  the slowest, {worst}, takes {withal[worst] / by_key:.1f} times as long as a read by key")
