"""``spine-migrate shims shadow``: what the mode shadow has compared, and how far that can be trusted."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta

import click

from spine_migrate.cli.moments import METAVAR, before, moment
from spine_migrate.cli.options import json_option
from spine_migrate.cli.runs_opened import place_options

_EPILOG = """\b
Examples:
  spine-migrate shims shadow
  spine-migrate shims shadow --since 7d --task shop.tasks.bill
  spine-migrate shims shadow --task shop.tasks.bill --max-rate 0.01 --json

\b
"below" is the exact upper bound on the mismatch rate (Clopper-Pearson, one-sided): with that
confidence the rate of calls like those that were compared is below it. None in 300 is below 1%.

\b
Exit codes: 0. With --max-rate, for all tasks that are shown:
  0  the rate is below it, with that confidence
  1  more than that did not match
  4  could not tell: too few were compared, or none"""


@click.command(epilog=_EPILOG)
@click.option("--since", metavar=METAVAR, callback=moment, help="Only what was compared since then.")
@click.option("--task", "tasks", multiple=True, metavar="NAME", help="Only this task; may be repeated.")
@click.option(
    "--max-rate",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="RATE",
    help="Check that at most this part of calls does not match, such as 0.01.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    metavar="RATE",
    help="How sure the bound is.",
)
@json_option
@place_options
def shadow(
    *,
    since: timedelta | datetime | None,
    tasks: tuple[str, ...],
    max_rate: float | None,
    confidence: float,
    as_json: bool,
    target: str | None,
    target_schema: str | None,
) -> None:
    """Sum up what the mode shadow has compared: the old body's result and the handler's, of the same call."""
    from spine_migrate.cli.runs_opened import found_runs
    from spine_migrate.db.connect import connect
    from spine_migrate.db.shadows import shadowed
    from spine_migrate.errors import Interrupted
    from spine_migrate.parity.model import Verdict
    from spine_migrate.parity.outputs.shadows import Summary, gate
    from spine_migrate.report import shadows as told

    with connect(target) as connection:
        schema = found_runs(connection, target_schema).name.schema
        ((now,),) = connection.execute("SELECT clock_timestamp()").fetchall()
        found = shadowed(connection, schema, tasks, None if since is None else before(now, since))
    summaries = [Summary(one, confidence, max_rate) for one in found]
    missing = sorted(set(tasks) - {one.of.task for one in summaries})
    verdict = None if max_rate is None else gate(summaries, missing)
    if as_json:
        click.echo(json.dumps(told.document(summaries, verdict)))
    elif summaries:
        told.render(summaries, sys.stdout)
    if not summaries or missing:
        click.echo(f"Nothing was compared{' of ' if missing else ''}{', '.join(missing)}.", err=True)
    if verdict is not None:
        code = {Verdict.EQUAL: 0, Verdict.DIFFERENT: 1, Verdict.UNKNOWN: Interrupted.exit_code}[verdict]
        raise click.exceptions.Exit(code)
