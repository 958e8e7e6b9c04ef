"""``spine-migrate archive``: tables into compressed files, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from spine_migrate.cli.options import json_option, target_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from spine_migrate.cutover.archive.against import Compared
    from spine_migrate.cutover.archive.model import Manifest
    from spine_migrate.db.catalog import Name

    Command = TypeVar("Command", bound=Callable[..., Any])

_CREATE_EPILOG = """\b
What is in the directory:
  manifest.json   server, snapshot, WAL position; per table its columns, rows
                  and files, each with its SHA-256
  schema.sql      the same tables for psql: psql -X -f schema.sql, from there
  *.copy.gz       the rows, in the text format of COPY

\b
Not held: owners and privileges, triggers, rules, policies, statistics,
foreign keys to tables that are not in the archive. Functions, extensions and
the like that the tables need are named, and must be there to restore.

\b
Exit codes: 0 written; 2 the directory is there already or cannot be written;
3 no such table, or a privilege is missing; 5 the server failed. Where it is
not 0, no archive is there.

\b
Examples:
  spine-migrate archive create executions execution_events /backup/executions
  spine-migrate archive create spine_migrate.quarantine spine_migrate.audit /backup/ledger
  spine-migrate archive create 'app."Old runs"' /backup/runs --json"""
_VERIFY_EPILOG = """\b
Exit codes:
  0  every file is as it was written; with --against, the tables are so too
  1  damaged: which file, and how; with --against, tables that differ
  2  the directory is no archive, or has a format of another version

\b
Examples:
  spine-migrate archive verify /backup/executions
  spine-migrate archive verify /backup/executions --against postgresql://db.example/app
  spine-migrate archive verify /backup/executions --against "$URL" --schema restored"""
_RESTORE_EPILOG = """\b
Exit codes: 0 restored; 2 no archive; 3 refused: it is damaged, a table is
there already, something that it needs is missing; 5 the server failed. Where
it is not 0, nothing is restored.

