"""``spine-migrate quarantine retry``: rows judged anew after they, or the mapping, were mended."""

from __future__ import annotations

import json

import click

from spine_migrate.cli.observing import Observing, observed, observing_options
from spine_migrate.cli.options import json_option, retry_option
from spine_migrate.cli.quarantine_options import migrations_options, reasons_option

_EPILOG = """\b
Examples:
  spine-migrate quarantine retry --reason unknown_value
  spine-migrate quarantine retry --key 0b9b4a54-6c22-4c38-9d5c-0f6f3c2b7a11
  spine-migrate quarantine retry --all --accept-mapping --mapping ./capture-spine/executions.toml

Exit codes: 0 none of the rows remains in quarantine, 1 some do, 3 another run is at work (see --wait), 4 stopped; the
same command goes on."""


@click.command(epilog=_EPILOG)
@reasons_option
@click.option("--key", multiple=True, metavar="KEY", help="This row, by its source key; discarded ones too.")
@click.option("--all", "everything", is_flag=True, help="All rows that are not discarded.")
@click.option(
    "--accept-mapping",
    is_flag=True,
    help="Go on with a mapping that was changed since the migration began, if it leaves all moved rows as they are.",
)
@click.option("--discard-gone", is_flag=True, help="Discard rows whose source row is gone.")
@click.option("--wait", is_flag=True, help="Wait for a run on the same migration instead of refusing.")
@retry_option
@observing_options
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@json_option
@migrations_options
def retry(
    *,
    mapping: tuple[str, ...],
    migration: int | None,
    target: str | None,
    reason: tuple[str, ...],
    key: tuple[str, ...],
    everything: bool,
    accept_mapping: bool,
    discard_gone: bool,
    wait: bool,
    retry_for: float,
    observing: Observing,
    quiet: bool,
    as_json: bool,
) -> None:
    """Judge rows anew, as they are now in the source, and move those that pass.

    Mend the row, or the mapping, first. Rows that were refused only because of a row that is moved by this, the events
    of an execution, come along. Each batch is one transaction, so it can be stopped, killed and run again.
    """
    from spine_migrate.backfill.quarantine import Selected
    from spine_migrate.backfill.retry import Options
    from spine_migrate.backfill.retry import retry as retry_rows
    from spine_migrate.cli.signals import stopping
    from spine_migrate.errors import Interrupted
    from spine_migrate.mapping.load import load
    from spine_migrate.report import quarantine as report
    from spine_migrate.report.progress import shown

    if not everything and not reason and not key:
        raise click.UsageError("Say which rows: --reason, --key, or --all.")
    if everything and (reason or key):
        raise click.UsageError("--all is all rows; leave out --reason and --key.")
    quiet = quiet or observing.as_json
    with observed(observing, "quarantine retry", target) as seen:
        with stopping(seen.say) as (stop, cancel), shown(quiet=quiet) as progress:
            outcome = retry_rows(
                target,
                Selected(list(reason) or None, list(key) or None),
                mappings=[load(name) for name in mapping],
                migration_id=migration,
                options=Options(accept_mapping, discard_gone, wait, retry_for),
                stop=stop,
                cancel=cancel,
                report=progress,
                observer=seen.observer,
            )
        click.echo(json.dumps(report.retried_json(outcome), indent=2) if as_json else report.retried_text(outcome))
        if outcome.interrupted:
            raise click.exceptions.Exit(Interrupted.exit_code)
        if not outcome.clean:
            raise click.exceptions.Exit(1)
