"""``spine-migrate status``: every migration, its step, progress, rate and quarantine counts."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.options import json_option, target_option

if TYPE_CHECKING:
    from spine_migrate.backfill.status import Pace, Status
    from spine_migrate.db.connect import Connection

FORMAT = 1
# Between the two looks that give a rate where something is at work.
_SECONDS_APART = 1.0

_EXAMPLES = """\b
Examples:
  spine-migrate status
  spine-migrate status --watch --every 5
  spine-migrate status --json

The rate is what moved between two looks, a second apart (or --every seconds with --watch), so it is
the present one; where nobody is at work there is none.

Exit codes: 0, or 1 where rows are in quarantine that nobody discarded, or writes are not captured that
should be."""


@click.command(epilog=_EXAMPLES)
@target_option
@json_option
@click.option("--all", "undone", is_flag=True, help="Those that were undone, too.")
@click.option("--watch", is_flag=True, help="Look again and again until Ctrl-C.")
@click.option(
    "--every", type=click.FloatRange(0.1), default=2.0, show_default=True, metavar="SECONDS", help="With --watch."
)
def status(*, target: str | None, as_json: bool, undone: bool, watch: bool, every: float) -> None:
    """Show every migration: its step, how far it is, how fast, what is in quarantine and why."""
    from spine_migrate.cli.looking import look
    from spine_migrate.db.connect import connect

    with connect(target) as connection:
        found = look(connection, undone=undone)
        if watch:
            _watch(connection, found, undone=undone, every=every, as_json=as_json)
            return
        paces: dict[int, Pace] = {}
        if any(one.at_work for one in found):
            found, paces = _again(connection, found, _SECONDS_APART, undone=undone)
    click.echo(_shown(found, paces, as_json=as_json))
    if not all(one.well for one in found):
        raise click.exceptions.Exit(1)


def _again(
    connection: Connection, before: list[Status], seconds: float, *, undone: bool
) -> tuple[list[Status], dict[int, Pace]]:
    """A second look, and what moved since the first."""
    from spine_migrate.backfill.status import pace
    from spine_migrate.cli.looking import look

    began = time.monotonic()
    time.sleep(seconds)
    found = look(connection, undone=undone)
    apart = time.monotonic() - began
    known = {one.migration_id: one for one in before}
    paces = {
        one.migration_id: pace(known[one.migration_id], one, apart)
        for one in found
        if one.at_work and one.migration_id in known
    }
    return found, paces


def _watch(connection: Connection, found: list[Status], *, undone: bool, every: float, as_json: bool) -> None:
    """Redraw on a terminal, print one after another elsewhere; Ctrl-C is the way to end it, so it is no error."""
    from contextlib import suppress

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    paces: dict[int, Pace] = {}
    console = Console()
    with suppress(KeyboardInterrupt):
        if as_json or not console.is_terminal:
            while True:
                click.echo(_shown(found, paces, as_json=as_json))
                found, paces = _again(connection, found, every, undone=undone)
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(Text(_shown(found, paces, as_json=False)), refresh=True)
                found, paces = _again(connection, found, every, undone=undone)


def _shown(found: list[Status], paces: dict[int, Pace], *, as_json: bool) -> str:
    from spine_migrate.backfill import status as state
    from spine_migrate.report.status import as_text

    if as_json:
        migrations = [state.as_json(one, paces.get(one.migration_id)) for one in found]
        return json.dumps({"format": FORMAT, "migrations": migrations})
    return as_text(found, paces)