\b
Examples:
  spine-migrate archive restore /backup/executions --target postgresql://db.example/app
  spine-migrate archive restore /backup/executions --schema restored
  spine-migrate archive restore /backup/executions --table executions=executions_2026"""
_SCHEMA_EXAMPLES = """\b
Example:
  spine-migrate archive schema > archive.schema.json"""

_directory = click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")


def _places(command: Command) -> Command:
    """``schema: str | None`` and ``renamed``, as ``table_names.renamed`` gives it, in a tuple."""
    from spine_migrate.cli.table_names import renamed

    given = click.option(
        "--table",
        "renamed",
        multiple=True,
        metavar="OLD=NEW",
        callback=lambda _, __, values: tuple(renamed(value) for value in values),
        help="The new name of a table of the archive; can be repeated.",
    )
    schema = click.option("--schema", metavar="NAME", help="The schema of the tables, instead of each one's own.")
    return schema(given(command))


@click.group()
def archive() -> None:
    """Write tables to compressed files, verify the files, restore the tables."""


@archive.command(epilog=_CREATE_EPILOG)
@click.argument("tables", nargs=-1, required=True, metavar="TABLE...")
@_directory
@click.option(
    "--source",
    metavar="URL",
    envvar=["SPINE_SOURCE_URL", "SPINE_DATABASE_URL"],
    show_envvar=True,
    help="The database of the tables. PG* variables and a password file count, as with psql.",
)
@json_option
def create(tables: tuple[str, ...], directory: Path, *, source: str | None, as_json: bool) -> None:
    """Write TABLE..., with partitions and children, to the new directory DIR.

    All tables are read in one snapshot and none is locked against reading or writing. Names are as in SQL; without a
    schema the search_path decides. SELECT on the tables, and on their sequences, is enough.
    """
    from spine_migrate.cli.table_names import name
    from spine_migrate.cutover.archive.create import write
    from spine_migrate.db import catalog
    from spine_migrate.db.connect import connect
    from spine_migrate.report import archive as report

    wanted = [name(table) for table in tables]
    with connect(source) as connection:
        names = [catalog.find(connection, table, schema).name for schema, table in wanted]
        made = write(
            connection,
            names,
            directory,
            report=lambda table: click.echo(f"Archived {report.counted(table.name, table.rows)}", err=True),
        )
    click.echo(json.dumps(report.made_as_json(made)) if as_json else report.made_as_text(made, directory))


@archive.command(epilog=_VERIFY_EPILOG)
@_directory
@click.option("--against", metavar="URL", help="A database whose tables are to have the same columns and rows.")
@_places
@json_option
def verify(
    directory: Path,
    *,
    against: str | None,
    schema: str | None,
    renamed: tuple[tuple[tuple[str | None, str], str], ...],
    as_json: bool,
) -> None:
    """Read all of the archive DIR again and compare it with its manifest; with --against, with live tables too.

    Live tables are read whole, in one snapshot. The number of rows and a digest of them must be equal, their order does
    not matter; generated columns, constraints and indexes are not compared.
    """
    from spine_migrate.cutover.archive.verify import verify as check
    from spine_migrate.report import archive as report

    if against is None and (schema or renamed):
        raise click.UsageError("--schema and --table say where --against finds the tables; give --against too.")
    found = check(
        directory, report=lambda table: click.echo(f"Read {report.counted(table.name, table.rows)}", err=True)
    )
    compared = None
    if against is not None and found.manifest is not None and found.sound:
        compared = _compared(found.manifest, against, schema, _renamed(found.manifest, renamed))
    click.echo(
        json.dumps(report.verified_as_json(found, compared))
        if as_json
        else report.verified_as_text(found, compared, directory)
    )
    if not found.sound or not report.all_equal(compared):
        raise click.exceptions.Exit(1)


@archive.command(epilog=_RESTORE_EPILOG)
@_directory
@target_option
@_places
@json_option
def restore(
    directory: Path,
    *,
    target: str | None,
    schema: str | None,
    renamed: tuple[tuple[tuple[str | None, str], str], ...],
    as_json: bool,
) -> None:
    """Make the tables of the archive DIR anew in a database, in one transaction.

    The archive is verified first. Tables, sequences and indexes must not be there yet; types may, if they are the same.
    Everything belongs to the role that restores.
    """
    from spine_migrate.cutover.archive.restore import restore as put_back
    from spine_migrate.cutover.archive.restore import sound
    from spine_migrate.db.connect import connect
    from spine_migrate.report import archive as report

    manifest = sound(directory)
    names = _renamed(manifest, renamed)
    with connect(target) as connection:
        restored = put_back(
            connection,
            directory,
            manifest,
            schema=schema,
            renamed=names,
            report=lambda one: click.echo(f"Loaded {report.counted(one.place, one.rows)}", err=True),
        )
    click.echo(json.dumps(report.restored_as_json(restored)) if as_json else report.restored_as_text(restored))


@archive.command(epilog=_SCHEMA_EXAMPLES)
def schema() -> None:
    """Print the JSON schema of manifests."""
    from spine_migrate.cutover.archive.manifest import SCHEMA

    click.echo(SCHEMA.read_text(encoding="utf-8"), nl=False)


def _renamed(manifest: Manifest, renamed: tuple[tuple[tuple[str | None, str], str], ...]) -> dict[Name, str]:
    from spine_migrate.cutover.archive.places import resolved
    from spine_migrate.db.catalog import Name

    return {
        resolved(manifest, table if schema is None else Name(schema, table)): new for (schema, table), new in renamed
    }


def _compared(manifest: Manifest, url: str, schema: str | None, renamed: dict[Name, str]) -> list[Compared]:
    from spine_migrate.cutover.archive.against import against
    from spine_migrate.db.connect import connect

    with connect(url) as connection:
        return against(
            connection,
            manifest,
            schema=schema,
            renamed=renamed,
            report=lambda one: click.echo(f"Compared {one.place}: {one.state}", err=True),
        )
