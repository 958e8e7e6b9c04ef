"""``spine-migrate quarantine``: the rows that could not be carried, and what to do with them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from spine_migrate.cli.options import json_option, yes_option
from spine_migrate.cli.quarantine_accept import accept
from spine_migrate.cli.quarantine_options import migrations_options, reasons_option
from spine_migrate.cli.quarantine_retry import retry

if TYPE_CHECKING:
    from spine_migrate.db.connect import Connection
    from spine_migrate.db.ledger import Migration
    from spine_migrate.mapping.model import Mapping

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
    "discard": """\b
Examples:
  spine-migrate quarantine discard 0b9b4a54-6c22-4c38-9d5c-0f6f3c2b7a11
  spine-migrate quarantine discard --reason orphan --yes""",
}


@click.group()
def quarantine() -> None:
    """List, show, export, retry or discard rows that could not be carried.

    A row in quarantine is kept whole with the reason; nothing of it is in the target, and nothing is lost.
    """


@quarantine.command(name="list", epilog=_EPILOGS["list"])
@reasons_option
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, metavar="N", help="How many rows.")
@json_option
@migrations_options
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
@migrations_options
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
@reasons_option
@migrations_options
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


@quarantine.command(epilog=_EPILOGS["discard"], help=f"Settle rows that will not be carried.\n\n{_DISCARDING}")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@reasons_option
@yes_option
@json_option
@migrations_options
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


quarantine.add_command(accept)
quarantine.add_command(retry)


@contextmanager
def _opened(
    target: str | None, names: Sequence[str], migration: int | None
) -> Iterator[tuple[Connection, list[Migration], list[Mapping]]]:
    """The migrations that the options name, and the mappings behind the names."""
    from spine_migrate.carry.known import chosen
    from spine_migrate.db.connect import PINNED, connect
    from spine_migrate.mapping.load import load

    mappings = [load(name) for name in names]
    with connect(target, settings=PINNED) as connection:
        found = chosen(connection, mappings=[one.name for one in mappings], migration_id=migration, retired=True)
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
