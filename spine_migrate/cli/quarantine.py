"""``spine-migrate quarantine``: the rows that could not be carried, and what to do with them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click

from spine_migrate.cli.options import json_option, target_option, yes_option

if TYPE_CHECKING:
    from spine_migrate.db.connect import Connection
    from spine_migrate.db.ledger import Migration
    from spine_migrate.mapping.model import Mapping

Command = TypeVar("Command", bound=Callable[..., Any])

_DISCARDING = (
    "A discarded row stays in quarantine, whole, but counts as settled: it will not be in the target, a retry passes "
    "over it unless it is named, and status no longer asks for it. Naming it in a retry takes that back."
)

_EPILOGS = {
    "list": """\b
Examples:
  spine-migrate quarantine list
  spine-migrate quarantine list --mapping capture-spine/executions --reason unknown_value --limit 100
  spine-migrate quarantine list --json

Exit code 0, whether there are rows or not; status tells by its exit code.""",
    "show": """\b
Examples:
  spine-migrate quarantine show 0b9b4a54-6c22-4c38-9d5c-0f6f3c2b7a11
  spine-migrate quarantine show id:17 --json""",
    "export": """\b
Examples:
  spine-migrate quarantine export > quarantine.jsonl
  spine-migrate quarantine export --format csv --reason too_long --output too_long.csv""",
    "retry": """\b
Examples:
  spine-migrate quarantine retry --reason unknown_value
  spine-migrate quarantine retry --key 0b9b4a54-6c22-4c38-9d5c-0f6f3c2b7a11
  spine-migrate quarantine retry --all --accept-mapping --mapping ./capture-spine/executions.toml

Exit codes: 0 none of the rows remains in quarantine, 1 some do, 3 another run is at work (see --wait), 4 stopped; the
same command goes on.""",
    "discard": """\b
