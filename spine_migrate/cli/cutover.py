"""``spine-migrate cutover``: the target takes the place of the legacy tables, in one short transaction."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from spine_migrate.cli.observing import Observing, observed, observing_options
from spine_migrate.cli.signals import answering
from spine_migrate.cli.switch_options import accept_option, switch_options
from spine_migrate.cli.switching import Switching, opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spine_migrate.carry.known import Known
    from spine_migrate.cutover.gates import Examined, Gate
    from spine_migrate.cutover.turning import Turning
    from spine_migrate.db.connect import Connection
    from spine_migrate.plan.locking import Locking

_EPILOG = """\b
Examples:
  spine-migrate cutover --dry-run
  spine-migrate cutover --mapping capture-spine/executions --lock-timeout 100
  spine-migrate cutover --yes --json
  spine-migrate cutover --no-view --yes

\b
What happens, in one transaction that takes some ten milliseconds:
  the legacy tables are locked (ACCESS EXCLUSIVE) and the target against writes,
  what is left in the log is applied, executions becomes executions_legacy, a
  view takes its name, and writes to the target are captured for the way back.
  A lock that cannot be had in --lock-timeout is given up and tried again.
  Once you have answered, the gates are looked at again, and what hangs on the
  tables once more with the tables locked: what somebody has changed is refused.

\b
Ctrl-C stops where nothing is half done; a second one cancels what is at work:
  all of the switch is done then, or nothing.

Migrations whose rows refer to each other, as events do to executions, go together.

\b
Given again after it, it validates foreign keys of other tables that a cutover has left to hold for new rows
only, since it was killed or they were locked.

