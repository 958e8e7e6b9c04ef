"""Migrations of the ledger, with their mappings and tables found again: what retry and undo work on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from spine_migrate.carry.control import Control, cancelled_by
from spine_migrate.carry.tables import Tables, lock_name
from spine_migrate.db import catalog, ledger, retirements
from spine_migrate.db.connect import PINNED, Connection, connect, pin
from spine_migrate.db.faults import let_in
from spine_migrate.db.ledger import Migration
from spine_migrate.errors import ConfigurationError, Refused
from spine_migrate.mapping.bind import bind
from spine_migrate.mapping.load import load, shipped
from spine_migrate.mapping.model import Mapping
from spine_migrate.notices import Before, Observer, Subject, Transition


@dataclass(frozen=True)
class Known:
    """A migration with its mapping, as the file is now, bound to its tables."""

    migration: Migration
    tables: Tables

    @property
    def mapping(self) -> Mapping:
        return self.tables.binding.mapping

    @property
    def subject(self) -> Subject:
        """For notices."""
        source, target = self.tables.source.name, self.tables.target.name
        return Subject(self.mapping.name, self.migration.migration_id, str(source), str(target))

    @property
    def lock(self) -> str:
        return lock_name(self.tables)

    def needs(self, other: Known) -> bool:
        """Whether its rows refer to those of ``other`` and so come after them, and go before them."""
        field = self.mapping.required
        mine, theirs = self.tables, other.tables
        return (
            field is not None
            and field.requires == other.mapping.name
            and mine.source.name.schema == theirs.source.name.schema
            and mine.target.name.schema == theirs.target.name.schema
        )


def ask(observer: Observer, members: Iterable[Known], stage: str) -> None:
    """Before anything is changed, and outside any transaction. Raises Refused where an observer vetoes."""
    for one in members:
        observer.notice(Before(one.subject, stage, one.migration.step))


def tell(observer: Observer, members: Iterable[Known], stage: str, step: str | None = None) -> None:
    """The stage has ended, with the migrations in this step, or in that which they were in."""
    for one in members:
        observer.notice(Transition(one.subject, one.migration.step, step or one.migration.step, ends=stage))


def known(connection: Connection, migration: Migration, given: Iterable[Mapping] = ()) -> Known:
    """``given``: mappings that the caller has loaded, from files of its own perhaps. The session's search_path is to be
    pinned (``db.connect.PINNED``), so that types are written with their schema; the ledger's names have theirs.

    Raises Refused (``retired``, ``mapping-unknown``, or a table is missing), Drift, MappingError.
    """
    if migration.step == "retired":
        raise retirements.refusal(connection, migration.migration_id, migration.mapping)
    mapping = _mapping(migration, given)
    if mapping is None:
        raise Refused(
            "mapping-unknown",
            f"{migration.mapping} does not ship with this version; give the path of its file with --mapping.",
        )
    source = catalog.named(connection, migration.source_table)
    target = catalog.named(connection, migration.target_table)
    return Known(migration, Tables(bind(mapping, source, target), source, target))


def requires(migration: Migration, given: Iterable[Mapping] = ()) -> str | None:
    """The mapping whose rows a migration's rows refer to; None also where its own mapping is not to be had."""
    mapping = _mapping(migration, given)
    return mapping.required.requires if mapping is not None and mapping.required is not None else None


def _mapping(migration: Migration, given: Iterable[Mapping]) -> Mapping | None:
    mapping = next((one for one in given if one.name == migration.mapping), None)
    return load(migration.mapping) if mapping is None and migration.mapping in shipped() else mapping


@contextmanager
def held(
    url: str | None,
    find: Callable[[Connection], Sequence[Known]],
    *,
    stop: threading.Event,
    cancel: threading.Event | None,
    retry_seconds: float,
    wait: bool,
) -> Iterator[tuple[Connection, list[Known], dict[int, Control]]]:
    """A connection, the migrations that ``find`` finds, and their locks by number, each on a session of its own; taken
    in one order by everybody.

    ``cancel`` cancels the statement in flight on any of them, which then raises Interrupted. Raises Refused
    (``already-running``) before anything was done.
    """
    with ExitStack() as locks:
        connection = locks.enter_context(
            let_in(lambda: connect(url, settings=PINNED), seconds=retry_seconds, stop=stop)
        )
        controls: dict[int, Control] = {}
        for one in sorted(find(connection), key=lambda one: one.migration.migration_id):
            control = locks.enter_context(Control(url, stop=stop, retry_seconds=retry_seconds))
            pin(control.connection)
            control.hold(one.lock, wait=wait)
            controls[one.migration.migration_id] = control
        with cancelled_by(cancel or threading.Event(), controls.values()):
            # Read anew: while we waited for a lock, its holder may have done anything.
            members = [one for one in find(connection) if one.migration.migration_id in controls]
            yield connection, members, controls


def chosen(
    connection: Connection,
    *,
    mappings: Sequence[str] = (),
    migration_id: int | None = None,
    retired: bool = False,
) -> list[Migration]:
    """Migrations that are not undone, oldest first: those of these mappings (by name), or the one of this number; those
    that are ``retired`` where they are asked for.

    Raises ConfigurationError where one that is named is not there, Refused (``retired``) where one that is named is
    retired, or all are.
    """
    ledger.require(connection)
    found = [
        one
        for one in ledger.migrations(connection)
        if (not mappings or one.mapping in mappings) and migration_id in (None, one.migration_id)
    ]
    for name in mappings:
        if migration_id is None and name not in {one.mapping for one in found}:
            raise ConfigurationError(f"The ledger has no migration of {name} that is not undone.")
    if migration_id is not None and not found:
        raise ConfigurationError(f"The ledger has no migration {migration_id} that is not undone.")
    there = [one for one in found if retired or one.step != "retired"]
    gone = [one for one in found if one not in there]
    if gone and (mappings or migration_id is not None or not there):
        raise retirements.refusal(connection, gone[0].migration_id, gone[0].mapping)
    return there


def started(
    connection: Connection, *, mappings: Sequence[str] = (), migration_id: int | None = None
) -> list[Migration]:
    """As ``chosen``, and there is at least one. Raises ConfigurationError."""
    found = chosen(connection, mappings=mappings, migration_id=migration_id)
    if not found:
        raise ConfigurationError("No migration has been started in this database, so there is none to tell anything.")
    return found
