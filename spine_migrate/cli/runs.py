"""``spine-migrate runs``: what the ledger knows of runs, and what may be asked for."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta

import click

from spine_migrate.cli.moments import METAVAR, before, moment
from spine_migrate.cli.options import json_option
from spine_migrate.cli.runs_change import cancel, reprocess, retry
from spine_migrate.cli.runs_index import index
from spine_migrate.cli.runs_opened import KINDS, STATUSES, opened, place_options
from spine_migrate.cli.runs_purge import purge

_EPILOGS = {
    "list": """\b
Examples:
  spine-migrate runs list --status failed --since 7d
  spine-migrate runs list --name fetch_feed --lane realtime --limit 20
  spine-migrate runs list --tag team=search --since 2026-11-01 --until 2026-12-01 --json

Newest first. AGO is 90d, 12h, 30m, 10s or 2w; TIME is ISO 8601, in UTC unless it names a zone. On a
large table the lists are fast once spine-migrate runs index create has been run.

Exit code 0, whether there are runs or not.""",
    "show": """\b
Examples:
  spine-migrate runs show 0b9b4a54-6c22-4c38-9d5c-0f6f3c2b7a11
  spine-migrate runs show 0b9b4a54-6c22-4c38-9d5c-0f6f3c2b7a11 --json

Exit code 2 where there is no such run.""",
}


@click.group()
def runs() -> None:
    """List, show, cancel, retry, reprocess or purge runs, and index them.

    Nothing is executed or published here: what a command leaves pending, the relay (spine-migrate worker-relay, or the
    application's own) hands to a worker.
    """


@runs.command(name="list", epilog=_EPILOGS["list"])
@click.option("--status", type=click.Choice(STATUSES), help="Only runs of this status.")
@click.option("--since", metavar=METAVAR, callback=moment, help="Only runs created since then.")
@click.option("--until", metavar=METAVAR, callback=moment, help="Only runs created before then.")
@click.option("--name", metavar="NAME", help="Only runs of this handler.")
@click.option("--lane", metavar="NAME", help="Only runs of this lane.")
@click.option("--kind", type=click.Choice(KINDS), help="Only runs of this kind.")
@click.option("--tag", metavar="KEY[=VALUE]", help="Only runs with this tag.")
@click.option("--parent", type=click.UUID, metavar="ID", help="Only the children of this run.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, metavar="N", help="How many.")
@click.option("--offset", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="How many to skip.")
@json_option
@place_options
def list_(
    *,
    status: str | None,
    since: timedelta | datetime | None,
    until: timedelta | datetime | None,
    name: str | None,
    lane: str | None,
    kind: str | None,
    tag: str | None,
    parent: object | None,
    limit: int,
    offset: int,
    as_json: bool,
    target: str | None,
    target_schema: str | None,
) -> None:
    """List runs, the newest first."""
    from spine_migrate.report import runs as report

    now = datetime.now(UTC)
    with opened(target, target_schema) as dispatcher:
        found = dispatcher.list_runs(
            kind,
            status,
            name,
            None if parent is None else str(parent),
            limit,
            offset,
            lane=lane,
            tag=tag,
            since=None if since is None else before(now, since),
            until=None if until is None else before(now, until),
        )
    if as_json:
        click.echo(json.dumps(report.list_json(found)))
    elif found:
        report.render_list(found, sys.stdout)
    if not found:
        click.echo("No run matches.", err=True)
    elif len(found) == limit:
        click.echo(f"There may be more: --offset {offset + limit} goes on.", err=True)


@runs.command(epilog=_EPILOGS["show"])
@click.argument("run_id", metavar="ID")
@json_option
@place_options
def show(*, run_id: str, as_json: bool, target: str | None, target_schema: str | None) -> None:
    """Show a run, and its events as a timeline with the time between them."""
    from spine_migrate.execution.errors import ExecutionNotFoundError
    from spine_migrate.report import runs as report

    with opened(target, target_schema) as dispatcher:
        run = dispatcher.get_run(run_id)
        if run is None:
            raise ExecutionNotFoundError(run_id)
        events = dispatcher.get_events(run.run_id)
    if as_json:
        click.echo(json.dumps(report.run_json(run, events), indent=2))
    else:
        report.render_run(run, events, sys.stdout)


for _command in (cancel, retry, reprocess, purge, index):
    runs.add_command(_command)