\b
Exit codes: 0 done, or with --dry-run all gates are open; 3 a gate is closed, nothing was changed; 4 the locks
could not be had, nothing was changed; or, given again, a foreign key is not validated yet."""


@click.command(epilog=_EPILOG)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show the gates with their evidence, the locks, and who is in the way; change nothing.",
)
@click.option(
    "--view/--no-view",
    "with_view",
    default=True,
    help="Whether a view takes the legacy table's name; without, the application does not use that name any more.",
)
@click.option(
    "--max-lag",
    type=click.IntRange(0),
    default=10_000,
    show_default=True,
    metavar="N",
    help="How many changes may be left to apply when it begins.",
)
@click.option(
    "--max-parity-age",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Compare again after the question was answered where the comparison is older than this by then.",
)
@accept_option
@observing_options
@switch_options
def cutover(
    *,
    mapping: tuple[str, ...],
    dry_run: bool,
    with_view: bool,
    max_lag: int,
    max_parity_age: float,
    accept: tuple[str, ...],
    observing: Observing,
    lock_timeout: int,
    lock_within: float,
    wait: bool,
    retry_for: float,
    yes: bool,
    as_json: bool,
    target: str | None,
) -> None:
    """Take the application over to the target.

    Every gate must be open: all is moved, changes are captured and nearly applied, source and target are equal, no row
    in quarantine is left unexplained, nothing that hangs on the tables breaks.
    """
    from spine_migrate.cli.locking import of_cutover
    from spine_migrate.cutover.finish import finish
    from spine_migrate.cutover.standing import standing, tables_of
    from spine_migrate.cutover.switch import switch
    from spine_migrate.db.captures import FORWARD
    from spine_migrate.db.patience import Patience
    from spine_migrate.errors import Interrupted, Refused
    from spine_migrate.report import cutover as report
    from spine_migrate.sync.turn import turn_of

    with (
        observed(observing, "cutover", target) as seen,
        opened(target, mapping, seen, wait=wait, retry_for=retry_for) as it,
    ):
        patience = Patience(lock_timeout, lock_within)
        if not dry_run and (left := _left_open(it)):
            done = finish(it.connection, left, patience=patience, stop=it.stop)
            click.echo(json.dumps(report.finished_json(done), indent=2) if as_json else report.finished_text(done))
            if done.unproven:
                raise click.exceptions.Exit(Interrupted.exit_code)
            return
        _require(it.connection, it.members)
        before = standing(it.connection, tables_of(it.members))
        turning = turn_of(it.connection, it.members, FORWARD, cancel=it.cancel)
        gates = _Gates(target, it, turning, with_view=with_view, max_lag=max_lag, accept=accept)
        examined = gates.look(max_parity_age)
        if dry_run or not examined.ok:
            locks = of_cutover(it.connection, [one.tables for one in it.members], patience, with_view=with_view)
            click.echo(_shown(examined, locks, as_json=as_json))
            if examined.ok:
                return
            raise Refused("gates", f"Closed: {_closed(examined)}; nothing was changed.")
        names = [one.mapping.name for one in it.members]
        if not yes:
            click.echo(report.gates_text(examined), err=True)
            with answering():
                click.confirm(f"Cut over {', '.join(names)}?", abort=True, err=True)
            # It may have been asked an hour ago.
            examined = gates.look(max_parity_age)
            if not examined.ok:
                locks = of_cutover(it.connection, [one.tables for one in it.members], patience, with_view=with_view)
                click.echo(_shown(examined, locks, as_json=as_json))
                raise Refused("gates", f"Closed since you were asked: {_closed(examined)}; nothing was changed.")
        switched = switch(
            it.connection,
            it.members,
            turning,
            with_view=with_view,
            again=examined.again,
            before=before,
            patience=patience,
            stop=it.stop,
            observer=it.observer,
        )
    if as_json:
        click.echo(json.dumps(report.cutover_json(examined, switched), indent=2))
    else:
        click.echo(report.switched_text(switched, names))


class _Gates:
    """Looked at as often as need be; ``target`` is where a comparison connects to."""

    def __init__(
        self,
        target: str | None,
        it: Switching,
        turning: Turning,
        *,
        with_view: bool,
        max_lag: int,
        accept: tuple[str, ...],
    ) -> None:
        self._target = target
        self._it = it
        self._turning = turning
        self._with_view = with_view
        self._max_lag = max_lag
        self._accept = accept
        self._parity: Gate | None = None
        self._compared_at = 0.0

    def look(self, max_parity_age: float) -> Examined:
        """Compares where that was not done yet or is longer ago than so many seconds. Raises Interrupted."""
        from spine_migrate.cli.cutover_parity import parity_of
        from spine_migrate.cutover.gates import examine
        from spine_migrate.errors import Interrupted

        it = self._it
        if self._parity is None or time.monotonic() - self._compared_at >= max_parity_age:
            files = {one.name: str(one.file) for one in it.mappings}
            names = [files.get(one.mapping.name, one.mapping.name) for one in it.members]
            self._parity = parity_of(self._target, it.members, names, cancel=it.cancel)
            self._compared_at = time.monotonic()
        if it.stop.is_set():
            raise Interrupted("Stopped before the switch; nothing was changed.")
        return examine(
            it.connection,
            it.members,
            self._turning,
            parity=self._parity,
            with_view=self._with_view,
            max_lag=self._max_lag,
            accepted=self._accept,
        )


def _closed(examined: Examined) -> str:
    return ", ".join(gate.name for gate in examined.gates if not gate.ok)


def _left_open(it: Switching) -> list[dict[str, Any]]:
    """What a cutover of all of them has left to do after its switch."""
    from spine_migrate.cutover.finish import left_open
    from spine_migrate.db.cutovers import cutovers

    if any(one.migration.step != "cutover" for one in it.members):
        return []
    found = cutovers(it.connection, [one.migration.migration_id for one in it.members])
    return left_open(it.connection, found.values())


def _require(connection: Connection, members: Sequence[Known]) -> None:
    from spine_migrate.db import cutovers
    from spine_migrate.errors import Refused

    if not members:
        raise Refused("nothing-moved", "The ledger has no migration that could be cut over.")
    over = [one for one in members if one.migration.step in ("cutover", "retired")]
    if over:
        cutovers.refuse(connection, [one.migration.migration_id for one in over])
        raise Refused("cut-over", f"{', '.join(one.mapping.name for one in over)}: cut over already.")


def _shown(examined: Examined, locks: Locking, *, as_json: bool) -> str:
    from spine_migrate.report import cutover as report
    from spine_migrate.report.locking import locking_text

    if as_json:
        return json.dumps({**report.cutover_json(examined, None), **locks.as_json()}, indent=2)
    return f"{report.gates_text(examined)}\n\n{locking_text(locks)}"
