"""Retrying rows in quarantine: judged and moved anew, as the row and the mapping are now.

Each batch is one transaction: what is moved leaves the quarantine in it, what is refused once more stays, with one more
attempt and the reason of today. So a retry can be killed at any moment and given again. Rows that wait only for a row
that has been released, the events of an execution, come along.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from spine_migrate.backfill.accept import Accepted, accept
from spine_migrate.backfill.pace import Progress
from spine_migrate.backfill.quarantine import Selected, absent
from spine_migrate.backfill.release import Pages, attempt, pages_of, pages_released
from spine_migrate.backfill.setting import Setting, open_setting
from spine_migrate.carry import links
from spine_migrate.carry.control import Control
from spine_migrate.carry.known import Known, chosen, held, known, requires
from spine_migrate.carry.rows import Care, Done, halved
from spine_migrate.db import cutovers, ledger
from spine_migrate.db.connect import Connection
from spine_migrate.db.faults import HOT, explained
from spine_migrate.db.queries import query
from spine_migrate.errors import Refused
from spine_migrate.mapping.model import Mapping
from spine_migrate.notices import NOBODY, Batch, Observer, Subject

# How many keys of rows that are gone a result names.
NAMED = 20


@dataclass(frozen=True)
class Options:
    """``accept_mapping``: see ``backfill.accept``. ``discard_gone`` settles entries whose source row is gone.

    ``wait`` waits for a run on the same migration instead of refusing; ``retry_seconds`` is how long a fault of the
    server is outlived.
    """

    accept_mapping: bool = False
    discard_gone: bool = False
    wait: bool = False
    retry_seconds: float = 60.0


@dataclass
class Retried:
    """What became of one migration's entries. ``follows``: they were taken along because of the rows before them."""

    mapping: str
    migration_id: int
    follows: bool
    selected: int = 0
    moved: int = 0
    adopted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    gone: int = 0
    gone_keys: list[str] = field(default_factory=list)
    discarded: int = 0
    links: links.Links = field(default_factory=lambda: links.Links(0, 0, 0))

    @property
    def remaining(self) -> int:
        """Entries that are still in quarantine and not settled."""
        return sum(self.refused.values()) + self.gone - self.discarded


@dataclass(frozen=True)
class Outcome:
    """``absent``: keys that were asked for and are not in quarantine (any more)."""

    migrations: list[Retried]
    accepted: list[Accepted]
    absent: list[str]
    interrupted: bool

    @property
    def clean(self) -> bool:
        return not any(one.remaining for one in self.migrations)


def retry(
    url: str | None,
    selected: Selected,
    *,
    mappings: Sequence[Mapping] = (),
    migration_id: int | None = None,
    options: Options,
    stop: threading.Event,
    report: Callable[[Progress], None],
    cancel: threading.Event | None = None,
    observer: Observer = NOBODY,
) -> Outcome:
    """Retry entries of the migrations of ``mappings``, or of all, and then what follows from them.

    Everything is found and locked before the first row is touched. ``stop`` ends it after the batch in flight,
    ``cancel`` cancels that too. Raises ConfigurationError, Refused, Drift, Interrupted, ServerFault.
    """
    names = [one.name for one in mappings]
    try:
        with held(
            url,
            lambda connection: _involved(connection, names, migration_id, mappings),
            stop=stop,
            cancel=cancel,
            retry_seconds=options.retry_seconds,
            wait=options.wait,
        ) as (connection, involved, controls):
            taken = chosen(connection, mappings=names, migration_id=migration_id)
            missing = absent(connection, taken, selected.keys or [])
            accepted = [accept(connection, one) for one in involved] if options.accept_mapping else []
            retrying = _Retrying(controls, selected, options, stop, report, observer)
            done, interrupted = retrying.run(connection, involved, {one.migration_id for one in taken})
            return Outcome(done, [one for one in accepted if one], missing, interrupted)
    except psycopg.Error as error:
        raise explained(error) from error


def _involved(
    connection: Connection, names: Sequence[str], migration_id: int | None, mappings: Sequence[Mapping]
) -> list[Known]:
    """The chosen migrations, then those that follow from them; each kind in the order in which they began."""
    taken = chosen(connection, mappings=names, migration_id=migration_id)
    parents = [known(connection, one, mappings) for one in taken]
    numbers = {one.migration_id for one in taken}
    if over := [one.migration_id for one in taken if one.step in ("cutover", "retired")]:
        cutovers.refuse(connection, over)
        raise Refused("cut-over", "What was cut over is moved no more; run spine-migrate rollback first.")
    followers = [
        known(connection, one, mappings)
        for one in chosen(connection)
        if one.migration_id not in numbers and requires(one, mappings) in {parent.mapping.name for parent in parents}
    ]
    found = [*parents, *(one for one in followers if any(one.needs(parent) for parent in parents))]
    return sorted(found, key=lambda one: (one.mapping.required is not None, one.migration.migration_id))


