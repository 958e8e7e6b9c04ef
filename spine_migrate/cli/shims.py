"""``spine-migrate shims``: who still calls the old tasks, and which mode they are in."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.moments import METAVAR, before, moment
from spine_migrate.cli.options import json_option
from spine_migrate.cli.runs_opened import place_options
from spine_migrate.cli.shims_purge import purge
from spine_migrate.cli.shims_shadow import shadow

if TYPE_CHECKING:
    from spine_migrate.db.connect import Connection
    from spine_migrate.db.shim_tables import ShimTables, Silence

_EPILOGS = {
    "report": """\b
Examples:
  spine-migrate shims report
  spine-migrate shims report --since 7d --task shop.tasks.bill
  spine-migrate shims report --silent-for 14d --task shop.tasks.bill --json

The latest first. A count is that of all calls since the first. No argument of a call is ever stored.

\b
Exit codes: 0. With --silent-for:
  0  no call since then, and workers with the shim were there to count all the time
  1  there were calls; they are listed
  3  could not tell: nobody was there to count for some of the time, so that silence proves nothing""",
    "mode": """\b
Examples:
  spine-migrate shims mode
  spine-migrate shims mode shop.tasks.bill canary=10%
  spine-migrate shims mode shop.tasks.bill dispatch
  spine-migrate shims mode '*' legacy
  spine-migrate shims mode shop.tasks.bill --clear

MODE is legacy, dispatch, shadow or canary=N%. * stands for all tasks that have none of their own. Every
process heeds a change within seconds, unless its environment (SPINE_SHIM_MODE) or its file
(SPINE_SHIM_MODES_FILE) says otherwise, which both come first.

Exit codes: 0; 2 where MODE is none.""",
}


@click.group()
def shims() -> None:
    """Who still calls the old tasks, and whether they go through the dispatcher."""


shims.add_command(shadow)
shims.add_command(purge)


@shims.command(epilog=_EPILOGS["report"])
@click.option("--since", metavar=METAVAR, callback=moment, help="Only who has called since then.")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task; may be repeated.")
@click.option(
    "--silent-for", metavar=METAVAR, callback=moment, help="Check that nobody has called for that long, or since then."
)
@json_option
@place_options
def report(
    *,
    since: timedelta | datetime | None,
    tasks: tuple[str, ...],
    silent_for: timedelta | datetime | None,
    as_json: bool,
    target: str | None,
    target_schema: str | None,
) -> None:
    """List who calls the old tasks, or check that nobody does any more."""
    from spine_migrate.db.connect import connect
    from spine_migrate.db.shim_tables import ShimTables
    from spine_migrate.report import shims as told

    if since is not None and silent_for is not None:
        raise click.UsageError("--since and --silent-for exclude each other.")
    with connect(target) as connection:
        tables = ShimTables.opened(connection, target_schema)
        now = tables.now()
        silence = None if silent_for is None else _silence(tables, tasks, before(now, silent_for), now)
        calls = [] if silence else tables.calls(tasks, None if since is None else before(now, since))
    if silence is not None:
        _tell(silence, as_json=as_json)
    elif as_json:
        click.echo(json.dumps(told.calls_json(calls)))
    elif calls:
        told.render_calls(calls, sys.stdout)
    if silence is None and not calls:
        click.echo("No call was counted.", err=True)


def _silence(tables: ShimTables, tasks: tuple[str, ...], since: datetime, now: datetime) -> Silence:
    from spine_migrate.errors import ConfigurationError

    if since > now:
        raise ConfigurationError("--silent-for is a time to come; nobody can tell who will call until then.")
    return tables.silence(tasks, since, now)


def _tell(silence: Silence, *, as_json: bool) -> None:
    """Raises click's Exit where it is not silent, or cannot be told."""
    from spine_migrate.db.shim_tables import Verdict
    from spine_migrate.errors import Refused
    from spine_migrate.report import shims as told

    if as_json:
        click.echo(json.dumps(told.silence_json(silence)))
    else:
        click.echo(told.silence_text(silence))
        if silence.callers:
            told.render_calls(silence.callers, sys.stdout)
    code = {Verdict.SILENT: 0, Verdict.CALLED: 1, Verdict.UNKNOWN: Refused.exit_code}[silence.verdict]
    if code:
        raise click.exceptions.Exit(code)


@shims.command(epilog=_EPILOGS["mode"])
@click.argument("task", required=False)
@click.argument("wanted", required=False, metavar="[MODE]")
@click.option("--clear", is_flag=True, help="Take the task's mode away.")
@json_option
@place_options
def mode(
    *,
    task: str | None,
    wanted: str | None,
    clear: bool,
    as_json: bool,
    target: str | None,
    target_schema: str | None,
) -> None:
    """Show the modes that are set, or set or clear that of TASK."""
    from spine_migrate.db.connect import connect
    from spine_migrate.db.shim_tables import ShimTables
    from spine_migrate.report import shims as told

    if clear and (task is None or wanted is not None):
        raise click.UsageError("--clear goes with a TASK, and without a MODE.")
    if task is not None and not task.strip():
        raise click.UsageError("TASK is empty; leave it out to see all modes, or write '*' for all tasks.")
    with connect(target) as connection:
        tables = ShimTables.opened(connection, target_schema)
        if task is not None and (clear or wanted is not None):
            _change(connection, tables, task, wanted)
        modes = tables.modes(task)
    if as_json:
        click.echo(json.dumps(told.modes_json(modes)))
    elif modes:
        told.render_modes(modes, sys.stdout)
    if not modes:
        click.echo("No mode is set." if task is None else f"No mode is set for {task}.", err=True)


def _change(connection: Connection, tables: ShimTables, task: str, mode: str | None) -> None:
    """Set, or clear where there is no mode, and record it, in one transaction."""
    from spine_migrate.db import ledger
    from spine_migrate.db.queries import query

    with connection.transaction():
        was = tables.clear_mode(task) if mode is None else tables.set_mode(task, mode)
        # An application that stops at its own tables does not have the tool's ledger.
        if connection.execute(query("ledger", "installed")).fetchone() == (True,):
            ledger.audit(connection, "shim mode", task=task, mode=mode, before=was)
    if mode not in {None, "legacy"} and task != "*" and not tables.announced(task):
        click.echo(f"No worker has announced {task} yet; until one does, callers may stay with its old body.", err=True)
