"""What change capture costs the application's writes, and how fast the applier is beside a writer.

Two databases with the same moved history; the writes to one of them are captured. Writes of single rows go to both in
turns, each in a transaction of its own, and their medians are compared; statements over many rows likewise.

Then the applier against one session that writes single rows, each of another row, so that none of its changes are
applied as one: how fast that session is alone, how fast a long log is applied, and how far the applier stays behind
while both are at work. The session is a process of its own.
"""

from __future__ import annotations

import multiprocessing
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import LiteralString

from benchmarks.history import EXECUTIONS, History, copy_of, history
from benchmarks.rounds import Spread, medians
from benchmarks.server import load as load_average
from benchmarks.setup import Setup
from spine_migrate.carry.tables import find_tables
from spine_migrate.db import ledger
from spine_migrate.db.connect import Connection, connect
from spine_migrate.db.patience import Patience
from spine_migrate.mapping.load import load
from spine_migrate.sync.loop import follow
from spine_migrate.sync.members import Options
from spine_migrate.sync.start import start

_SINGLE, _BULK, _SECONDS = 3000, 200_000, 20.0
_KINDS: dict[str, LiteralString] = {
    "update": "UPDATE executions SET error = clock_timestamp()::text WHERE execution_id = %(key)s",
    "insert": "INSERT INTO executions (pipeline_name, status) VALUES ('one', 'completed')",
}
_MANY: LiteralString = (
    "UPDATE executions SET error = %(text)s WHERE execution_id IN"
    " (SELECT execution_id FROM executions ORDER BY execution_id LIMIT %(rows)s)"
)


def capture(setup: Setup) -> None:
    with setup.server() as server:
        alone = history(server, executions=setup.rows)
        alone.empty_target()
        alone.move(EXECUTIONS)
        captured = copy_of(server, alone, "captured")
        _begin(captured)
        keys = _keys(alone)
        for commit in ("on", "off"):
            for name, statement in _KINDS.items():
                ratios = [_single(alone, captured, statement, keys, commit) for _ in range(setup.rounds)]
                print(
                    f"  {name} of one row, synchronous_commit = {commit}: captured takes {Spread.of(ratios)} of alone"
                )
        ratios = [_many(alone, captured) for _ in range(setup.rounds)]
        print(f"  update of {min(_BULK, setup.rows):,} rows: captured takes {Spread.of(ratios)} of alone", flush=True)
        _apply(captured)
        for commit in ("on", "off"):
            for _ in range(setup.rounds):
                _catch_up(captured, setup.rows, commit)
            for _ in range(setup.rounds):
                _keep_up(captured, commit)


def _begin(captured: History) -> None:
    with connect(captured.url) as connection:
        tables = find_tables(connection, load(EXECUTIONS), source_schema=None, target_schema=None)
        (migration,) = ledger.migrations(connection)
        start(connection, tables, migration.migration_id, patience=Patience(), stop=threading.Event())


def _keys(alone: History) -> list[str]:
    with alone.connect() as connection:
        found = connection.execute("SELECT execution_id::text FROM executions ORDER BY execution_id").fetchall()
    return random.Random(7).sample([key for (key,) in found], min(_SINGLE, len(found)))


def _writer(connection: Connection, statement: LiteralString, keys: list[str]) -> Callable[[int], object]:
    return lambda number: connection.execute(statement, {"key": keys[number % len(keys)]})


def _single(alone: History, captured: History, statement: LiteralString, keys: list[str], commit: str) -> float:
    with ExitStack() as stack:
        calls = {}
        for name, side in (("alone", alone), ("captured", captured)):
            connection = stack.enter_context(side.connect())
            connection.execute("SELECT set_config('synchronous_commit', %s, false)", [commit])
            calls[name] = _writer(connection, statement, keys)
        taken = medians(calls, len(keys))
    return taken["captured"] / taken["alone"]


def _many(alone: History, captured: History) -> float:
    def write(side: History) -> Callable[[int], object]:
        def call(number: int) -> None:
            with side.connect() as connection:
                connection.execute(_MANY, {"text": f"bulk {number}", "rows": _BULK})

        return call

    taken = medians({"alone": write(alone), "captured": write(captured)}, 3)
    for side in (alone, captured):
        with side.connect() as connection:
            connection.execute("VACUUM executions")
            connection.execute("CHECKPOINT")
    return taken["captured"] / taken["alone"]


def _apply(captured: History) -> int:
    """Everything; how many changes there were."""
    (done,) = follow(captured.url, options=Options(once=True), stop=threading.Event(), report=lambda _: None)
    return done.applied.entries


def _catch_up(captured: History, rows: int, commit: str) -> None:
    began = time.perf_counter()
    assert not _apply(captured)
    fixed = time.perf_counter() - began
    written = _writing(captured, commit)
    with captured.connect() as connection:
        # One statement for each row, as an application's would be; the log does not say who made its entries.
        connection.execute(
            "DO $$ DECLARE one record; BEGIN FOR one IN SELECT execution_id FROM executions LIMIT 200000 LOOP"
            " UPDATE executions SET error = clock_timestamp()::text WHERE execution_id = one.execution_id;"
            " END LOOP; END $$"
        )
    began = time.perf_counter()
    applied = _apply(captured)
    seconds = time.perf_counter() - began
    assert applied == written + min(200_000, rows)
    rate, other = applied / seconds, written / _SECONDS
    print(
        f"  one writer alone, synchronous_commit = {commit}: {other:,.0f} rows/s; "
        f"{applied:,} changes applied with {rate:,.0f} rows/s, "
        f"{rate / other:.1f} times as fast; without start and end, {fixed:.2f} s of it, "
        f"{applied / (seconds - fixed):,.0f} rows/s, {load_average()}",
        flush=True,
    )


def _keep_up(captured: History, commit: str) -> None:
    stop, behind = threading.Event(), []
    following = threading.Thread(
        target=follow,
        args=(captured.url,),
        kwargs={"options": Options(), "stop": stop, "report": lambda done: behind.append(done[0].lag.entries)},
    )
    following.start()
    written = _writing(captured, commit)
    stop.set()
    following.join()
    began = time.perf_counter()
    left = _apply(captured)
    print(
        f"  one writer beside the applier, synchronous_commit = {commit}: "
        f"{written / _SECONDS:,.0f} rows/s; {max(behind):,} changes behind at most, "
        f"{left:,} at the end, applied in {time.perf_counter() - began:.2f} s, {load_average()}",
        flush=True,
    )


def _writing(captured: History, commit: str) -> int:
    """How many rows one session has written."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_write, captured.url, commit).result()


def _write(url: str, commit: str) -> int:
    with connect(url) as connection:
        connection.execute("SELECT set_config('synchronous_commit', %s, false)", [commit])
        found = connection.execute("SELECT execution_id::text FROM executions ORDER BY random()").fetchall()
        write = _writer(connection, _KINDS["update"], [key for (key,) in found])
        written, end = 0, time.perf_counter() + _SECONDS
        while time.perf_counter() < end:
            write(written)
            written += 1
    return written
