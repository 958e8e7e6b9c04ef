"""``spine-migrate cutover``: the target takes the place of the legacy tables, in one short transaction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.observing import Observing, observed, observing_options
from spine_migrate.cli.switch_options import switch_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spine_migrate.carry.known import Known
    from spine_migrate.cutover.gates import Examined

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

Migrations whose rows refer to each other, as events do to executions, go together.

\b
Exit codes: 0 done, or with --dry-run all gates are open; 3 a gate is closed, nothing was changed; 4 the locks
could not be had, nothing was changed."""


@click.command(epilog=_EPILOG)
@click.option("--dry-run", is_flag=True, help="Show the gates with their evidence, change nothing.")
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
    "--accept",
    multiple=True,
    metavar="OBJECT",
    help="Go on although this object breaks, named as --dry-run names it; more than once for several.",
)
@observing_options
@switch_options
def cutover(
    *,
    mapping: tuple[str, ...],
    dry_run: bool,
    with_view: bool,
    max_lag: int,
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
    from spine_migrate.carry.known import held
    from spine_migrate.cli.cutover_parity import parity_of
    from spine_migrate.cli.signals import stopping
    from spine_migrate.cutover.gates import examine
    from spine_migrate.cutover.group import group
    from spine_migrate.cutover.switch import switch
    from spine_migrate.db.captures import FORWARD
    from spine_migrate.db.patience import Patience
    from spine_migrate.errors import Refused
    from spine_migrate.mapping.load import load
    from spine_migrate.report import cutover as report
    from spine_migrate.sync.turn import turn_of

    mappings = [load(name) for name in mapping]
    files = {one.name: str(one.file) for one in mappings}
    with (
        observed(observing, "cutover") as seen,
        stopping(seen.say) as (stop, cancel),
        held(
            target,
            lambda connection: group(connection, mappings),
            stop=stop,
            cancel=cancel,
            retry_seconds=retry_for,
            wait=wait,
        ) as (connection, members, _),
    ):
        _require(members)
        turning = turn_of(connection, members, FORWARD)
        names = [files.get(one.mapping.name, one.mapping.name) for one in members]
        examined = examine(
            connection,
            members,
            turning,
            parity=parity_of(target, members, names),
            with_view=with_view,
            max_lag=max_lag,
            accepted=accept,
        )
        if dry_run or not examined.ok:
            click.echo(_shown(examined, as_json=as_json))
            if examined.ok:
                return
            closed = ", ".join(gate.name for gate in examined.gates if not gate.ok)
            raise Refused("gates", f"Closed: {closed}; nothing was changed.")
        if not yes:
            click.echo(report.gates_text(examined), err=True)
            click.confirm(f"Cut over {', '.join(one.mapping.name for one in members)}?", abort=True, err=True)
        switched = switch(
            connection,
            members,
            turning,
            with_view=with_view,
            again=examined.again,
            patience=Patience(lock_timeout, lock_within),
            stop=stop,
            observer=seen.observer,
        )
    if as_json:
        click.echo(json.dumps(report.cutover_json(examined, switched), indent=2))
    else:
        click.echo(report.switched_text(switched, [one.mapping.name for one in members]))


def _require(members: Sequence[Known]) -> None:
    from spine_migrate.errors import Refused

    if not members:
        raise Refused("nothing-moved", "The ledger has no migration that could be cut over.")
    over = [one.mapping.name for one in members if one.migration.step in ("cutover", "retired")]
    if over:
        raise Refused("cut-over", f"{', '.join(over)}: cut over already.")


def _shown(examined: Examined, *, as_json: bool) -> str:
    from spine_migrate.report import cutover as report

    return json.dumps(report.cutover_json(examined, None), indent=2) if as_json else report.gates_text(examined)
