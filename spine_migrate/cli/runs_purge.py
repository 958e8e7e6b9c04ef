"""``spine-migrate runs purge``: retention."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.moments import METAVAR, before, moment
from spine_migrate.cli.options import json_option, retry_option, yes_option
from spine_migrate.cli.runs_opened import FINAL, found_runs, place_options

if TYPE_CHECKING:
    from spine_migrate.db.connect import Connection
    from spine_migrate.execution.retention import Bound, Purge

_EPILOG = """\b
What stays although it is old, and is counted:
  parent      a run that stays has it as its parent
  retried     a run that stays is a retry of it
  referenced  a table of the application names it
  in_use      it is locked, or was brought back meanwhile

\b
Examples:
  spine-migrate runs purge --older-than 90d --dry-run
  spine-migrate runs purge --older-than 90d --yes
  spine-migrate runs purge --older-than 30d --status completed --batch-size 500 --yes --json

Exit codes: 0 done, 3 refused, 4 stopped; the same command goes on with what is left."""


@click.command(epilog=_EPILOG)
@click.option(
    "--older-than",
    metavar=METAVAR,
    callback=moment,
    required=True,
    help="Only runs that ended that long ago, such as 90d, or before an ISO time.",
)
@click.option("--status", type=click.Choice(FINAL), multiple=True, help="Only runs of this status; may be repeated.")
@click.option(
    "--migrated", is_flag=True, help="Also runs that a migration moved here; compare calls them missing then."
)
@click.option(
    "--batch-size",
    type=click.IntRange(1, 100_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="How many runs are looked at in one transaction.",
)
@click.option("--dry-run", is_flag=True, help="Count what would go and what would stay, change nothing.")
@retry_option
@yes_option
@json_option
@place_options
def purge(
    *,
    older_than: timedelta | datetime,
    status: tuple[str, ...],
    migrated: bool,
    batch_size: int,
    dry_run: bool,
    retry_for: float,
    yes: bool,
    as_json: bool,
    target: str | None,
    target_schema: str | None,
) -> None:
    """Delete runs that ended long ago, with their events, in batches that are each one transaction.

    Active runs are never touched. A run that another one names goes with it or after it. Ctrl-C and SIGTERM stop after
    the current batch.
    """
    from spine_migrate.carry.control import SETTINGS, Control
    from spine_migrate.cli.signals import stopping
    from spine_migrate.db.connect import connect
    from spine_migrate.errors import Interrupted
    from spine_migrate.execution.retention import Bound, Purge
    from spine_migrate.execution.runs import FINAL as ALL
    from spine_migrate.execution.runs import RunStatus
    from spine_migrate.report import runs_upkeep as report

    with connect(target, settings=SETTINGS) as connection:
        schema = found_runs(connection, target_schema).name.schema
        bound = Bound(_before(connection, older_than), frozenset(map(RunStatus, status)) or ALL, migrated)
        _check_migrations(connection, bound)
        work = Purge(connection, bound, schema=schema, batch_size=batch_size)
        counted = work.count(connection) if dry_run or not yes else None
    if dry_run and counted is not None:
        told = report.purge_json(bound, counted, "planned")
        click.echo(json.dumps(told) if as_json else report.purge_text(bound, counted, "planned"))
        return
    if counted is not None:
        click.echo(report.purge_text(bound, counted, "planned"), err=True)
        click.confirm(f"Delete {counted.runs.total():,} runs?", abort=True, err=True)
    with stopping() as (stop, _), Control(target, stop=stop, retry_seconds=retry_for) as control:
        more = True
        while more and not stop.is_set():
            more = control.retried(work.step)
        state = "interrupted" if more else "purged"
        control.retried(lambda connection: _audit(connection, bound, work, state))
    told = report.purge_json(bound, work.purged, state)
    click.echo(json.dumps(told) if as_json else report.purge_text(bound, work.purged, state))
    if more:
        raise click.exceptions.Exit(Interrupted.exit_code)


def _before(connection: Connection, older_than: timedelta | datetime) -> datetime:
    """By the server's clock, by which the runs were stamped."""
    from spine_migrate.errors import ConfigurationError

    ((now,),) = connection.execute("SELECT clock_timestamp()").fetchall()
    found = before(now, older_than)
    if found > now:
        raise ConfigurationError(
            "--older-than is a time to come; nothing has ended before that is not to be ended yet."
        )
    return found


def _check_migrations(connection: Connection, bound: Bound) -> None:
    """Raises Refused where runs are still being moved here, or taken back, and runs that were moved are to go."""
    from spine_migrate.db import ledger
    from spine_migrate.errors import Refused

    if not bound.migrated:
        return
    ledger.require(connection)
    for one in ledger.migrations(connection):
        if one.step not in ("done", "retired"):
            raise Refused(
                "migration-unfinished",
                f"The migration {one.mapping} is in step {one.step}, which counts the runs it has moved; end it first, "
                f"or leave out --migrated.",
            )


def _audit(connection: Connection, bound: Bound, work: Purge, state: str) -> None:
    """In the tool's ledger, which an application that stops at its own tables does not have."""
    from spine_migrate.db import ledger
    from spine_migrate.db.queries import query

    if connection.execute(query("ledger", "installed")).fetchone() != (True,):
        return
    done = work.purged
    ledger.audit(
        connection,
        "runs purged",
        state=state,
        before=bound.before.isoformat(),
        statuses=sorted(bound.statuses),
        migrated=bound.migrated,
        runs=dict(done.runs),
        kept=dict(done.kept),
        events=done.events,
    )
