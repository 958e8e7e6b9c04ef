"""``spine-migrate executions-to-runs`` and ``jobs-to-runs``: one engine, different mappings."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from spine_migrate.cli.observing import Observing, observed, observing_options
from spine_migrate.cli.options import database_options, json_option, one_database, retry_option
from spine_migrate.cli.throttling import Value, limits, max_hold_option, throttling_options
from spine_migrate.errors import Interrupted

if TYPE_CHECKING:
    from spine_migrate.backfill.run import Outcome

_EXAMPLES = """\b
Examples:
  spine-migrate {name} --dry-run --target postgresql://dba@db.example/app
  spine-migrate {name} --target postgresql://dba@db.example/app
  spine-migrate {name} --workers 2 --max-rows-per-second 20000 --json
  spine-migrate {name} --workers 1 --nice-ratio 50
  spine-migrate {name} --max-lag-bytes 64MB --max-lock-waits 0 --pause-file /tmp/hold
  spine-migrate {name} --hooks /etc/spine-migrate/hooks --metrics-port 9187 --log-format json

pause, resume and set tell a run from another terminal; status says what holds it back.

Exit codes: 0 all moved, 1 all moved but for rows in quarantine, 4 stopped and resumable."""


def _moving(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option("--dry-run", is_flag=True, help="Show the plan, change nothing."),
        click.option(
            "--batch-size",
            type=Value("batch-size"),
            default="auto",
            show_default=True,
            help="Rows of a batch; auto makes batches of --target-seconds.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(1, 64),
            default=2,
            show_default=True,
            help="Parallel workers, each with a session; 1 goes easier on a busy server.",
        ),
        click.option(
            "--limit", type=click.IntRange(1), metavar="N", help="Stop after N rows; go on with a later call."
        ),
        click.option(
            "--max-rows-per-second", type=click.FloatRange(0, min_open=True), metavar="N", help="Never be faster."
        ),
        click.option(
            "--nice-ratio",
            type=Value("nice-ratio"),
            default="0",
            show_default=True,
            help="After each batch a worker rests N times as long as the batch took.",
        ),
        throttling_options,
        max_hold_option("With --live: changes"),
        click.option(
            "--offline",
            is_flag=True,
            help="Target empty, no writers: build indexes and foreign keys after the load.",
        ),
        click.option(
            "--live",
            is_flag=True,
            help="Capture what the application writes meanwhile, and go on applying it until Ctrl-C.",
        ),
        click.option("--wait", is_flag=True, help="Wait for another run of the same migration instead of refusing."),
        retry_option,
        observing_options,
        click.option("--quiet", is_flag=True, help="No progress on stderr."),
        json_option,
        database_options,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("executions-to-runs", epilog=_EXAMPLES.format(name="executions-to-runs"))
@click.option(
    "--mapping", default="capture-spine/executions", show_default=True, metavar="NAME_OR_FILE", help="For executions."
)
@click.option(
    "--events-mapping",
    default="capture-spine/execution_events",
    show_default=True,
    metavar="NAME_OR_FILE",
    help="For their events.",
)
@click.option("--no-events", is_flag=True, help="Leave the events for later.")
@_moving
def executions_to_runs(*, mapping: str, events_mapping: str, no_events: bool, **options: Any) -> None:
    """Move executions into runs, then their events into run_events.

    Batches run in transactions of their own with their checkpoint, so the command can be stopped, killed and run again;
    it goes on where it was. Rows that cannot be carried go to quarantine with the reason. Ctrl-C and SIGTERM stop after
    the current batch.
    """
    _move("executions-to-runs", [mapping] if no_events else [mapping, events_mapping], **options)


@click.command("jobs-to-runs", epilog=_EXAMPLES.format(name="jobs-to-runs"))
@click.option(
    "--mapping", default="capture-spine/jobs", show_default=True, metavar="NAME_OR_FILE", help="For the jobs."
)
@_moving
def jobs_to_runs(*, mapping: str, **options: Any) -> None:
    """Move legacy jobs into runs; see executions-to-runs, of which this is the same with another mapping."""
    _move("jobs-to-runs", [mapping], **options)


def _move(
    command: str,
    names: list[str],
    *,
    dry_run: bool,
    batch_size: int | None,
    workers: int,
    limit: int | None,
    max_rows_per_second: float | None,
    nice_ratio: float,
    max_hold: float,
    offline: bool,
    live: bool,
    wait: bool,
    retry_for: float,
    observing: Observing,
    quiet: bool,
    as_json: bool,
    source: str | None,
    target: str | None,
    source_schema: str | None,
    target_schema: str | None,
    **throttling: Any,
) -> None:
    """``throttling`` as in ``throttling_options``, by the names that ``Options`` has for it."""
    if live and (offline or limit is not None):
        raise click.UsageError("--live goes with neither --offline nor --limit.")
    from spine_migrate.backfill.run import Options, run
    from spine_migrate.cli.live import Live
    from spine_migrate.cli.signals import stopping
    from spine_migrate.mapping.load import load
    from spine_migrate.report import outcome as report
    from spine_migrate.report.progress import shown
    from spine_migrate.sync.members import Options as Following

    url = one_database(source, target)
    mappings = [load(name) for name in names]
    if dry_run:
        from spine_migrate.cli.dry_run import dry_run as show_plan

        show_plan(
            url,
            mappings,
            source_schema=source_schema,
            target_schema=target_schema,
            offline=offline,
            stages=["capture"] if live else [],
            as_json=as_json,
        )
        return
    outcomes: list[Outcome] = []
    quiet = quiet or observing.as_json
    followed = Following(
        retry_seconds=retry_for,
        settings=limits(throttling),
        pause_file=throttling["pause_file"],
        max_hold=max_hold,
    )
    with observed(observing, command, url) as seen:
        with (
            stopping(seen.say) as (stop, cancel),
            Live(url, mappings, stop, followed, seen, quiet=quiet) as following,
        ):
            with shown(quiet=quiet) as progress:
                for mapping in mappings:
                    left = None if limit is None else limit - sum(outcome.rows for outcome in outcomes)
                    if left == 0:
                        break
                    options = Options(
                        batch_rows=batch_size,
                        workers=workers,
                        limit=left,
                        rows_per_second=max_rows_per_second,
                        nice_ratio=nice_ratio,
                        offline=offline,
                        wait=wait,
                        retry_seconds=retry_for,
                        **throttling,
                    )
                    outcomes.append(
                        run(
                            url,
                            mapping,
                            options=options,
                            stop=stop,
                            cancel=cancel,
                            report=progress,
                            source_schema=source_schema,
                            target_schema=target_schema,
                            prepare=following.prepare if live else None,
                            observer=seen.observer,
                            ours=following.ours,
                        )
                    )
                    if outcomes[-1].state in ("limit", "interrupted"):
                        break
            click.echo(json.dumps(report.as_json(outcomes), indent=2) if as_json else report.as_text(outcomes))
            if live and outcomes[-1].state != "interrupted":
                following.wait()
        if outcomes[-1].state == "interrupted":
            raise click.exceptions.Exit(Interrupted.exit_code)
        if not all(outcome.clean for outcome in outcomes):
            raise click.exceptions.Exit(1)