@dataclass(frozen=True)
class _Retrying:
    controls: dict[int, Control]
    selected: Selected
    options: Options
    stop: threading.Event
    report: Callable[[Progress], None]
    observer: Observer

    def run(self, connection: Connection, involved: list[Known], taken: set[int]) -> tuple[list[Retried], bool]:
        settings = [self._open(connection, one) for one in involved]
        results: list[Retried] = []
        for one, setting in zip(involved, settings, strict=True):
            if setting.migration_id in taken:
                results.append(self._selected(setting))
            for parent in involved:
                if one.needs(parent):
                    result = Retried(one.mapping.name, setting.migration_id, follows=True)
                    results.append(self._entries(setting, result, pages_released(setting, parent), None))
        return results, self.stop.is_set()

    def _selected(self, setting: Setting) -> Retried:
        migration_id = setting.migration_id
        values = {"migration_id": migration_id, "reasons": self.selected.reasons, "keys": self.selected.keys}
        ((count, last),) = self.controls[migration_id].retried(
            lambda connection: connection.execute(query("quarantine", "selection"), values).fetchall()
        )
        result = Retried(setting.tables.binding.mapping.name, migration_id, follows=False)
        return self._entries(setting, result, pages_of(values, last), count)

    def _open(self, connection: Connection, one: Known) -> Setting:
        setting = open_setting(connection, one.tables, parts=1, options={}, also=lambda _: None)
        if setting.batches.statements.offline:
            raise Refused(
                "offline-unfinished",
                f"The offline load of {one.mapping.name} (migration {setting.migration_id}) is not finished; "
                f"run the command that began it again first.",
            )
        return setting

    def _entries(self, setting: Setting, result: Retried, pages: Pages, count: int | None) -> Retried:
        """Batch by batch; then the links that the moved rows complete."""
        control = self.controls[setting.migration_id]
        after = 0
        while not self.stop.is_set():
            page = control.retried(lambda connection: pages(connection, after))  # noqa: B023 - called at once
            if not page:
                break
            self._batch(control, setting, result, [key for _, key in page])
            after = page[-1][0]
            self.report(_progress(result, count))
        if result.moved or result.adopted or not self.stop.is_set():
            result.links = control.retried(
                lambda connection: links.complete(
                    connection,
                    setting.tables.binding,
                    setting.migration_id,
                    everything_moved=setting.step == "done",
                )
            )
        control.retried(lambda connection: _audit(connection, result))
        return result

    def _batch(self, control: Control, setting: Setting, result: Retried, keys: list[str]) -> None:
        tables = setting.tables
        subject = Subject(
            tables.binding.mapping.name, setting.migration_id, str(tables.source.name), str(tables.target.name)
        )

        def move(part: list[str], care: Care) -> Done:
            discard_gone = self.options.discard_gone
            tried = control.retried(
                lambda connection: attempt(connection, setting, part, care, discard_gone=discard_gone),
                # A single row that is held comes through sooner or later.
                but=() if care.held else HOT,
            )
            result.selected += len(part)
            result.moved += tried.done.moved
            result.adopted += tried.done.adopted
            result.refused.update(tried.refused)
            result.gone += len(tried.gone)
            result.gone_keys += tried.gone[: NAMED - len(result.gone_keys)]
            result.discarded += tried.discarded
            if tried.done.moved or tried.done.adopted:
                self.observer.notice(Batch(subject, tried.done.moved, tried.done.adopted, None))
            return tried.done

        for _ in halved(keys, Care(orphans=True, collisions=True, again=True), move):
            pass


def _progress(result: Retried, count: int | None) -> Progress:
    tried = result.selected
    return Progress(
        mapping=result.mapping,
        stage="retry",
        blocks=tried,
        total_blocks=tried if count is None else max(count, tried),
        rows=tried,
        moved=result.moved,
        quarantined=sum(result.refused.values()),
        accounted=tried,
        batches=0,
        seconds=0.0,
    )


def _audit(connection: Connection, result: Retried) -> None:
    if result.selected:
        ledger.audit(
            connection,
            "quarantine retried",
            migration_id=result.migration_id,
            selected=result.selected,
            moved=result.moved,
            adopted=result.adopted,
            refused=dict(result.refused),
            gone=result.gone,
            discarded=result.discarded,
        )
