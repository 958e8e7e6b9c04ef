"""``spine-migrate plan``: everything that a migration will do and meet, before anything is changed."""

from __future__ import annotations

import click

from spine_migrate.cli.options import database_options, json_option, one_database

_EPILOG = """\b
Examples:
  spine-migrate plan
  spine-migrate plan --mapping capture-spine/jobs --json
  spine-migrate plan --target postgresql://dba@db.example/app --source-schema legacy

\b
Below the plan of each mapping stands what installing the capture and the cutover will lock: each table, the
mode, whom it stops, for how long, the statements; and the sessions that are in the way at this moment.

Exit codes: 0 ready, 3 where something blocks. It only reads, and takes no lock that anybody waits for."""


@click.command(epilog=_EPILOG)
@click.option(
    "--mapping",
    multiple=True,
    default=("capture-spine/executions", "capture-spine/execution_events"),
    show_default=True,
    metavar="NAME_OR_FILE",
    help="More than once for several, in the order in which they move; they are cut over together.",
)
@json_option
@database_options
def plan(
    *,
    mapping: tuple[str, ...],
    as_json: bool,
    source: str | None,
    target: str | None,
    source_schema: str | None,
    target_schema: str | None,
) -> None:
    """Show what a live migration will do: rows, time, quarantine, statements, locks, and who is in the way."""
    from spine_migrate.cli.dry_run import dry_run
    from spine_migrate.mapping.load import load

    dry_run(
        one_database(source, target),
        [load(name) for name in mapping],
        source_schema=source_schema,
        target_schema=target_schema,
        stages=["capture", "cutover"],
        as_json=as_json,
    )
