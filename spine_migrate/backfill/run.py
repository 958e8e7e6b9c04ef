"""One run of a backfill: start or resume, workers, sweep, links, and what came of it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psycopg

from spine_migrate.backfill import links, offline, sweep
from spine_migrate.backfill.batch import tid
from spine_migrate.backfill.pace import Pace, Progress
from spine_migrate.backfill.setting import Setting, Tables, find_tables, is_started, lock_name, open_setting
from spine_migrate.backfill.worker import Worker
from spine_migrate.db import catalog, ledger
from spine_migrate.db.connect import Connection, connect
from spine_migrate.db.faults import explained
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused
from spine_migrate.mapping.model import Mapping

# A session that moves rows: a batch's checkpoint is in its own transaction, so a commit lost with the server loses both
# (PostgreSQL manual, 28.4); sorts and hashes of a batch stay in memory; compiling a plan costs more than it saves.
WORKER_SETTINGS = {"synchronous_commit": "off", "work_mem": "64MB", "jit": "off", "statement_timeout": "0"}

# Segments per worker: enough that none waits long for the last one.
SEGMENTS_PER_WORKER = 8


@dataclass(frozen=True)
class Options:
    """``batch_rows`` None sizes batches by time. ``limit`` bounds the rows of this run. ``wait`` waits for another run of
    the same migration instead of refusing. ``retry_seconds`` is how long a fault of the server or network is outlived."""

    batch_rows: int | None = None
    workers: int = 1
    limit: int | None = None
    rows_per_second: float | None = None
    offline: bool = False
    wait: bool = False
    retry_seconds: float = 60.0


@dataclass(frozen=True)
class Outcome:
    """``state``: done, limit, interrupted, or nothing-to-do. Counts are of the whole migration, ``rows`` of this run."""

    mapping: str
    migration_id: int
    state: str
    rows: int
    source_rows: int
    moved: int
    adopted: int
    quarantined: dict[str, int]
    links: links.Links
    missing_columns: list[str]
    batches: int
    seconds: float

    @property
    def clean(self) -> bool:
        return not self.quarantined


def run(
    url: str | None,
    mapping: Mapping,
    *,
    options: Options,
    stop: threading.Event,
    report: Callable[[Progress], None],
    source_schema: str | None = None,
    target_schema: str | None = None,
    cancel: threading.Event | None = None,
) -> Outcome:
    """Move all rows of a mapping that are not moved yet.

    ``stop`` ends the run after the batches in flight, ``cancel`` cancels those too. ``report`` is called after each batch.
    Raises Refused, Drift, ServerFault.
    """
    with connect(url, settings=WORKER_SETTINGS) as control:
        try:
            ledger.require(control)
            tables = find_tables(control, mapping, source_schema=source_schema, target_schema=target_schema)
            with only_one(control, tables, wait=options.wait):
                return _run(url, control, tables, options, stop, cancel or threading.Event(), report)
        except psycopg.Error as error:
            raise explained(error) from error


@contextmanager
def only_one(control: Connection, tables: Tables, *, wait: bool) -> Iterator[None]:
    """Hold the lock of a migration for as long as this session lives. Raises Refused where another one has it."""
    name = {"name": lock_name(tables)}
    if wait:
        control.execute("SET lock_timeout = 0")
        control.execute(query("backfill", "lock"), name)
        control.execute("RESET lock_timeout")
    else:
        row = control.execute(query("backfill", "try_lock"), name).fetchone()
        if row is None or not row[0]:
            raise Refused(
                "already-running",
                f"Another run is at work on {tables.binding.mapping.name}; wait for it, or give --wait.",
            )
    yield


def _run(
    url: str | None,
    control: Connection,
    tables: Tables,
    options: Options,
    stop: threading.Event,
    cancel: threading.Event,
    report: Callable[[Progress], None],
) -> Outcome:
    recorded = {name: value for name, value in asdict(options).items() if name not in ("wait", "retry_seconds")}
    if options.offline and not is_started(control, tables):
        offline.check(control, tables)

    def take_away(migration_id: int) -> None:
        if options.offline:
            offline.take_away(control, tables, migration_id)

    parts = options.workers * SEGMENTS_PER_WORKER
    setting = open_setting(control, tables, parts=parts, options=recorded, also=take_away)
    if options.offline and setting.step == "backfill" and not setting.batches.statements.offline:
        raise Refused(
            "begun-online", f"Migration {setting.migration_id} was begun without --offline; leave the option out."
        )
    control.execute(query("backfill", "abandon_rewritten"), {"migration_id": setting.migration_id})
    pace = Pace(
        _start(control, setting),
        limit=options.limit,
        rows_per_second=options.rows_per_second,
        stop=stop,
        report=report,
    )
    if setting.step == "backfill":
        _scan(url, control, setting, options, pace, cancel)
    return _finish(control, setting, pace, stop)


def _start(control: Connection, setting: Setting) -> Progress:
    """Where the migration stands before this run. A table that has grown since counts at its present size."""
    now = {
        (leaf.name.schema, leaf.name.table): leaf.blocks for leaf in catalog.leaves(control, setting.tables.source.oid)
    }
    found = [point for point in ledger.checkpoints(control, setting.migration_id) if point.filenode]
    ends = [
        point.high_block
        if point.high_block is not None
        else max(point.low_block, now.get((point.leaf_schema, point.leaf_table), 0))
        for point in found
    ]
    return Progress(
        mapping=setting.tables.binding.mapping.name,
        stage="backfill",
        blocks=sum(
            (end if point.done else min(tid(point.position)[0], end)) - point.low_block
            for point, end in zip(found, ends, strict=True)
        ),
        total_blocks=sum(end - point.low_block for point, end in zip(found, ends, strict=True)),
        rows=0,
        moved=0,
        quarantined=0,
        accounted=sum(p.rows_moved + p.rows_adopted + p.rows_quarantined for p in found),
        batches=0,
        seconds=0.0,
    )


def _scan(
    url: str | None, control: Connection, setting: Setting, options: Options, pace: Pace, cancel: threading.Event
) -> None:
    """Let the workers empty the queue of segments. The first failure stops the others after their batch."""
    waiting: queue.SimpleQueue[ledger.Checkpoint] = queue.SimpleQueue()
    for point in ledger.checkpoints(control, setting.migration_id):
        if not point.done:
            waiting.put(point)
    workers = [
        Worker(
            setting.batches,
            lambda: connect(url, settings=WORKER_SETTINGS),
            pace,
            fixed_rows=options.batch_rows,
            retry_seconds=options.retry_seconds,
        )
        for _ in range(max(1, min(options.workers, waiting.qsize())))
    ]
    with ThreadPoolExecutor(len(workers), thread_name_prefix="spine-worker") as pool:
        futures = [pool.submit(worker.run, waiting) for worker in workers]
        watcher = threading.Thread(target=_cancel_on, args=(cancel, workers, futures), daemon=True)
        watcher.start()
        failure: BaseException | None = None
        for future in as_completed(futures):
            if (error := future.exception()) is not None and failure is None:
                failure = error
                pace.stop.set()
    if failure is not None and not cancel.is_set():
        raise failure


def _cancel_on(cancel: threading.Event, workers: list[Worker], futures: list[Any]) -> None:
    while not all(future.done() for future in futures):
        if cancel.wait(0.2):
            for worker in workers:
                worker.cancel()
            return


def _finish(control: Connection, setting: Setting, pace: Pace, stop: threading.Event) -> Outcome:
    """Sweep, links, and the last transition; or, where the run was cut short, just the account."""
    binding = setting.tables.binding
    migration = setting.migration_id
    everything = all(point.done for point in ledger.checkpoints(control, migration))
    if everything and setting.batches.statements.offline and not stop.is_set():
        offline.build(control, setting, pace.stage)
    found = sweep.account(control, binding, migration)
    if everything and not found.balanced and not stop.is_set():
        pace.stage("sweep")
        sweep.sweep(control, binding, setting.batches, stop, lambda _: None)
        found = sweep.account(control, binding, migration)
    stopped = stop.is_set()
    pace.stage("links")
    linked = links.Links(0, 0, 0)
    if not setting.batches.statements.offline:
        linked = links.complete(control, binding, migration, everything_moved=everything and not stopped)
    state = "interrupted" if stopped and not everything else "done" if everything else "limit"
    if everything and not stopped:
        if setting.step == "done" and not pace.progress.rows:
            state = "nothing-to-do"
        if setting.step != "done":
            with control.transaction():
                ledger.set_step(control, migration, "done")
                ledger.audit(control, "backfill done", migration_id=migration, **asdict(found))
    reasons = dict(control.execute(query("backfill", "reasons"), {"migration_id": migration}).fetchall())
    return Outcome(
        mapping=binding.mapping.name,
        migration_id=migration,
        state=state,
        rows=pace.progress.rows,
        source_rows=found.source_rows,
        moved=found.moved,
        adopted=found.adopted,
        quarantined=reasons,
        links=linked,
        missing_columns=binding.missing,
        batches=pace.progress.batches,
        seconds=pace.progress.seconds,
    )
