"""``spine-migrate compare``: does the target hold what the legacy tables say, and if not, where."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spine_migrate.cli.compare_options import how_options
from spine_migrate.cli.options import json_option, target_option

if TYPE_CHECKING:
    from spine_migrate.parity.model import Report

_FORMATS = ("text", "json", "markdown", "junit", "github")

# Without an import of the comparison, which would load the driver; a test holds it to parity.scope.
_EPILOG = """\b
What counts as equal:
  IS DISTINCT FROM: NULL equals only NULL, text byte by byte, timestamps to
  the microsecond, jsonb by content (1.0 equals 1.00). With --exact binary
  images (*<>): jsonb as it is stored (1.0 is not 1.00).

\b
What is not checked:
  - whether the mapping is right: the expected row is computed by its rules
  - target rows without the mapping's mark, written by others
  - target columns that no rule writes, legacy columns that are dropped
  - what was written after the snapshot
  - how JSON was spelled; trailing blanks of char(n) columns
  - the content of rows in quarantine
  - whether a history is plausible

\b
Exit codes:
  0  equal; rows in quarantine are counted, they are no difference
  1  different: rows, fields, keys or counts
  3  could not tell: no migration, an unfinished one without a difference so
     far, a mapping file or tables that have changed

\b
Examples:
  spine-migrate compare
  spine-migrate compare capture-spine/executions --max-differences 1000
  spine-migrate compare --format json --output parity.json
  spine-migrate compare --format markdown >> "$GITHUB_STEP_SUMMARY\""""


@click.command(epilog=_EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@target_option
@how_options
@click.option("--format", "form", type=click.Choice(_FORMATS), default=None, help="How to report; text is the default.")
@json_option
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path),
    help="Write the report to this file.",
)
@click.option(
    "--max-differences",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    metavar="N",
    help="How many differences to list per mapping; the counts are exact all the same.",
)
def compare(
    *,
    names: tuple[str, ...],
    target: str | None,
    exact: bool,
    form: str | None,
    as_json: bool,
    output: Path | None,
    max_differences: int,
) -> None:
    """Compare every migrated table with its source, field by field, in one snapshot.

    NAME is a shipped mapping, such as capture-spine/executions, or the path of a mapping file; without one all
    migrations of the ledger are compared that are not undone. Nothing is written; SELECT on both tables and the ledger
    is enough.
    """
    from spine_migrate.db.connect import connect
    from spine_migrate.parity.compare import compare as compare_migrations
    from spine_migrate.parity.evidence import Equality
    from spine_migrate.parity.options import Options

    if as_json and form not in (None, "json"):
        raise click.UsageError(f"--json and --format {form} are two different reports; give one of them.")
    options = Options(equality=Equality.EXACT if exact else Equality.VALUE, max_differences=max_differences)
    with connect(target) as connection:
        report = compare_migrations(connection, names, options, started=_say)
    _write(report, "json" if as_json else form or "text", output)
    raise click.exceptions.Exit(_exit_code(report))


def _say(name: str, number: int, of: int) -> None:
    click.echo(f"Comparing {name} ({number} of {of})", err=True)


def _write(report: Report, form: str, output: Path | None) -> None:
    from spine_migrate.report import parity_github, parity_json, parity_junit, parity_markdown
    from spine_migrate.report.parity_terminal import render as render_text

    renderers: dict[str, Callable[[Report], str]] = {
        "json": parity_json.render,
        "markdown": parity_markdown.render,
        "junit": parity_junit.render,
        "github": parity_github.render,
    }
    if form in renderers:
        text = renderers[form](report)
    elif output is None or str(output) == "-":
        render_text(report, sys.stdout)
        return
    else:
        plain = io.StringIO()
        render_text(report, plain)
        text = plain.getvalue()
    if output is None or str(output) == "-":
        click.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


def _exit_code(report: Report) -> int:
    from spine_migrate.errors import Refused
    from spine_migrate.parity.model import Verdict

    return {Verdict.EQUAL: 0, Verdict.DIFFERENT: 1, Verdict.UNKNOWN: Refused.exit_code}[report.verdict]