Examples:
  spine-migrate quarantine discard 0b9b4a54-6c22-4c38-9d5c-0f6f3c2b7a11
  spine-migrate quarantine discard --reason orphan --yes""",
}


def _migrations(command: Command) -> Command:
    """``mapping: tuple[str, ...]`` and ``migration: int | None``."""
    options = (
        click.option(
            "--mapping",
            multiple=True,
            metavar="NAME_OR_FILE",
            help="Only this mapping, by name or by its .toml file; more than once for several.",
        ),
        click.option("--migration", type=click.IntRange(1), metavar="NUMBER", help="Only this migration; see status."),
        target_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


def _reasons(command: Command) -> Command:
    """``reason: tuple[str, ...]``."""
    return click.option(
        "--reason",
        multiple=True,
        metavar="CODE",
        help="Only this reason, as list shows it; more than once for several.",
    )(command)


@click.group()
def quarantine() -> None:
    """List, show, export, retry or discard rows that could not be carried.

    A row in quarantine is kept whole with the reason; nothing of it is in the target, and nothing is lost.
    """


@quarantine.command(name="list", epilog=_EPILOGS["list"])
@_reasons
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, metavar="N", help="How many rows.")
@json_option
@_migrations
def list_(
    *,
    mapping: tuple[str, ...],
    migration: int | None,
    target: str | None,
    reason: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> None:
    """Count the rows per reason, then list them: key, reason, rule, sentence, attempts."""
    from spine_migrate.backfill import quarantine as entries
    from spine_migrate.report import quarantine as report

    with _opened(target, mapping, migration) as (connection, migrations, _):
        counts = entries.counts(connection, migrations, reason)
        rows = entries.rows(connection, migrations, reason, limit=limit)
    click.echo(json.dumps(report.list_json(counts, rows)) if as_json else report.list_text(counts, rows))


@quarantine.command(epilog=_EPILOGS["show"])
@click.argument("key_or_id")
@json_option
@_migrations
def show(*, key_or_id: str, mapping: tuple[str, ...], migration: int | None, target: str | None, as_json: bool) -> None:
    """Show a row whole: the source row, why it was refused, and the target row that it collides with.

    KEY_OR_ID is the source key, or id:N with the number that list shows.
    """
    from spine_migrate.backfill import quarantine as entries
    from spine_migrate.errors import SpineMigrateError
    from spine_migrate.report import quarantine as report

    with _opened(target, mapping, migration) as (connection, migrations, mappings):
        entry = entries.entry(connection, migrations, key_or_id)
        now, note = None, None
        try:
            now = entries.colliding_now(connection, entry, migrations, mappings)
        except SpineMigrateError as error:
            note = error.sentence
    if as_json:
        click.echo(json.dumps(report.entry_json(entry, now), indent=2))
    else:
        click.echo(report.entry_text(entry, now, note))


@quarantine.command(epilog=_EPILOGS["export"])
@click.option("--format", "form", type=click.Choice(("jsonl", "csv")), default="jsonl", show_default=True)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path),
    help="Write to this file instead of standard output; it appears once it is complete.",
)
@_reasons
@_migrations
def export(
    *,
    mapping: tuple[str, ...],
    migration: int | None,
    target: str | None,
    reason: tuple[str, ...],
    form: str,
    output: Path | None,
) -> None:
    """Write all rows whole, one per line as JSON (rows are objects), or as CSV (rows are JSON text)."""
    from spine_migrate.backfill import quarantine as entries
    from spine_migrate.report.quarantine_export import csv_writer, jsonl_writer

    count = 0
    with _opened(target, mapping, migration) as (connection, migrations, _), _written(output) as stream:
        write = csv_writer(stream) if form == "csv" else jsonl_writer(stream)
        for row in entries.export(connection, migrations, reason):
            write(row)
            count += 1
    click.echo(f"{count:,} rows exported{'' if output is None else f' to {output}'}", err=True)


@quarantine.command(epilog=_EPILOGS["retry"])
@_reasons
@click.option("--key", multiple=True, metavar="KEY", help="This row, by its source key; discarded ones too.")
@click.option("--all", "everything", is_flag=True, help="All rows that are not discarded.")
@click.option(
    "--accept-mapping",
    is_flag=True,
    help="Go on with a mapping that was changed since the migration began, if it leaves all moved rows as they are.",
)
@click.option("--discard-gone", is_flag=True, help="Discard rows whose source row is gone.")
@click.option("--wait", is_flag=True, help="Wait for a run on the same migration instead of refusing.")
@click.option(
    "--retry-for",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to outlive a lost server before giving up with exit code 5.",
)
@click.option("--quiet", is_flag=True, help="No progress on stderr.")
@json_option
@_migrations
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
    with stopping() as (stop, _), shown(quiet=quiet) as progress:
        outcome = retry_rows(
            target,
            Selected(list(reason) or None, list(key) or None),
            mappings=[load(name) for name in mapping],
            migration_id=migration,
            options=Options(accept_mapping, discard_gone, wait, retry_for),
            stop=stop,
            report=progress,
        )
    click.echo(json.dumps(report.retried_json(outcome), indent=2) if as_json else report.retried_text(outcome))
    if outcome.interrupted:
        raise click.exceptions.Exit(Interrupted.exit_code)
    if not outcome.clean:
        raise click.exceptions.Exit(1)


@quarantine.command(epilog=_EPILOGS["discard"], help=f"Settle rows that will not be carried.\n\n{_DISCARDING}")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@_reasons
@yes_option
@json_option
@_migrations
def discard(
    *,
    keys: tuple[str, ...],
    mapping: tuple[str, ...],
    migration: int | None,
    target: str | None,
    reason: tuple[str, ...],
    yes: bool,
    as_json: bool,
) -> None:
    from spine_migrate.backfill import quarantine as entries

    if not keys and not reason:
        raise click.UsageError("Say which rows: their keys, or --reason.")
    selected = entries.Selected(list(reason) or None, list(keys) or None)
    with _opened(target, mapping, migration) as (connection, migrations, _):
        if not yes:
            count = entries.discardable(connection, migrations, selected)
            click.confirm(f"{_DISCARDING}\nDiscard {count:,} rows?", abort=True, err=True)
        discarded = entries.discard(connection, migrations, selected)
    if as_json:
        click.echo(json.dumps({"format": 1, "discarded": discarded}))
    else:
        reasons = ", ".join(f"{name} {count:,}" for name, count in sorted(discarded.items()))
        click.echo(f"{sum(discarded.values()):,} rows discarded{f': {reasons}' if reasons else ''}. {_DISCARDING}")


@contextmanager
def _opened(
    target: str | None, names: Sequence[str], migration: int | None
) -> Iterator[tuple[Connection, list[Migration], list[Mapping]]]:
    """The migrations that the options name, and the mappings behind the names."""
    from spine_migrate.backfill.known import chosen
    from spine_migrate.db.connect import connect
    from spine_migrate.mapping.load import load

    mappings = [load(name) for name in names]
    with connect(target) as connection:
        found = chosen(connection, mappings=[one.name for one in mappings], migration_id=migration)
        yield connection, found, mappings


@contextmanager
def _written(output: Path | None) -> Iterator[IO[str]]:
    if output is None or str(output) == "-":
        with click.open_file("-", "w", encoding="utf-8") as stream:
            yield stream
        return
    part = output.with_name(f"{output.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as stream:
            yield stream
        os.replace(part, output)  # noqa: PTH105 - replaces on every system
    finally:
        part.unlink(missing_ok=True)
