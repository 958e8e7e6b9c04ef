"""Repair: what a comparison found wrong on the target is made right from the legacy rows, in batches.

Rows that are missing are moved as a run would move them, fields that differ are written from forward(source), rows of
ours without a legacy row are removed. The legacy tables are only read. It works under the locks of a run; each batch is
one transaction with all that belongs to it, so that it can be killed at any moment and given again.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from spine_migrate.backfill.pace import Progress
from spine_migrate.backfill.repair_batch import Kept, Mended, Wrong, mend
from spine_migrate.backfill.setting import Setting, open_setting
from spine_migrate.carry import links
from spine_migrate.carry.control import SETTINGS, Control
from spine_migrate.carry.known import Known, chosen, held, known
from spine_migrate.carry.rows import REPAIRS, Care, refusal
from spine_migrate.db import ledger
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.db.faults import blames_row, explained
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute, rows
from spine_migrate.errors import Refused
from spine_migrate.mapping.emit.repair import Repairs, repairs
from spine_migrate.mapping.model import Mapping

KINDS = ("missing", "differing", "extra")
# How many rows that were left a result names.
NAMED = 20


@dataclass(frozen=True)
class Options:
    """``only`` kinds of ``KINDS``, all where it is empty. ``max_rows`` is for all migrations together."""

    only: tuple[str, ...] = ()
    batch_size: int = 1000
    max_rows: int | None = None
    wait: bool = False
    retry_seconds: float = 60.0

    @property
    def kinds(self) -> tuple[str, ...]:
        return self.only or KINDS


@dataclass
class Repaired:
    """One migration. ``found`` rows by kind, ``rows`` repaired by kind (``quarantined``: missing rows that the rules
    refuse), ``fields`` by column, ``kept`` by reason, of which some are ``examples``. ``recounted``: by how much the
    ledger's count of moved rows was put right before, where rows had come or gone behind its back.
    """

    mapping: str
    migration_id: int
    found: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    fields: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    examples: list[Kept] = field(default_factory=list)
    recounted: int = 0

    def add(self, mended: Mended) -> None:
        self.rows.update(mended.rows)
        self.fields.update(mended.fields)
        for one in mended.kept:
            self.keep(one)

    def keep(self, one: Kept) -> None:
        self.kept[one.reason] += 1
        if len(self.examples) < NAMED:
            self.examples.append(one)


@dataclass(frozen=True)
class Outcome:
    migrations: list[Repaired]
    interrupted: bool


def plan(url: str | None, *, mappings: Sequence[Mapping] = ()) -> list[Repaired]:
    """What is wrong, in one snapshot; takes no lock and changes nothing. Raises as ``repair`` does."""
    try:
        with connect(url, settings={**SETTINGS, **PINNED}) as connection:
            members = _members(connection, mappings)
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            with connection.transaction(force_rollback=True):
                return [_found(connection, one) for one in members]
    except psycopg.Error as error:
        raise explained(error) from error


def _found(connection: Connection, one: Known) -> Repaired:
    made = repairs(one.tables.binding, one.tables.target.columns)
    result = Repaired(one.mapping.name, one.migration.migration_id)
    count = sql.SQL("SELECT kind, count(*) FROM ({}) AS x GROUP BY kind ORDER BY kind").format(made.found())
    result.found.update(dict(execute(connection, count, one.migration.migration_id).fetchall()))
    _beyond(connection, made, result)
    return result


def repair(
    url: str | None,
    *,
    mappings: Sequence[Mapping] = (),
    options: Options,
    stop: threading.Event,
    report: Callable[[Progress], None],
    cancel: threading.Event | None = None,
) -> Outcome:
    """Repair the migrations of ``mappings``, or all.

    ``stop`` ends it after the batch in flight, ``cancel`` cancels that too. Raises ConfigurationError; Refused:
    ``unfinished``, ``ledger-outdated``, ``mapping-changed``, ``undo-unfinished``, ``offline-unfinished``,
    ``already-running``, ``rows-kept``; Drift, Interrupted, ServerFault.
    """
    try:
        with held(
            url,
            lambda connection: _members(connection, mappings),
            stop=stop,
            cancel=cancel,
            retry_seconds=options.retry_seconds,
            wait=options.wait,
        ) as (connection, members, controls):
            _require_table(connection)
            budget = _Budget(options.max_rows)
            work = [
                _Repairing(controls[one.migration.migration_id], _open(connection, one), options, stop, report, budget)
                for one in members
            ]
            for one in work:
                one.recount()
            # Rows come after those that they refer to, and go before them.
            for one in work:
                one.run([kind for kind in options.kinds if kind != "extra"])
            for one in reversed(work):
                one.run([kind for kind in options.kinds if kind == "extra"])
            return Outcome([one.end() for one in work], stop.is_set())
    except psycopg.Error as error:
        raise explained(error) from error


def _members(connection: Connection, mappings: Sequence[Mapping]) -> list[Known]:
    """Those that others refer to first."""
    found = [known(connection, one, mappings) for one in chosen(connection, mappings=[m.name for m in mappings])]
    for one in found:
        if one.migration.step != "done":
            raise Refused(
                "unfinished",
                f"Migration {one.migration.migration_id} of {one.mapping.name} is in step {one.migration.step}; "
                f"a repair is for one that is done.",
            )
    return sorted(found, key=lambda one: (one.mapping.required is not None, one.migration.migration_id))


def _require_table(connection: Connection) -> None:
    row = connection.execute(query("repair", "installed")).fetchone()
    if row is None or not row[0]:
        raise Refused(
            "ledger-outdated", "The ledger has no table for what a repair changes; run spine-migrate db upgrade first."
        )


def _open(connection: Connection, one: Known) -> Setting:
    setting = open_setting(connection, one.tables, parts=1, options={}, also=lambda _: None)
    if setting.batches.statements.offline:
        raise Refused(
            "offline-unfinished",
            f"The offline load of {one.mapping.name} (migration {setting.migration_id}) is not finished; "
            f"run the command that began it again first.",
        )
    return setting


def _beyond(connection: Connection, made: Repairs, result: Repaired) -> None:
    """What no repair can settle: which of two rows is right, or what became of a row that is only in quarantine."""
    ((entries, discarded),) = [
        (row["entries"], row["discarded"])
        for row in rows(connection, made.gone(), result.migration_id, 0)
        if row["entries"] is not None
    ]
    if entries - discarded:
        result.found["gone"] = entries - discarded
    for source in (True, False):
        for key, _, _ in execute(connection, made.duplicates(source=source), result.migration_id, NAMED):
            result.keep(Kept("duplicate", f"target {key}", "duplicate"))


@dataclass
class _Budget:
    rows: int | None

    def take(self, wanted: int) -> int:
        return wanted if self.rows is None else min(wanted, self.rows)

    def spend(self, count: int) -> None:
        if self.rows is not None:
            self.rows -= count


@dataclass
class _Repairing:
    control: Control
    setting: Setting
    options: Options
    stop: threading.Event
    report: Callable[[Progress], None]
    budget: _Budget
    result: Repaired = field(init=False)
    repairs: Repairs = field(init=False)
    began: float = field(default_factory=time.monotonic)
    looked: bool = False

    def __post_init__(self) -> None:
        tables = self.setting.tables
        self.result = Repaired(tables.binding.mapping.name, self.setting.migration_id)
        self.repairs = repairs(tables.binding, tables.target.columns)

    def recount(self) -> None:
        """Let the ledger count what is on the target, so that each batch can keep it so by what it adds and removes."""
        self.result.recounted += self.control.retried(self._recount)

    def _recount(self, connection: Connection) -> int:
        migration_id = self.result.migration_id
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with connection.transaction():
            ((ours, _),) = execute(connection, self.repairs.target_counts()).fetchall()
            values = {"migration_id": migration_id}
            ((moved, adopted, _),) = connection.execute(query("backfill", "counts"), values).fetchall()
            off = int(ours - moved - adopted)
            if off:
                counted = {**values, "segment": REPAIRS, "moved": off, "adopted": 0, "quarantined": 0}
                connection.execute(query("backfill", "count_repairs"), counted)
                ledger.audit(connection, "counted anew", migration_id=migration_id, before=moved + adopted, now=ours)
        return off

    def run(self, kinds: Sequence[str]) -> None:
        """Find what is wrong, and repair rows of these kinds."""
        if not kinds or self.stop.is_set():
            return
        self.control.retried(self._complete_links)
        wrong = self.control.retried(self._look)
        self.result.found.update(one.kind for one in wrong if one.kind in kinds)
        for one in [one for one in wrong if one.kind == "doubled" and not self.looked]:
            self.result.found["doubled"] += 1
            self.result.keep(Kept("doubled", one.key, "doubled"))
        self.looked = True
        for kind in kinds:
            rest = [one for one in wrong if one.kind == kind]
            while rest:
                rest = self._through(kind, rest)

    def _through(self, kind: str, wrong: list[Wrong]) -> list[Wrong]:
        """Once through these rows; gives those to try again: of rows that pointed to them, some have gone."""
        referenced: list[Kept] = []
        done = self.result.rows[kind]
        at = 0
        while at < len(wrong):
            batch = wrong[at : at + self.budget.take(self.options.batch_size)]
            if not batch or self.stop.is_set():
                return []
            at += len(batch)
            for mended in self._batch(kind, batch):
                self.budget.spend(sum(mended.rows.values()))
                referenced += [one for one in mended.kept if one.reason == "referenced"]
                mended.kept = [one for one in mended.kept if one.reason != "referenced"]
                self.result.add(mended)
            self.report(self._progress())
        if referenced and self.result.rows[kind] > done:
            keys = {one.key for one in referenced}
            return [one for one in wrong if one.key in keys]
        for one in referenced:
            self.result.keep(one)
        return []

    def _batch(self, kind: str, batch: list[Wrong]) -> Iterator[Mended]:
        """Halves where the server refuses a row, until the row at fault stands alone."""
        parts = [(batch, Care(orphans=True, collisions=True))]
        while parts:
            part, care = parts.pop()
            try:
                yield self.control.retried(partial(self._mend, part, care))
            except psycopg.Error as error:
                if not blames_row(error):
                    raise
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [(part[middle:], care), (part[:middle], care)]
                elif kind == "missing" and care.refused is None:
                    parts.append((part, replace(care, refused=refusal(error))))
                else:
                    about = " ".join(filter(None, (error.sqlstate, error.diag.constraint_name)))
                    yield Mended(kept=[Kept(kind, part[0].key, "server_refused", about)])

    def _mend(self, part: list[Wrong], care: Care, connection: Connection) -> Mended:
        return mend(connection, self.setting, self.repairs, part, care=care)

    def _look(self, connection: Connection) -> list[Wrong]:
        cursor = psycopg.RawCursor(connection, row_factory=class_row(Wrong))
        return cursor.execute(self.repairs.found(), (self.result.migration_id,), prepare=False).fetchall()

    def _complete_links(self, connection: Connection) -> None:
        """A link that is open although its row is there is completed, as a run would do it."""
        binding = self.setting.tables.binding
        links.complete(connection, binding, self.result.migration_id, everything_moved=True)

    def end(self) -> Repaired:
        """Complete what waits for rows that came, count what no repair can settle, and put it on record."""
        self.control.retried(self._complete_links)
        self.control.retried(lambda connection: _beyond(connection, self.repairs, self.result))
        self.control.retried(self._audit)
        return self.result

    def _audit(self, connection: Connection) -> None:
        result = self.result
        if result.found:
            ledger.audit(
                connection,
                "repaired",
                migration_id=result.migration_id,
                rows=dict(result.rows),
                fields=dict(result.fields),
                kept=dict(result.kept),
            )

    def _progress(self) -> Progress:
        done, found = sum(self.result.rows.values()), sum(self.result.found.values())
        return Progress(
            mapping=self.result.mapping,
            stage="repair",
            blocks=done,
            total_blocks=max(found, done),
            rows=done,
            moved=done,
            quarantined=self.result.rows["quarantined"],
            accounted=done,
            batches=0,
            seconds=time.monotonic() - self.began,
        )
