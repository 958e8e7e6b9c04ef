"""``spine-migrate retire``: archive the legacy side and drop it."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.observing import Observing, observed, observing_options
from spine_migrate.cli.switch_options import accept_option, switch_options
from spine_migrate.cli.switching import Switching, opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spine_migrate.carry.known import Known
    from spine_migrate.cutover.retire import Kept, Retired
    from spine_migrate.cutover.retire_gates import Examined
    from spine_migrate.db.connect import Connection
    from spine_migrate.db.patience import Patience
    from spine_migrate.db.retirements import Retirement
    from spine_migrate.mapping.model import Mapping
    from spine_migrate.plan.locking import Locking

# How long carrying back what is left may take, in seconds.
_DRAIN_SECONDS = 600.0

_EPILOG = """\b
Examples:
  spine-migrate retire --dry-run
  spine-migrate retire --mapping capture-spine/executions --archive /backup/executions
  spine-migrate retire --archive /backup/executions --allow --yes
  spine-migrate retire --revoke
  spine-migrate retire --without-archive "a copy of production, INC-4711" --yes

\b
What happens:
  the rest of what was captured is carried back; the legacy tables, accepted
  rows of the quarantine with them, are written to the archive, which is read
  again and compared with the tables; then, in one transaction, the view, its
  triggers and functions, the legacy tables and what captures changes go.
  The runs stay. There is no rollback afterwards: archive restore makes the
  tables anew.

\b
With --allow nothing is dropped: the Alembic branch spine_contract does that in
an application's own deploy, and refuses before. Until then the legacy tables
are kept as they are in the archive; rollback and --revoke end that.

