"""``spine-migrate sync``: changes of the legacy tables are captured, and follow to the target."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from spine_migrate.cli.observing import Observed, Observing, observed, observing_options
from spine_migrate.cli.options import json_option, lock_options, retry_option, target_option, yes_option
from spine_migrate.cli.throttling import holding_options, limits, max_hold_option
from spine_migrate.errors import Refused

if TYPE_CHECKING:
    from spine_migrate.carry.known import Known
    from spine_migrate.db.connect import Connection
    from spine_migrate.db.patience import Patience
    from spine_migrate.mapping.model import Mapping
    from spine_migrate.sync.members import Followed

_MAPPINGS = click.option(
    "--mapping",
    multiple=True,
    metavar="NAME_OR_FILE",
    help="This migration alone, by its mapping's name or .toml file; more than once for several.",
)


@click.group()
def sync() -> None:
    """Capture what the application writes to the legacy tables, and bring it to the target.

    Triggers append the key of each row that is written to a log, in the writer's own transaction; they do nothing else.
    sync run reads the rows as they are then and brings the target up to date. executions-to-runs --live does both.
    """


@sync.command(
    epilog="""\b
Examples:
  spine-migrate sync start
  spine-migrate sync start --dry-run
  spine-migrate sync start --mapping capture-spine/executions --lock-timeout 100

It creates triggers, which takes SHARE ROW EXCLUSIVE on the table: it waits for the writers in flight for at
most --lock-timeout, gives up, and tries again a moment later. What was moved before and has changed since is
found by a comparison, and left to sync run. After a cutover it makes a capture anew whose triggers were
dropped, disabled or replaced; all rows are looked at again then.

Exit codes: 0; 3 where a precondition is missing; 4 where the lock could not be had."""
)
@_MAPPINGS
@click.option("--dry-run", is_flag=True, help="Show which locks it takes and who is in the way, change nothing.")
@lock_options
@click.option("--wait", is_flag=True, help="Wait for a run of the same migration instead of refusing.")
@retry_option
@observing_options
@json_option
@target_option
def start(
    *,
    mapping: tuple[str, ...],
    observing: Observing,
    dry_run: bool,
    lock_timeout: int,
    lock_within: float,
    wait: bool,
    retry_for: float,
    as_json: bool,
    target: str | None,
) -> None:
    """Begin to capture the writes of migrations that have begun."""
    from spine_migrate.carry.known import ask, tell
    from spine_migrate.db.patience import Patience
    from spine_migrate.sync.renew import renew
    from spine_migrate.sync.start import start as begin

    mappings = _loaded(mapping)
    patience = Patience(lock_timeout, lock_within)
    if dry_run:
        _show_locks(target, mappings, patience, as_json=as_json)
        return
    with (
        observed(observing, "sync start", target) as seen,
        _held(target, mappings, seen, wait=wait, retry_for=retry_for) as (connection, members, stop),
    ):
        ask(seen.observer, members, "sync-start")
        mended = [renew(connection, one, patience=patience, stop=stop) for one in members]
        if not any(mended):
            for one in members:
                begin(connection, one.tables, one.migration.migration_id, patience=patience, stop=stop)
        tell(seen.observer, members, "sync-start")
    _show(target, mappings, as_json=as_json)


@sync.command(
    epilog="""\b
Examples:
  spine-migrate sync run
  spine-migrate sync run --once --json
  spine-migrate sync run --metrics-port 9187 --log-format json
  spine-migrate sync run --max-lock-waits 0 --max-wal-rate 32MB --max-hold 120 --pause-file /tmp/hold

pause, resume and set batch-size=N or max-...=N tell it from another terminal. While it is paused nothing is
applied, for however long; a limit holds it back only until a change is --max-hold seconds old.

It can be stopped, killed and started again at any moment. Of two at once for one migration the second is
refused. Stop it with Ctrl-C: writes are captured all the same, and applied the next time.

Exit codes: 0; 3 where nothing is captured or somebody applies it already; 5 where the server was lost for
longer than --retry-for."""
)
@_MAPPINGS
@click.option("--once", is_flag=True, help="Stop as soon as nothing is left that can be applied.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, 100_000),
    default=2000,
    show_default=True,
    metavar="N",
    help="Changes of one transaction; five times as many while it is behind.",
)
@holding_options
@max_hold_option("Changes")
@retry_option
@observing_options
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@json_option
@target_option
def run(
    *,
    mapping: tuple[str, ...],
    once: bool,
    batch_size: int,
    pause_file: str | None,
    max_hold: float,
    retry_for: float,
    observing: Observing,
    quiet: bool,
    as_json: bool,
    target: str | None,
    **held_by: Any,
) -> None:
    """Apply captured changes to the target until told to stop."""
    from spine_migrate.cli.signals import stopping
    from spine_migrate.report import sync as report
    from spine_migrate.sync.loop import follow
    from spine_migrate.sync.members import Options

    with observed(observing, "sync run", target) as seen, stopping(seen.say) as (stop, _):
        followed: list[Followed] = follow(
            target,
            mappings=_loaded(mapping),
            options=Options(
                batch_rows=batch_size,
                once=once,
                retry_seconds=retry_for,
                settings=limits(held_by),
                pause_file=pause_file,
                max_hold=max_hold,
            ),
            stop=stop,
            report=report.lines(quiet=quiet or observing.as_json),
            observer=seen.observer,
        )
    click.echo(json.dumps(report.followed_json(followed), indent=2) if as_json else report.followed_text(followed))


@sync.command(
    epilog="""\b
