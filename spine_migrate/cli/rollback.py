"""``spine-migrate rollback``: back to the legacy tables, before a cutover or after it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.observing import Observing, observed, observing_options
from spine_migrate.cli.switch_options import switch_options

if TYPE_CHECKING:
    import threading
    from collections.abc import Sequence

    from spine_migrate.carry.known import Known
    from spine_migrate.db.connect import Connection
    from spine_migrate.db.patience import Patience
    from spine_migrate.mapping.model import Mapping
    from spine_migrate.notices import Observer
    from spine_migrate.report.cutover import RolledBack

_EPILOG = """\b
Examples:
  spine-migrate rollback
  spine-migrate rollback --mapping capture-spine/executions --yes --json
  spine-migrate rollback --before-cutover --yes

\b
After a cutover:
  what was written to the target since is carried to the legacy tables, which
  get their names back, in one transaction as short as that of the cutover.
  Rows of the target that the legacy tables cannot hold stay there, and are
  counted. Cutover and rollback can follow each other any number of times.

\b
Before a cutover (--before-cutover): changes are not captured any more, and what was moved is taken off the
target, as by undo.

\b
Exit codes: 0 done; 1 rows are left (--before-cutover); 3 a precondition is missing; 4 the locks could not be
had, or it was stopped; the same command goes on."""


@click.command(epilog=_EPILOG)
@click.option(
    "--before-cutover", is_flag=True, help="End a migration that was not cut over: sync stop, and undo what it moved."
)
@observing_options
@switch_options
def rollback(
    *,
    before_cutover: bool,
    observing: Observing,
    mapping: tuple[str, ...],
    lock_timeout: int,
    lock_within: float,
    wait: bool,
    retry_for: float,
    yes: bool,
    as_json: bool,
    target: str | None,
) -> None:
    """Go back to the legacy tables with every write made since the cutover."""
    from spine_migrate.carry.known import held
    from spine_migrate.cli.signals import stopping
    from spine_migrate.cutover.group import group
    from spine_migrate.db.patience import Patience
    from spine_migrate.errors import Refused
    from spine_migrate.mapping.load import load
    from spine_migrate.report import cutover as report

    mappings = [load(name) for name in mapping]
    patience = Patience(lock_timeout, lock_within)
    if not yes:
        what = "Take off the target what was moved?" if before_cutover else "Go back to the legacy tables?"
        click.confirm(what, abort=True, err=True)
    with (
        observed(observing, "rollback") as seen,
        stopping(seen.say) as (stop, cancel),
        held(
            target,
            lambda connection: group(connection, mappings),
            stop=stop,
            cancel=cancel,
            retry_seconds=retry_for,
            wait=wait,
        ) as (connection, members, _),
    ):
        done: RolledBack | None = None
        if before_cutover:
            if any(one.migration.step == "cutover" for one in members):
                raise Refused("cut-over", "It has been cut over; give rollback without --before-cutover first.")
            _stop_capture(connection, members, patience, stop)
        else:
            done = _back(connection, members, mappings, patience=patience, stop=stop, observer=seen.observer)
    if done is None:
        _undo(target, [one.mapping for one in members], retry_for=retry_for, wait=wait, as_json=as_json)
        return
    click.echo(json.dumps(report.rollback_json(done), indent=2) if as_json else report.rollback_text(done))


def _back(
    connection: Connection,
    members: Sequence[Known],
    mappings: Sequence[Mapping],
    *,
    patience: Patience,
    stop: threading.Event,
    observer: Observer,
) -> RolledBack:
    """The switch where it is not done yet, then what comes after it, which a killed command may have left undone."""
    from spine_migrate.cutover.group import group
    from spine_migrate.cutover.rollback import rollback as switch_back
    from spine_migrate.cutover.rollback import without_legacy_form
    from spine_migrate.db.captures import REVERSE
    from spine_migrate.db.cutovers import cutovers, unsettled
    from spine_migrate.errors import Refused
    from spine_migrate.report.cutover import RolledBack
    from spine_migrate.sync.settle import settle
    from spine_migrate.sync.turn import turn_of

    names = {one.migration.migration_id: one.mapping.name for one in members}
    over = [one for one in members if one.migration.step == "cutover"]
    switched, staying = None, dict[int, int]()
    if over:
        known = cutovers(connection, list(names))
        turning = turn_of(connection, over, REVERSE)
        turning.verify(connection)
        staying = without_legacy_form(connection, over)
        switched = switch_back(connection, over, known, turning, patience=patience, stop=stop, observer=observer)
    unfinished = unsettled(connection, list(names))
    if not over and not unfinished:
        raise Refused(
            "not-cut-over",
            "Nothing has been cut over; --before-cutover takes a migration back that has not come so far.",
        )
    aside = {
        names[one.migration.migration_id]: settle(connection, one.tables, one.migration.migration_id)
        for one in group(connection, mappings)
        if one.migration.migration_id in unfinished
    }
    return RolledBack(switched, {names[number]: count for number, count in staying.items()}, aside)


def _stop_capture(connection: Connection, members: Sequence[Known], patience: Patience, stop: threading.Event) -> None:
    from spine_migrate.cutover.fence import remove
    from spine_migrate.db import captures
    from spine_migrate.sync.start import stop_capture

    for one in members:
        found = captures.captured(connection, one.migration.migration_id, captures.FORWARD)
        if found is not None:
            stop_capture(connection, one.tables, found, patience=patience, stop=stop)
        remove(connection, one.tables.source, patience=patience, stop=stop)


def _undo(target: str | None, mappings: list[Mapping], *, retry_for: float, wait: bool, as_json: bool) -> None:
    from spine_migrate.backfill.undo import Options
    from spine_migrate.backfill.undo import undo as take_back
    from spine_migrate.cli.signals import stopping
    from spine_migrate.errors import Interrupted
    from spine_migrate.report import undo as report
    from spine_migrate.report.progress import shown

    with stopping() as (stop, cancel), shown(quiet=as_json) as progress:
        options = Options(wait=wait, retry_seconds=retry_for)
        results = take_back(target, mappings=mappings, options=options, stop=stop, cancel=cancel, report=progress)
    click.echo(json.dumps(report.as_json(results), indent=2) if as_json else report.as_text(results))
    if any(one.state == "interrupted" for one in results):
        raise click.exceptions.Exit(Interrupted.exit_code)
    if not all(one.clean for one in results):
        raise click.exceptions.Exit(1)
