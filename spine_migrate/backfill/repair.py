"""Repair: what a comparison found wrong on the target is made right from the legacy rows, in batches.

Rows that are missing are moved as a run would move them, fields that differ are written from forward(source), rows of
ours without a legacy row are removed. The legacy tables are only read. It works under the locks of a run; each batch is
one transaction with all that belongs to it, so that it can be killed at any moment and given again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import psycopg
from psycopg import sql

from spine_migrate.backfill.pace import Progress
from spine_migrate.backfill.repair_rows import Budget, Repairing, beyond
from spine_migrate.backfill.repaired import Options, Outcome, Repaired
from spine_migrate.backfill.setting import Setting, open_setting
from spine_migrate.carry.control import SETTINGS
from spine_migrate.carry.known import Known, ask, chosen, held, known, tell
from spine_migrate.db import cutovers
from spine_migrate.db.connect import PINNED, Connection, connect
from spine_migrate.db.faults import explained
from spine_migrate.db.queries import query
from spine_migrate.db.raw import execute
from spine_migrate.errors import Refused
from spine_migrate.mapping.emit.repair import repairs
from spine_migrate.mapping.model import Mapping
from spine_migrate.notices import NOBODY, Observer


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
    beyond(connection, made, result)
    return result


def repair(
    url: str | None,
    *,
    mappings: Sequence[Mapping] = (),
    options: Options,
    stop: threading.Event,
    report: Callable[[Progress], None],
    cancel: threading.Event | None = None,
    observer: Observer = NOBODY,
) -> Outcome:
    """Repair the migrations of ``mappings``, or all.

    ``stop`` ends it after the batch in flight, ``cancel`` cancels that too; ``observer`` may veto. Raises
    ConfigurationError; Refused: ``unfinished``, ``ledger-outdated``, ``mapping-changed``, ``undo-unfinished``,
    ``offline-unfinished``, ``already-running``, ``rows-kept``, ``index-missing``; Drift, Interrupted, ServerFault.
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
            ask(observer, members, "repair")
            budget = Budget(options.max_rows)
            work = [
                Repairing(controls[one.migration.migration_id], _open(connection, one), options, stop, report, budget)
                for one in members
            ]
            for one in work:
                one.recount()
            # Rows come after those that they refer to, and go before them.
            for one in work:
                one.run([kind for kind in options.kinds if kind != "extra"])
            for one in reversed(work):
                one.run([kind for kind in options.kinds if kind == "extra"])
            done = Outcome([one.end() for one in work], stop.is_set())
            if not done.interrupted:
                tell(observer, members, "repair")
            return done
    except psycopg.Error as error:
        raise explained(error) from error


def _members(connection: Connection, mappings: Sequence[Mapping]) -> list[Known]:
    """Those that others refer to first."""
    found = [known(connection, one, mappings) for one in chosen(connection, mappings=[m.name for m in mappings])]
    for one in found:
        if one.migration.step != "done":
            cutovers.refuse(connection, [one.migration.migration_id])
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