\b
Exit codes: 0 done, done before, or with --dry-run all gates are open; 3 a gate is closed, nothing was dropped;
4 the locks could not be had, or it was stopped; the same command goes on."""


@click.command(epilog=_EPILOG)
@click.option(
    "--dry-run", is_flag=True, help="Show the gates, the SQL, its locks and who is in the way; change nothing."
)
@click.option(
    "--after-days",
    type=click.FloatRange(0),
    default=7.0,
    show_default=True,
    metavar="N",
    help="How long ago the cutover, the last write through the view and the last call of a shim must be.",
)
@click.option(
    "--archive",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the legacy tables are archived; one that is there, and is of them as they are, is used again.",
)
@click.option("--without-archive", metavar="WHY", help="Keep no archive, for this reason, which goes on record.")
@click.option(
    "--allow", is_flag=True, help="Look at the gates, write the archive, record that it may be done; drop nothing."
)
@click.option("--revoke", is_flag=True, help="Take back what --allow has recorded.")
@accept_option
@observing_options
@switch_options
def retire(
    *,
    mapping: tuple[str, ...],
    dry_run: bool,
    after_days: float,
    archive: Path | None,
    without_archive: str | None,
    allow: bool,
    revoke: bool,
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
    """Archive and drop what is left of the legacy side, once nobody needs it.

    Every gate must be open: the cutover and the last write through the view are long enough ago, the legacy tables have
    what the target says, nothing of others depends on what goes.
    """
    from spine_migrate.carry.known import ask
    from spine_migrate.cli.locking import of_retire
    from spine_migrate.cutover.retire import Kept, still
    from spine_migrate.cutover.retire import revoke as take_back
    from spine_migrate.db.patience import Patience
    from spine_migrate.db.retirements import require, retirements
    from spine_migrate.errors import Refused
    from spine_migrate.report import retire as report

    _check_options(archive, without_archive, revoke=revoke, other=allow or dry_run)
    with (
        observed(observing, "retire", target) as seen,
        opened(target, mapping, seen, wait=wait, retry_for=retry_for, find=_members) as it,
    ):
        require(it.connection)
        if not it.members:
            _done_before(it, as_json=as_json)
            return
        _require_cut_over(it.members)
        if revoke:
            click.echo(report.revoked_text(take_back(it.connection, it.members)))
            return
        numbers = [one.migration.migration_id for one in it.members]
        patience = Patience(lock_timeout, lock_within)
        there = retirements(it.connection, numbers)
        standing = _standing(it, there, archive, without_archive)
        if not (dry_run or standing or archive or without_archive):
            raise Refused("archive-missing", "Say where the legacy tables are archived: --archive DIR.")

        def look() -> Examined:
            return _look(target, it, timedelta(days=after_days), accept, frozen=bool(there))

        examined = look()
        if not (dry_run or yes) and examined.ok:
            _ask(examined, it.members, without_archive, allow=allow)
            # It may have been asked an hour ago.
            examined = look()
        if dry_run or not examined.ok:
            locks = of_retire(it.connection, it.members, examined.drops, patience)
            click.echo(_shown(examined, locks, as_json=as_json))
            if examined.ok:
                return
            closed = ", ".join(gate.name for gate in examined.gates if not gate.ok)
            raise Refused("gates", f"Closed: {closed}; nothing was dropped.")
        ask(it.observer, it.members, "retire")
        if standing:
            still(there.values(), archive)
        else:
            _allow(it, examined, Kept(archive, without_archive), patience=patience, wait=wait)
        done = None if allow else _drop(it, patience)
        found = list(retirements(it.connection, numbers).values())
    click.echo(
        json.dumps(report.as_json(examined, found, done), indent=2) if as_json else report.done_text(found, done)
    )


def _check_options(archive: Path | None, without_archive: str | None, *, revoke: bool, other: bool) -> None:
    if archive is not None and without_archive is not None:
        raise click.UsageError("--archive and --without-archive exclude each other.")
    if without_archive is not None and not without_archive.strip():
        raise click.UsageError("--without-archive takes the reason, which goes on record.")
    if revoke and (other or archive is not None or without_archive is not None):
        raise click.UsageError("--revoke goes alone: it takes back what --allow has recorded.")


def _members(connection: Connection, mappings: Sequence[Mapping]) -> list[Known]:
    """Those that are not retired, with those that go together with them."""
    from spine_migrate.carry.known import chosen
    from spine_migrate.cutover.group import group

    taken = chosen(connection, mappings=[one.name for one in mappings], retired=True)
    names = {one.mapping for one in taken if one.step != "retired"}
    if not names:
        return []
    return group(connection, [one for one in mappings if one.name in names])


def _done_before(it: Switching, *, as_json: bool) -> None:
    """Nothing is left to retire: it says what was. Raises Refused where there was nothing ever."""
    from spine_migrate.carry.known import chosen
    from spine_migrate.db.retirements import retirements
    from spine_migrate.errors import Refused
    from spine_migrate.report import retire as report

    taken = chosen(it.connection, mappings=[one.name for one in it.mappings], retired=True)
    if not taken:
        raise Refused("nothing-moved", "The ledger has no migration that could be retired.")
    found = list(retirements(it.connection, [one.migration_id for one in taken]).values())
    click.echo(json.dumps(report.before_json(found), indent=2) if as_json else report.before_text(found))


def _look(target: str | None, it: Switching, after: timedelta, accept: tuple[str, ...], *, frozen: bool) -> Examined:
    from spine_migrate.cli.retire_parity import parity_of
    from spine_migrate.cutover.retire_gates import examine
    from spine_migrate.db.captures import REVERSE
    from spine_migrate.errors import Interrupted
    from spine_migrate.sync.turn import turn_of

    parity = parity_of(target, it.members, cancel=it.cancel)
    if it.stop.is_set():
        raise Interrupted("Stopped before anything was changed.")
    turning = turn_of(it.connection, it.members, REVERSE)
    return examine(it.connection, it.members, turning, parity=parity, after=after, frozen=frozen, accepted=accept)


def _require_cut_over(members: Sequence[Known]) -> None:
    from spine_migrate.errors import Refused

    early = [
        f"{one.mapping.name} is in step {one.migration.step}" for one in members if one.migration.step != "cutover"
    ]
    if early:
        raise Refused("not-cut-over", f"Only what is cut over can be retired: {', '.join(early)}.")


def _standing(it: Switching, there: dict[int, Retirement], archive: Path | None, without_archive: str | None) -> bool:
    """Whether an earlier run has allowed this very thing, and nothing has come in between; another archive, or rows
    that were written through the view since, need another permission.
    """
    from spine_migrate.cutover.archive.manifest import NAME, document, read
    from spine_migrate.db.queries import query

    numbers = [one.migration.migration_id for one in it.members]
    if set(there) != set(numbers) or without_archive is not None:
        return False
    if it.connection.execute(query("retire", "refusals"), {"migrations": numbers}).fetchone() is not None:
        return False
    if archive is None or all(one.archive == str(archive.absolute()) for one in there.values()):
        return True
    if not (archive / NAME).is_file():
        return False
    digest = document(read(archive))["digest"]
    return all(one.archive_digest == digest for one in there.values())


def _ask(examined: Examined, members: Sequence[Known], without_archive: str | None, *, allow: bool) -> None:
    from spine_migrate.cli.signals import answering
    from spine_migrate.report import retire as report

    click.echo(report.gates_text(examined), err=True)
    names = ", ".join(one.mapping.name for one in members)
    with answering():
        if without_archive is not None:
            word = click.prompt("No archive is kept, and nothing brings the rows back. Type: no archive", err=True)
            if word.strip() != "no archive":
                raise click.Abort
        what = "Allow the legacy tables to be dropped" if allow else "Drop the legacy tables for good"
        click.confirm(f"{what}: {names}?", abort=True, err=True)


def _allow(it: Switching, examined: Examined, kept: Kept, *, patience: Patience, wait: bool) -> None:
    """Carry back, archive, and put on record that it may be dropped."""
    from spine_migrate.cutover import retire as stage
    from spine_migrate.db.captures import REVERSE
    from spine_migrate.report import archive as report
    from spine_migrate.report.retire import evidence
    from spine_migrate.sync.turn import turn_of

    stage.alone(it.connection, it.members, wait=wait, stop=it.stop)
    if kept.directory is None or not stage.ready(it.connection, it.members, kept.directory, it.say):
        turning = turn_of(it.connection, it.members, REVERSE, cancel=it.cancel)
        turning.drain(it.connection, seconds=_DRAIN_SECONDS, stop=it.stop)
    stage.allow(
        it.connection,
        it.members,
        kept,
        evidence=evidence(examined),
        looked_at=examined.at,
        patience=patience,
        stop=it.stop,
        report=lambda table: it.say(f"Archived {report.counted(table.name, table.rows)}"),
    )


def _drop(it: Switching, patience: Patience) -> Retired:
    from spine_migrate.carry.known import tell
    from spine_migrate.cutover import retire as stage
    from spine_migrate.errors import Interrupted

    if it.stop.is_set():
        raise Interrupted("Stopped before anything was dropped; retire is allowed, and the same command goes on.")
    done = stage.retire(it.connection, it.members, patience=patience, stop=it.stop)
    tell(it.observer, it.members, "retire", "retired")
    return done


def _shown(examined: Examined, locks: Locking, *, as_json: bool) -> str:
    from spine_migrate.report import retire as report
    from spine_migrate.report.locking import locking_text

    if as_json:
        return json.dumps({**report.as_json(examined), **locks.as_json()}, indent=2)
    return f"{report.gates_text(examined)}\n\n{locking_text(locks)}"
