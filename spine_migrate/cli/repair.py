"""``spine-migrate repair``: what compare has found wrong is made right, in batches, and compared again."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from spine_migrate.cli.observing import Observing, observed, observing_options
from spine_migrate.cli.options import json_option, retry_option, target_option, yes_option

if TYPE_CHECKING:
    from spine_migrate.parity.model import Report

_KINDS = ("missing", "differing", "extra")

_EPILOG = """\b
What is done with a row:
  missing    it is moved, as the move would have done; where a rule refuses
             it, it goes to quarantine
  differing  the columns that differ are written anew from the legacy row
  extra      it carries the migration's mark and has no legacy row: removed

\b
What is left, and why:
  changed         it was written since it was compared
  duplicate       several rows have the key
  doubled         it is in quarantine, and on the target as well
  key_taken       the key belongs to a row that is not ours
  refused         a rule cannot carry the legacy value any more
  referenced      rows point to it
  server_refused  the server refuses the new row
  busy            others wrote or held it all the time, for --retry-for

\b
Examples:
  spine-migrate repair --dry-run
  spine-migrate repair capture-spine/executions --only differing --max-rows 100
  spine-migrate repair --yes --json

Exit codes: those of the comparison afterwards (0 equal, 1 different); 3 refused, 4 stopped."""


@click.command(epilog=_EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--only", type=click.Choice(_KINDS), multiple=True, help="Only rows of this kind; more than once for two."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1, max=10_000),
    default=1000,
    show_default=True,
    metavar="ROWS",
    help="How many rows are repaired in one transaction.",
)
@click.option("--max-rows", type=click.IntRange(min=1), metavar="ROWS", help="Stop after so many rows were repaired.")
@click.option("--dry-run", is_flag=True, help="Say what would be repaired, change nothing.")
@click.option("--wait", is_flag=True, help="Wait for a run of the same migration instead of refusing.")
@retry_option
@observing_options
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@yes_option
@json_option
@target_option
def repair(
    *,
    names: tuple[str, ...],
    only: tuple[str, ...],
    batch_size: int,
    max_rows: int | None,
    dry_run: bool,
    wait: bool,
    retry_for: float,
    observing: Observing,
    quiet: bool,
    yes: bool,
    as_json: bool,
    target: str | None,
) -> None:
    """Make right on the target what compare has found wrong, from the legacy rows, and compare again.

    NAME is a shipped mapping, such as capture-spine/executions, or the path of a mapping file; without one all
    migrations are repaired that are done. Rows are changed only as long as they are what they were when they were
    compared; each is recorded as it was, in spine_migrate.repair. The legacy tables are only read. Ctrl-C and SIGTERM
    stop after the current batch.
    """
    from spine_migrate.backfill.repair import plan
    from spine_migrate.backfill.repair import repair as mend
    from spine_migrate.backfill.repaired import Options
    from spine_migrate.cli.compare import told
    from spine_migrate.cli.signals import stopping
    from spine_migrate.errors import Interrupted
    from spine_migrate.mapping.load import load
    from spine_migrate.report import repair as report
    from spine_migrate.report.progress import shown

    mappings = [load(name) for name in names]
    options = Options(only=only, batch_size=batch_size, max_rows=max_rows, wait=wait, retry_seconds=retry_for)
    if dry_run or not yes:
        planned = plan(target, mappings=mappings)
        if dry_run:
            click.echo(
                json.dumps(report.as_json(planned), indent=2) if as_json else report.planned(planned, options.kinds)
            )
            raise click.exceptions.Exit(1 if report.to_do(planned, options.kinds) else 0)
        click.echo(report.planned(planned, options.kinds), err=True)
        if count := report.to_do(planned, options.kinds):
            click.confirm(f"Repair {min(count, max_rows or count):,} rows of the target?", abort=True, err=True)
    quiet = quiet or observing.as_json
    with observed(observing, "repair", target) as seen:
        with stopping(seen.say) as (stop, cancel), shown(quiet=quiet) as progress:
            done = mend(
                target,
                mappings=mappings,
                options=options,
                stop=stop,
                cancel=cancel,
                report=progress,
                observer=seen.observer,
            )
        if done.interrupted:
            click.echo(json.dumps(report.as_json(done.migrations)) if as_json else report.as_text(done.migrations))
            raise click.exceptions.Exit(Interrupted.exit_code)
        compared = _compared(target, names)
        seen.observer.notice(told(compared))
        _show(report.as_json(done.migrations) if as_json else report.as_text(done.migrations), compared)
        raise click.exceptions.Exit(_exit_code(compared))


def _compared(target: str | None, names: tuple[str, ...]) -> Report:
    from spine_migrate.db.connect import connect
    from spine_migrate.parity.compare import compare

    with connect(target) as connection:
        return compare(connection, names)


def _show(done: str | dict[str, Any], compared: Report) -> None:
    from spine_migrate.report import parity_json, parity_terminal

    if isinstance(done, dict):
        click.echo(json.dumps({**done, "comparison": json.loads(parity_json.render(compared))}, indent=2))
        return
    click.echo(done)
    click.echo()
    parity_terminal.render(compared, sys.stdout)


def _exit_code(compared: Report) -> int:
    from spine_migrate.errors import Refused
    from spine_migrate.parity.model import Verdict

    return {Verdict.EQUAL: 0, Verdict.DIFFERENT: 1, Verdict.UNKNOWN: Refused.exit_code}[compared.verdict]
