"""``spine-migrate runs index``: indexes on runs for lists and purges, beyond those of the seeds."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from spine_migrate.cli.options import json_option
from spine_migrate.cli.runs_opened import found_runs, place_options

Command = TypeVar("Command", bound=Callable[..., Any])

_EPILOGS = {
    "create": """\b
Examples:
  spine-migrate runs index create
  spine-migrate runs index create created_at parent_run_id retry_of_run_id
  spine-migrate runs index create --lock-timeout 1min --retry-for 600

Exit codes: 0 all are there, 3 refused (a transaction did not end in time; what was built stays), 4 stopped.""",
    "drop": """\b
Examples:
  spine-migrate runs index drop
  spine-migrate runs index drop tags kind""",
    "status": """\b
Examples:
  spine-migrate runs index status
  spine-migrate runs index status --json

Exit codes: 0, or 1 where some are missing or invalid.""",
}


def _changing(command: Command) -> Command:
    """``keys``, ``lock_timeout``, ``retry_for``, ``as_json`` and the place."""
    for option in (
        place_options,
        json_option,
        click.option(
            "--retry-for",
            type=click.FloatRange(0),
            default=60.0,
            show_default=True,
            metavar="SECONDS",
            help="How long to try again what was given up.",
        ),
        click.option(
            "--lock-timeout",
            metavar="DURATION",
            default="5s",
            show_default=True,
            help="Give up after waiting this long for transactions that are older.",
        ),
        click.argument("keys", nargs=-1, metavar="[INDEX]..."),
    ):
        command = option(command)
    return command


@click.group()
def index() -> None:
    """Build, drop or report indexes that make lists of many runs fast.

    They are no part of the schema: each costs space and time with every run, and makes a move of many rows slower, so
    build them after it. INDEX is created_at, status, name, lane, kind, parent_run_id, retry_of_run_id or tags; without
    one all are meant. A purge of a large table needs created_at, parent_run_id and retry_of_run_id.
    """


@index.command(epilog=_EPILOGS["create"])
@_changing
def create(**options: Any) -> None:
    """Build indexes that are missing, without blocking writers; what a broken-off build left is removed."""
    _change("created", **options)


@index.command(epilog=_EPILOGS["drop"])
@_changing
def drop(**options: Any) -> None:
    """Remove indexes again, without blocking anybody."""
    _change("dropped", **options)


@index.command(epilog=_EPILOGS["status"])
@json_option
@place_options
def status(*, as_json: bool, target: str | None, target_schema: str | None) -> None:
    """Say which of them are there, and how large they are."""
    from spine_migrate.db.connect import connect
    from spine_migrate.db.run_indexes import RunIndexes
    from spine_migrate.report import runs_upkeep as report

    with connect(target) as connection:
        states = RunIndexes(connection, found_runs(connection, target_schema)).states()
    if as_json:
        click.echo(json.dumps(report.indexes_json(states)))
    else:
        report.render_indexes(states, sys.stdout)
    if not all(one.valid for one in states):
        raise click.exceptions.Exit(1)


def _change(
    done: str,
    *,
    keys: tuple[str, ...],
    lock_timeout: str,
    retry_for: float,
    as_json: bool,
    target: str | None,
    target_schema: str | None,
) -> None:
    from spine_migrate.cli.signals import stopping
    from spine_migrate.db.connect import connect
    from spine_migrate.db.run_indexes import Patience, RunIndexes, chosen
    from spine_migrate.errors import Interrupted

    wanted = chosen(keys)
    with stopping() as (stop, _), connect(target) as connection:
        indexes = RunIndexes(connection, found_runs(connection, target_schema))
        patience = Patience(lock_timeout, retry_for, stop)
        if done == "created":
            changed = indexes.create(wanted, patience, lambda name: click.echo(f"building {name}", err=True))
        else:
            changed = indexes.drop(wanted, patience)
        stopped = stop.is_set() and len(changed) < len(wanted)
    if as_json:
        click.echo(json.dumps({"format": 1, done: changed}))
    else:
        click.echo(f"{done}: {', '.join(changed)}" if changed else f"Nothing to do: none of them was to be {done}.")
    if stopped:
        raise click.exceptions.Exit(Interrupted.exit_code)
