"""``spine-migrate certificate``: show, verify and describe what ``compare --certificate`` writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.options import json_option, target_option

if TYPE_CHECKING:
    from spine_migrate.db.connect import Connection
    from spine_migrate.parity.model import Report

_VERIFY_EPILOG = """\b
Exit codes:
  0  holds: both sides are as they were certified
  1  changed: which side, how many rows, which of the 256 buckets of keys
  2  the file is no certificate, or was edited
  3  could not tell: another mapping, no such migration, tables that changed
  5  could not tell: rules that cannot be evaluated, a server that failed

\b
Examples:
  spine-migrate certificate verify parity.certificate.json
  spine-migrate certificate verify parity.certificate.json --mapping mine/orders.toml
  spine-migrate certificate verify parity.certificate.json --json"""
_SHOW_EXAMPLES = """\b
Examples:
  spine-migrate certificate show parity.certificate.json"""
_SCHEMA_EXAMPLES = """\b
Example:
  spine-migrate certificate schema > certificate.schema.json"""

_file = click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))


def closing(
    file: Path | None, names: tuple[str, ...], connection: Connection, source: Connection | None
) -> Callable[[Report], None] | None:
    """What ``compare`` calls with its report while the snapshot is open; None without a file.

    A report that is not equal gets no certificate, only a sentence; what ``file`` held before stays. Raises
    ConfigurationError where the file cannot be written, or the tables are in two databases.
    """
    if file is None:
        return None
    from spine_migrate.errors import ConfigurationError
    from spine_migrate.parity.certificate import seal
    from spine_migrate.parity.certificate_file import check_place, write
    from spine_migrate.parity.model import Verdict
    from spine_migrate.parity.snapshot import same

    if source is not None and not same(source, connection):
        raise ConfigurationError(
            "A certificate is of tables in one database, and of one snapshot; leave out --certificate or --source."
        )
    check_place(file)

    def issue(report: Report) -> None:
        if report.verdict is not Verdict.EQUAL:
            click.echo(
                f"No certificate: only an equal comparison has one, this one is: {report.verdict.value}.", err=True
            )
            return
        click.echo("Hashing both sides for the certificate", err=True)
        digest = write(seal(connection, report, names), file)
        click.echo(f"Certificate {digest[:12]} written to {file}", err=True)

    return issue


@click.group()
def certificate() -> None:
    """Show and verify the certificates that `compare --certificate FILE` writes.

    A certificate holds a SHA-256 root of each side of every migration that was found equal. It is not signed: its own
    digest shows that it was edited, not who wrote it.
    """


@certificate.command(epilog=_VERIFY_EPILOG)
@_file
@click.option(
    "--mapping",
    "mappings",
    multiple=True,
    metavar="FILE",
    help="The file of a mapping that does not ship with the tool; can be repeated.",
)
@target_option
@json_option
def verify(file: Path, *, mappings: tuple[str, ...], target: str | None, as_json: bool) -> None:
    """Hash both sides again and say whether they are as they were certified.

    Reads both tables whole, in one snapshot, and writes nothing; the privileges of compare are enough.
    """
    from spine_migrate.db.connect import connect
    from spine_migrate.errors import Refused, ServerFault
    from spine_migrate.parity.certificate_check import VALUE_FAILS, Outcome, check
    from spine_migrate.parity.certificate_file import read
    from spine_migrate.report.certificate import check_as_json, check_as_text

    given = read(file)
    with connect(target) as connection:
        found = check(connection, given, mappings)
    click.echo(json.dumps(check_as_json(found)) if as_json else check_as_text(found))
    failed = any(one.reason is not None and one.reason.code == VALUE_FAILS for one in found.migrations)
    unknown = ServerFault.exit_code if failed else Refused.exit_code
    raise click.exceptions.Exit({Outcome.HOLDS: 0, Outcome.CHANGED: 1}.get(found.outcome, unknown))


@certificate.command(epilog=_SHOW_EXAMPLES)
@_file
def show(file: Path) -> None:
    """Print what a certificate says, for people; the file itself is JSON.

    No database is asked: it shows what was certified, not whether it still holds.
    """
    from spine_migrate.parity.certificate_file import document, read
    from spine_migrate.report.certificate import as_text

    found = read(file)
    click.echo(as_text(found, document(found)["digest"]))


@certificate.command(epilog=_SCHEMA_EXAMPLES)
def schema() -> None:
    """Print the JSON schema of certificates."""
    from spine_migrate.parity.certificate_file import SCHEMA

    click.echo(SCHEMA.read_text(encoding="utf-8"), nl=False)
