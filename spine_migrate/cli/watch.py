"""``spine-migrate watch``: every migration and what goes on around it, on one screen."""

from __future__ import annotations

import json
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.options import json_option, target_option

if TYPE_CHECKING:
    from spine_migrate.backfill.status import Status
    from spine_migrate.carry.activity import Activity
    from spine_migrate.db.connect import Connection
    from spine_migrate.report.watch import Seen

# With --once, between the two looks that give the rates.
_SECONDS_APART = 1.0

_EXAMPLES = """\b
Examples:
  spine-migrate watch
  spine-migrate watch --every 10 >> watch.log
  spine-migrate watch --once --json

On a terminal it is one screen, elsewhere a line for each migration at each look, with --json
an object. Rates are of the time between two looks. A server that goes away is waited for.

Exit codes: 0; with --once 1 where rows are in quarantine that nobody discarded, or writes are not captured
that should be."""


@click.command(epilog=_EXAMPLES)
@target_option
@json_option
@click.option("--once", is_flag=True, help="Look twice, a second apart, print what was seen, and end.")
@click.option(
    "--every",
    type=click.FloatRange(0.1, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
def watch(*, target: str | None, as_json: bool, once: bool, every: float) -> None:
    """Watch every migration: step, rate, time left, lag, throttle, quarantine, lock waits, the application's writes.

    It reads the ledger and the server's statistics, nothing else, and needs no run: it can be left open for days.
    """
    with closing(_Watching(target)) as watching:
        watching.look()  # a database that cannot be watched at all is an error
        if not once:
            with suppress(KeyboardInterrupt):
                _live(watching, every=every, as_json=as_json)
            return
        time.sleep(_SECONDS_APART)
        found = watching.look()
    click.echo(_shown(found, as_json=as_json))
    if not all(seen.status.well for seen in found):
        raise click.exceptions.Exit(1)


class _Watching:
    """Looks again and again, on a new connection where the old one was lost."""

    def __init__(self, target: str | None) -> None:
        self._target = target
        self._connection: Connection | None = None
        self._before: tuple[float, dict[int, Status], dict[int, Activity]] | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def look(self) -> list[Seen]:
        """Raises Refused, ServerFault where the server does not answer."""
        from spine_migrate.backfill.status import pace
        from spine_migrate.carry.activity import writes_per_second
        from spine_migrate.report.watch import Seen

        now = time.monotonic()
        statuses, around = self._read()
        began, known, written = self._before or (now, {}, {})
        self._before = (now, statuses, around)
        return [
            Seen(
                one,
                around[number],
                pace(known[number], one, now - began) if number in known else None,
                writes_per_second(written[number], around[number], now - began) if number in written else None,
            )
            for number, one in statuses.items()
            if number in around  # not begun between the two statements
        ]

    def _read(self) -> tuple[dict[int, Status], dict[int, Activity]]:
        import psycopg

        from spine_migrate.carry import activity
        from spine_migrate.cli.looking import look
        from spine_migrate.db.connect import connect
        from spine_migrate.db.faults import explained

        try:
            if self._connection is None or self._connection.closed:
                self._connection = connect(self._target)
        except psycopg.Error as error:
            raise explained(error) from error
        return {one.migration_id: one for one in look(self._connection)}, activity.look(self._connection)


def _live(watching: _Watching, *, every: float, as_json: bool) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from spine_migrate.errors import ServerFault
    from spine_migrate.report.watch import screen

    console = Console()
    if as_json or not console.is_terminal:
        while True:
            time.sleep(every)
            try:
                click.echo(_shown(watching.look(), as_json=as_json))
            except ServerFault as fault:
                click.echo(fault.sentence, err=True)
    found: list[Seen] = []
    with Live(Text("Looking."), console=console, auto_refresh=False, screen=True) as live:
        while True:
            note = ""
            try:
                found = watching.look()
            except ServerFault as fault:
                note = fault.sentence
            live.update(screen(found, note), refresh=True)
            time.sleep(every)


def _shown(found: list[Seen], *, as_json: bool) -> str:
    from spine_migrate.report import watch as report

    return json.dumps(report.as_json(found)) if as_json else report.as_lines(found)
