"""``spine-migrate rollback``: back to the legacy tables, before a cutover or after it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.observing import Observing, observed, observing_options
from spine_migrate.cli.switch_options import switch_options
from spine_migrate.cli.switching import Switching, opened
from spine_migrate.cli.taking_back import take_back

if TYPE_CHECKING:
    from spine_migrate.db.patience import Patience
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
  Given again, it validates foreign keys of other tables that it has left to
  hold for new rows only, since it was killed or they were locked.

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
    from spine_migrate.backfill.undo import Options
    from spine_migrate.db import cutovers
    from spine_migrate.db.patience import Patience
    from spine_migrate.errors import Interrupted, Refused
    from spine_migrate.report import cutover as report

    patience = Patience(lock_timeout, lock_within)
    if not yes:
        what = "Take off the target what was moved?" if before_cutover else "Go back to the legacy tables?"
        click.confirm(what, abort=True, err=True)
    with observed(observing, "rollback", target) as seen:
        if not before_cutover:
            with opened(target, mapping, seen, wait=wait, retry_for=retry_for) as it:
                done = _back(it, patience)
        else:
            with opened(target, mapping, seen, wait=wait, retry_for=retry_for) as it:
                if over := [one.migration.migration_id for one in it.members if one.migration.step == "cutover"]:
                    cutovers.refuse(it.connection, over)
                    raise Refused("cut-over", "It has been cut over; give rollback without --before-cutover first.")
                _stop_capture(it, patience)
            options = Options(wait=wait, retry_seconds=retry_for)
            take_back(target, [one.mapping for one in it.members], options, seen, quiet=as_json, as_json=as_json)
            return
    click.echo(json.dumps(report.rollback_json(done), indent=2) if as_json else report.rollback_text(done))
    if done.finished.unproven:
        raise click.exceptions.Exit(Interrupted.exit_code)


def _back(it: Switching, patience: Patience) -> RolledBack:
    """The switch where it is not done yet, then what comes after it, which a killed command may have left undone."""
    from spine_migrate.cutover.finish import finish, left_open
    from spine_migrate.cutover.group import group
    from spine_migrate.cutover.rollback import rollback as switch_back
    from spine_migrate.cutover.rollback import without_legacy_form
    from spine_migrate.cutover.standing import standing, tables_of
    from spine_migrate.db.captures import REVERSE
    from spine_migrate.db.cutovers import cutovers, unsettled
    from spine_migrate.errors import Refused
    from spine_migrate.report.cutover import RolledBack
    from spine_migrate.sync.appliers import form_of
    from spine_migrate.sync.returned import carry_again
    from spine_migrate.sync.settle import settle
    from spine_migrate.sync.turn import turn_of

    connection = it.connection
    names = {one.migration.migration_id: one.mapping.name for one in it.members}
    over = [one for one in it.members if one.migration.step == "cutover"]
    switched, staying = None, dict[int, int]()
    if over:
        before = standing(connection, tables_of(over))
        known = cutovers(connection, list(names))
        turning = turn_of(connection, over, REVERSE, cancel=it.cancel)
        turning.verify(connection)
        for name, count in carry_again(connection, over).items():
            if count:
                it.say(f"{count:,} rows of {name} were deleted from its legacy table; they are carried back again.")
        staying = without_legacy_form(connection, over)
        switched = switch_back(
            connection,
            over,
            known,
            turning,
            before=before,
            patience=patience,
            stop=it.stop,
            observer=it.observer,
        )
    unfinished = unsettled(connection, list(names))
    returned = [one for one in cutovers(connection, list(names)).values() if one.rolled_back_at is not None]
    left = [] if over else left_open(connection, returned)
    if not over and not unfinished and not left:
        raise Refused(
            "not-cut-over",
            "Nothing has been cut over; --before-cutover takes a migration back that has not come so far.",
        )
    back = group(connection, it.mappings)
    aside = {
        names[one.migration.migration_id]: settle(connection, one.tables, form_of(connection, one, back))
        for one in back
        if one.migration.migration_id in unfinished
    }
    finished = finish(connection, left, patience=patience, stop=it.stop)
    return RolledBack(switched, {names[number]: count for number, count in staying.items()}, aside, finished)


def _stop_capture(it: Switching, patience: Patience) -> None:
    from spine_migrate.cutover.fence import remove
    from spine_migrate.db import captures, key_indexes
    from spine_migrate.sync.start import stop_capture

    for one in it.members:
        found = captures.captured(it.connection, one.migration.migration_id, captures.FORWARD)
        if found is not None:
            stop_capture(it.connection, one.tables, found, patience=patience, stop=it.stop)
        remove(it.connection, one.tables.source, patience=patience, stop=it.stop)
        key_indexes.drop_all(it.connection, one.tables.target, one.migration.migration_id)
