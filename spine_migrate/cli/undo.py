"""``spine-migrate undo``: what a migration moved is taken off the target again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.observing import Observing, observed, observing_options
from spine_migrate.cli.options import json_option, retry_option, target_option, yes_option
from spine_migrate.cli.taking_back import take_back

if TYPE_CHECKING:
    from spine_migrate.mapping.model import Mapping

_EPILOG = """\b
What is left, and why:
  changed             some field is not as the migration made it
  source_gone         the source row is not there any more
  in_quarantine       the source row is in quarantine
  has_foreign_events  events belong to it that the migration did not move, or
                      that stay themselves
  referenced          a row that stays points to it, or one of another table:
                      the runtime's run_handoff, or the application's own

\b
Examples:
  spine-migrate undo --all --dry-run
  spine-migrate undo --mapping capture-spine/jobs
  spine-migrate undo --all --yes --json

Exit codes: 0 all is undone, 1 rows are left, 3 refused, 4 stopped; the same command goes on."""


@click.command(epilog=_EPILOG)
@click.option(
    "--mapping",
    multiple=True,
    metavar="NAME_OR_FILE",
    help="Undo this migration, by its mapping's name or .toml file; more than once for several.",
)
@click.option("--all", "everything", is_flag=True, help="Undo all migrations, events before the runs they belong to.")
@click.option("--dry-run", is_flag=True, help="Say what would go and what would be left, change nothing.")
@click.option("--leave", is_flag=True, help="End the undo although rows are left.")
@click.option("--wait", is_flag=True, help="Wait for a run of the same migration instead of refusing.")
@retry_option
@observing_options
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@yes_option
@json_option
@target_option
def undo(
    *,
    mapping: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    leave: bool,
    wait: bool,
    retry_for: float,
    observing: Observing,
    quiet: bool,
    yes: bool,
    as_json: bool,
    target: str | None,
) -> None:
    """Remove exactly what a migration moved, as long as nothing else has touched it.

    A row goes if it carries the migration's mark and is as the mapping made it. Others are left as they are, and named.
    The legacy tables are only read. Ctrl-C and SIGTERM stop after the current batch.
    """
    from spine_migrate.backfill.undo import Options
    from spine_migrate.backfill.undo_plan import plan
    from spine_migrate.mapping.load import load
    from spine_migrate.report import undo as report

    if everything == bool(mapping):
        raise click.UsageError("Say what to undo: --mapping for one or more migrations, or --all.")
    mappings = [load(name) for name in mapping]
    if dry_run:
        planned = plan(target, mappings=mappings)
        click.echo(json.dumps(report.as_json(planned), indent=2) if as_json else report.as_text(planned))
        return
    if not yes:
        _ask(target, mappings)
    quiet = quiet or observing.as_json
    with observed(observing, "undo", target) as seen:
        options = Options(leave=leave, wait=wait, retry_seconds=retry_for)
        take_back(target, mappings, options, seen, quiet=quiet, as_json=as_json)


def _ask(target: str | None, mappings: list[Mapping]) -> None:
    """Show the plan first; aborts on anything but yes."""
    from spine_migrate.backfill.undo_plan import plan
    from spine_migrate.report import undo as report

    planned = plan(target, mappings=mappings)
    click.echo(report.as_text(planned), err=True)
    if planned:
        click.confirm(f"Remove {sum(one.rows for one in planned):,} rows from the target?", abort=True, err=True)
