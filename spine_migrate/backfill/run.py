"""One run of a backfill: start or resume, workers, sweep, links, and what came of it."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import psycopg

from spine_migrate.backfill import offline, sweep
from spine_migrate.backfill.announce import Announcer
from spine_migrate.backfill.batch import tid
from spine_migrate.backfill.pace import Pace, Progress
from spine_migrate.backfill.setting import Setting, open_setting
from spine_migrate.backfill.sizing import TARGET_SECONDS
from spine_migrate.backfill.throttle import throttle
from spine_migrate.backfill.worker import Worker
from spine_migrate.carry import links
from spine_migrate.carry.control import Control, cancelled_by
from spine_migrate.carry.settings import Settings
from spine_migrate.carry.tables import Tables, find_tables, is_started, live, lock_name
from spine_migrate.db import catalog, ledger
from spine_migrate.db.cancelling import GLANCE
from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import explained, is_transient
from spine_migrate.db.queries import query
from spine_migrate.errors import Interrupted, Refused
from spine_migrate.mapping.model import Mapping
from spine_migrate.notices import NOBODY, Observer, Subject

# Called with the control connection, the tables and the number of the migration.
Prepare = Callable[[Connection, Tables, int], None]
_NOT_RECORDED = ("wait", "retry_seconds")

# Segments per worker: enough that none waits long for the last one.
SEGMENTS_PER_WORKER = 8


@dataclass(frozen=True)
class Options:
    """``batch_rows`` None sizes batches by ``target_seconds``. ``limit`` bounds the rows of this run. ``wait`` waits
    for another run of the migration instead of refusing. ``retry_seconds`` is how long a fault of the server or network
    is outlived. The limits are those of ``Settings``; the run waits while the file ``pause_file`` is there.
    """

    batch_rows: int | None = None
    workers: int = 1
    limit: int | None = None
    rows_per_second: float | None = None
    offline: bool = False
    wait: bool = False
    retry_seconds: float = 60.0
    target_seconds: float = TARGET_SECONDS
    nice_ratio: float = 0.0
    max_lag_bytes: int | None = None
    max_lock_waits: int | None = None
    max_active_sessions: int | None = None
    max_wal_rate: int | None = None
    pause_file: str | None = None

    @property
    def settings(self) -> Settings:
        """Those that may be changed while the run is going."""
        return Settings(
            batch_size=self.batch_rows,
            rows_per_second=self.rows_per_second,
            target_seconds=self.target_seconds,
            nice_ratio=self.nice_ratio,
            max_lag_bytes=self.max_lag_bytes,
            max_lock_waits=self.max_lock_waits,
            max_active_sessions=self.max_active_sessions,
            max_wal_rate=self.max_wal_rate,
        )


@dataclass(frozen=True)
class Outcome:
    """``state``: done, limit, interrupted, or nothing-to-do. Counts are of the whole migration, ``rows`` of this
    run.
    """

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
    prepare: Prepare | None = None,
    observer: Observer = NOBODY,
    ours: set[int] | None = None,
) -> Outcome:
    """Move all rows of a mapping that are not moved yet.

    ``stop`` ends the run after the batches in flight, ``cancel`` cancels those too. ``report`` is called after each
    batch, and when the run is held back, ``observer`` of all that happens, ``prepare`` under the migration's lock
    before the first batch takes its snapshot. ``ours`` are server processes that work for it, such as an applier's;
    those of the workers are added. Raises Refused, Drift, Interrupted, ServerFault, ConfigurationError.
    """
    announcer = Announcer(observer, Subject(mapping.name))
    control = Control(url, stop=stop, retry_seconds=options.retry_seconds, told=announcer.retry)
    try:
        with control:
            control.retried(ledger.require)
            tables = control.retried(
                lambda connection: find_tables(
                    connection, mapping, source_schema=source_schema, target_schema=target_schema
                )
            )
            control.hold(lock_name(tables), wait=options.wait)
            run = _Run(
                control,
                tables,
                options,
                stop,
                cancel or threading.Event(),
                report,
                prepare,
                announcer,
                set() if ours is None else ours,
            )
            return run.outcome()
    except psycopg.Error as error:
        if stop.is_set() and is_transient(error):
            raise Interrupted("Stopped; what was committed stays, run the same command to go on.") from error
        raise explained(error) from error


@dataclass(frozen=True)
class _Run:
    control: Control
    tables: Tables
    options: Options
    stop: threading.Event
    cancel: threading.Event
    report: Callable[[Progress], None]
    prepare: Prepare | None
    announcer: Announcer
    ours: set[int]

    def outcome(self) -> Outcome:
        self._ask()
        setting = self.control.retried(self._open)
        values = {"migration_id": setting.migration_id}
        if self.announcer.subject.migration_id is None:
            self.announcer.subject = replace(self.announcer.subject, migration_id=setting.migration_id)
            self.announcer.transition(None, setting.step)
        self.control.connection.execute(query("backfill", "abandon_rewritten"), values)
        with throttle(
            self.control.url,
            setting,
            self.options.settings,
            pause_file=self.options.pause_file,
            ours=self.ours,
            stop=self.stop,
            retry_seconds=self.options.retry_seconds,
        ) as held_back:
            pace = Pace(
                _start(self.control.connection, setting),
                limit=self.options.limit,
                rows_per_second=self.options.rows_per_second,
                nice_ratio=self.options.nice_ratio,
                stop=self.stop,
                report=self.report,
                announcer=self.announcer,
                throttle=held_back,
            )
            return self._move(setting, pace)

    def _move(self, setting: Setting, pace: Pace) -> Outcome:
        while True:
            if setting.step == "backfill":
                self._scan(setting, pace)
            if not pace.exhausted:
                pace.ready()
            # All of it can be done twice, so a server that is lost meanwhile costs a repetition and nothing else.
            with cancelled_by(self.cancel, [self.control]):
                outcome = self.control.retried(lambda connection: self._finish(connection, setting, pace))
            if outcome is not None:
                return outcome

    def _ask(self) -> None:
        """Let observers veto before anything is changed, with no transaction open meanwhile."""
        found = self.control.retried(lambda connection: live(connection, self.tables))
        self.announcer.subject = Subject(
            self.tables.binding.mapping.name,
            found.migration_id if found is not None else None,
            str(self.tables.source.name),
            str(self.tables.target.name),
        )
        self.announcer.before("backfill", found.step if found is not None else None)

    def _open(self, connection: Connection) -> Setting:
        options = self.options
        if options.offline and not is_started(connection, self.tables):
            offline.check(connection, self.tables)

        def take_away(migration_id: int) -> None:
            if options.offline:
                offline.take_away(connection, self.tables, migration_id)

        recorded = {name: value for name, value in asdict(options).items() if name not in _NOT_RECORDED}
        ((since,),) = connection.execute(query("backfill", "oldest_xid")).fetchall()
        opening = partial(
            open_setting,
            connection,
            self.tables,
            parts=options.workers * SEGMENTS_PER_WORKER,
            options=recorded | {"since_xid": since},
            also=take_away,
        )
        setting = opening()
        if self.prepare is not None:
            self.prepare(connection, self.tables, setting.migration_id)
            # It may have begun to capture changes, which batches have to know.
            setting = replace(opening(), started=setting.started)
        ((begun,),) = connection.execute(query("offline", "begun"), {"migration_id": setting.migration_id}).fetchall()
        if options.offline and setting.step == "backfill" and not begun:
            raise Refused(
                "begun-online", f"Migration {setting.migration_id} was begun without --offline; leave the option out."
            )
        return setting

    def _scan(self, setting: Setting, pace: Pace) -> None:
        """Let the workers empty the queue of segments. The first failure stops the others after their batch."""
        waiting: queue.SimpleQueue[ledger.Checkpoint] = queue.SimpleQueue()
        for point in self.control.retried(lambda connection: ledger.checkpoints(connection, setting.migration_id)):
            if not point.done:
                waiting.put(point)
        workers = [
            Worker(
                setting.batches,
                self.control.open_worker,
                pace,
                fixed_rows=self.options.batch_rows,
                retry_seconds=self.options.retry_seconds,
                opened=self.ours.add,
            )
            for _ in range(max(1, min(self.options.workers, waiting.qsize())))
        ]
        with ThreadPoolExecutor(len(workers), thread_name_prefix="spine-worker") as pool:
            futures = [pool.submit(worker.run, waiting) for worker in workers]
            watcher = threading.Thread(target=_cancel_on, args=(self.cancel, workers, futures), daemon=True)
            watcher.start()
            failure: BaseException | None = None
            for future in as_completed(futures):
                if (error := future.exception()) is not None and failure is None:
                    failure = error
                    self.stop.set()
        if failure is not None and not self.cancel.is_set():
            raise failure

    def _finish(self, connection: Connection, setting: Setting, pace: Pace) -> Outcome | None:
        """Sweep, links, and the last transition; or, where the run was cut short, just the account.

        None where a crash of the server has taken back the end of a segment that a worker had finished.
        """
        binding, migration = setting.tables.binding, setting.migration_id
        scanned = all(point.done for point in ledger.checkpoints(connection, migration))
        if not (scanned or self.stop.is_set() or pace.exhausted):
            return None
        complete = scanned and not self.stop.is_set()
        if complete and setting.batches.statements.offline:
            held = _reasons(connection, migration)
            complete = offline.build(connection, setting, pace, self.stop)
            self.announcer.quarantined(_reasons(connection, migration) - held)
        found = sweep.account(connection, binding, migration)
        if complete and not found.proven:
            pace.stage("sweep")
            complete = sweep.sweep(connection, binding, setting.batches, pace)
            found = sweep.account(connection, binding, migration)
        complete = complete and not self.stop.is_set()
        linked = links.Links(0, 0, 0)
        if not setting.batches.statements.offline:
            pace.stage("links")
            linked = links.complete(connection, binding, migration, everything_moved=complete, between=pace.between)
        if complete and setting.step != "done":
            with connection.transaction():
                ledger.set_step(connection, migration, "done")
                ledger.audit(connection, "backfill done", migration_id=migration, **asdict(found))
            self.announcer.transition(setting.step, "done", ends="backfill")
        progress = pace.progress
        nothing = setting.step == "done" and not progress.rows
        return Outcome(
            mapping=binding.mapping.name,
            migration_id=migration,
            state=("nothing-to-do" if nothing else "done") if complete else self._cut_short(),
            rows=progress.rows,
            source_rows=found.source_rows,
            moved=found.moved,
            adopted=found.adopted,
            quarantined=dict(_reasons(connection, migration)),
            links=linked,
            missing_columns=binding.missing,
            batches=progress.batches,
            seconds=progress.seconds,
        )

    def _cut_short(self) -> str:
        return "interrupted" if self.stop.is_set() else "limit"


def _reasons(connection: Connection, migration_id: int) -> Counter[str]:
    return Counter(dict(connection.execute(query("backfill", "reasons"), {"migration_id": migration_id}).fetchall()))


def _cancel_on(cancel: threading.Event, workers: list[Worker], futures: list[Any]) -> None:
    while not all(future.done() for future in futures):
        if cancel.wait(GLANCE):
            for worker in workers:
                worker.cancel()
            wait(futures, timeout=GLANCE)


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