Examples:
  spine-migrate sync status
  spine-migrate sync status --json

The triggers are looked at, too: a capture of which one was dropped or disabled is told.

Exit codes: 0 up to date or on the way, 1 where rows have been put off for long or a write would not be
captured."""
)
@_MAPPINGS
@json_option
@target_option
def status(*, mapping: tuple[str, ...], as_json: bool, target: str | None) -> None:
    """Show what is captured, how far behind the target is, and who applies it."""
    if _show(target, _loaded(mapping), as_json=as_json):
        raise click.exceptions.Exit(1)


@sync.command(
    epilog="""\b
Examples:
  spine-migrate sync stop
  spine-migrate sync stop --mapping capture-spine/executions --yes

From then on the target does not follow any more, and what was captured and not applied is forgotten; sync
start begins anew, with a comparison that finds what has changed meanwhile.

Exit codes: 0; 3 where a run is at work; 4 where the lock could not be had."""
)
@_MAPPINGS
@lock_options
@click.option("--wait", is_flag=True, help="Wait for a run of the same migration instead of refusing.")
@retry_option
@observing_options
@yes_option
@json_option
@target_option
def stop(
    *,
    mapping: tuple[str, ...],
    observing: Observing,
    lock_timeout: int,
    lock_within: float,
    wait: bool,
    retry_for: float,
    yes: bool,
    as_json: bool,
    target: str | None,
) -> None:
    """Capture no more: drop the triggers and the log."""
    from spine_migrate.carry.known import ask, tell
    from spine_migrate.db import captures, key_indexes
    from spine_migrate.db.patience import Patience
    from spine_migrate.sync.start import stop_capture

    mappings = _loaded(mapping)
    patience = Patience(lock_timeout, lock_within)
    if not yes:
        _show(target, mappings, as_json=False, to_stderr=True)
        click.confirm("Stop capturing changes?", abort=True, err=True)
    with (
        observed(observing, "sync stop", target) as seen,
        _held(target, mappings, seen, wait=wait, retry_for=retry_for) as (connection, members, asked_to_stop),
    ):
        ask(seen.observer, members, "sync-stop")
        for one in members:
            found = captures.captured(connection, one.migration.migration_id, captures.FORWARD)
            if found is not None:
                stop_capture(connection, one.tables, found, patience=patience, stop=asked_to_stop)
                key_indexes.drop_all(connection, one.tables.target, one.migration.migration_id)
        tell(seen.observer, members, "sync-stop")
    _show(target, mappings, as_json=as_json)


@contextmanager
def _held(
    target: str | None, mappings: list[Mapping], seen: Observed, *, wait: bool, retry_for: float
) -> Iterator[tuple[Connection, list[Known], threading.Event]]:
    """A connection, the migrations of these mappings or all, with their locks, and what Ctrl-C sets."""
    from spine_migrate.carry.known import chosen, held, known
    from spine_migrate.cli.signals import stopping

    def find(connection: Connection) -> list[Known]:
        names = [one.name for one in mappings]
        return [known(connection, one, mappings) for one in chosen(connection, mappings=names)]

    with (
        stopping(seen.say) as (stop, cancel),
        held(target, find, stop=stop, cancel=cancel, retry_seconds=retry_for, wait=wait) as (connection, members, _),
    ):
        yield connection, members, stop


def _loaded(names: tuple[str, ...]) -> list[Mapping]:
    from spine_migrate.mapping.load import load

    return [load(name) for name in names]


def _show_locks(target: str | None, mappings: list[Mapping], patience: Patience, *, as_json: bool) -> None:
    from spine_migrate.carry.known import chosen, known
    from spine_migrate.cli.locking import of_capture
    from spine_migrate.db.connect import PINNED, connect
    from spine_migrate.report.locking import locking_text

    with connect(target, settings=PINNED) as connection:
        members = [
            known(connection, one, mappings) for one in chosen(connection, mappings=[one.name for one in mappings])
        ]
        found = of_capture(connection, [one.tables for one in members], patience)
    click.echo(json.dumps(found.as_json(), indent=2) if as_json else locking_text(found) or "No lock would be taken.")
    if not found.ready:
        raise click.exceptions.Exit(Refused.exit_code)


def _show(target: str | None, mappings: list[Mapping], *, as_json: bool, to_stderr: bool = False) -> bool:
    """Print where the captures stand; whether somebody has to see to one."""
    from spine_migrate.db.connect import PINNED, connect
    from spine_migrate.report import sync as report
    from spine_migrate.sync.state import states

    with connect(target, settings=PINNED) as connection:
        found = states(connection, [one.name for one in mappings])
    text = json.dumps(report.states_json(found), indent=2) if as_json else report.states_text(found)
    click.echo(text, err=to_stderr)
    return not all(one.well for one in found)
