"""``spine-migrate compare``: does the target hold what the legacy tables say, and if not, where."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spine_migrate.cli.compare_options import how_options
from spine_migrate.cli.compare_options import options as read_options
from spine_migrate.cli.compare_reports import Destination, destinations, report_options, wants_picture, write
from spine_migrate.cli.observing import Observing, observed, observing_options
from spine_migrate.cli.options import source_option, target_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from spine_migrate.db.connect import Connection
    from spine_migrate.notices import Verdict
    from spine_migrate.parity.model import Report

    Closing = Callable[[Report], None]

# Reasons by which nothing could be told: a check failed; all of it was not compared yet.
_FAILED = frozenset({"value-fails"})
_UNPROVEN = "self-test"
_GOES_ON = frozenset({"unfinished", "partial", "unsettled", "resumed", "rewritten", "in-flight", "cut-over"})

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
  - what no event says; a law of histories that the legacy tables break too
  - with buckets, rows whose 64-bit hashes collide

\b
Exit codes:
  0  equal; rows in quarantine are counted, they are no difference
  1  different: rows, fields, keys, counts or histories
  3  could not tell: no migration, a mapping file or tables that have changed
  4  could not tell yet: a part without a difference (--sample, --since,
     --key), an unfinished migration without one so far, rows that were being
     changed on two servers, rows that were written between an interrupt and
     the --checkpoint gone on with, an interrupt
  5  could not tell: rules that cannot be evaluated, a server that failed,
     a self-test that was not passed

\b
Examples:
  spine-migrate compare
  spine-migrate compare capture-spine/executions --max-differences 1000
  spine-migrate compare --method buckets --workers 4
  spine-migrate compare --method buckets --checkpoint parity.checkpoint
  spine-migrate compare --source postgresql://old.example/app \\
      --target postgresql://new.example/app
  spine-migrate compare --no-events
  spine-migrate compare --sample 1% --since 2026-11-01
  spine-migrate compare --mapping capture-spine/jobs --key 4711 --key 4712
  spine-migrate compare --self-test
  spine-migrate compare --fix-sql fix.sql
  spine-migrate compare --format json --output parity.json
  spine-migrate compare --certificate parity.certificate.json
  spine-migrate compare --report html=parity.html --report junit=junit.xml
  spine-migrate compare --format markdown >> "$GITHUB_STEP_SUMMARY"
  spine-migrate compare --hook on-verdict=https://alerts.example/parity"""


@click.command(epilog=_EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@source_option
@target_option
@how_options
@report_options
@observing_options
@click.option(
    "--max-differences",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    metavar="N",
    help="How many differences to list per mapping; the counts are exact all the same.",
)
@click.option(
    "--self-test/--no-self-test",
    default=None,
    help="Make known differences of every kind in temporary tables, and find them; else nothing is equal. On by "
    "default where the environment has CI set.",
)
@click.option(
    "--fix-sql",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="FILE",
    help="Write the statements that would repair the target, to be read and run by hand; see also repair.",
)
@click.option(
    "--certificate",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="If all is equal, write a proof that can be verified later: SHA-256 roots of both sides.",
)
def compare(
    *,
    names: tuple[str, ...],
    more: tuple[str, ...],
    source: str | None,
    target: str | None,
    form: str | None,
    as_json: bool,
    output: Path | None,
    reports: tuple[Destination, ...],
    certificate: Path | None,
    self_test: bool | None,
    fix_sql: Path | None,
    observing: Observing,
    **how: Any,
) -> None:
    """Compare every migrated table with its source, field by field, in one snapshot.

    NAME is a shipped mapping, such as capture-spine/executions, or the path of a mapping file; without one all
    migrations of the ledger are compared that are not undone. Nothing is written; SELECT on both tables and the ledger
    is enough.
    """
    from spine_migrate.cli.certificate import closing
    from spine_migrate.db.connect import connect
    from spine_migrate.parity.compare import compare as compare_migrations
    from spine_migrate.parity.snapshot import same
    from spine_migrate.report.progress import blocks_shown

    places = destinations(form=form, as_json=as_json, output=output, reports=reports)
    options = read_options(picture=wants_picture(places), **how)
    every = (*names, *more)
    with observed(observing, "compare", target) as seen:
        with ExitStack() as stack:
            connection = stack.enter_context(connect(target))
            legacy = stack.enter_context(connect(source)) if source and source != target else None
            if (certificate or fix_sql) and legacy is not None and not same(legacy, connection):
                option = "--certificate" if certificate else "--fix-sql"
                raise click.UsageError(f"{option} is for two tables in one database; leave out --source, or {option}.")
            scratch = stack.enter_context(connect(target)) if wanted(self_test) else None
            started, progress = stack.enter_context(blocks_shown(seen.say if observing.as_json else None))
            report = compare_migrations(
                connection,
                every,
                options,
                source=legacy,
                scratch=scratch,
                started=started,
                closing=_both(closing(certificate, every, connection, legacy), _fixing(fix_sql, connection)),
                progress=progress,
            )
        write(report, places)
        seen.observer.notice(told(report))
        raise click.exceptions.Exit(_exit_code(report))


def told(report: Report) -> Verdict:
    """The verdict as it is told to hooks and metrics, without a value of a row."""
    from spine_migrate.notices import Compared, Subject, Verdict

    migrations = tuple(
        Compared(
            Subject(one.mapping, one.migration_id, one.source_table, one.target_table),
            one.verdict.value,
            one.differences_total,
        )
        for one in report.comparisons
    )
    reasons = [*report.reasons, *(reason for one in report.comparisons for reason in one.reasons)]
    return Verdict(report.verdict.value, migrations, sorted({reason.code for reason in reasons}))


def _fixing(file: Path | None, connection: Connection) -> Closing | None:
    """What writes the script of ``--fix-sql`` in the comparison's snapshot."""
    if file is None:
        return None
    from spine_migrate.parity.fix_sql import write as write_script

    return lambda report: write_script(connection, report, file)


def _both(*found: Closing | None) -> Closing:
    def close(report: Report) -> None:
        for one in found:
            if one is not None:
                one(report)

    return close


def wanted(self_test: bool | None) -> bool:  # noqa: FBT001 - an option's three states
    """Whether the self-test is made: as it was asked for, else where the environment has CI set to a true value."""
    return os.environ.get("CI", "").strip().lower() in ("1", "true", "yes", "on") if self_test is None else self_test


def _exit_code(report: Report) -> int:
    """What could not be told: a check that failed weighs most, then what is missing, then what can be gone on with."""
    from spine_migrate.errors import Interrupted, Refused, ServerFault
    from spine_migrate.parity.model import Verdict

    if report.verdict is not Verdict.UNKNOWN:
        return 0 if report.verdict is Verdict.EQUAL else 1
    unknown = [one.reasons for one in report.comparisons if one.verdict is Verdict.UNKNOWN]
    unknown += [one.reasons for one in report.histories if one.verdict is Verdict.UNKNOWN]
    codes = {reason.code for reasons in [report.reasons, *unknown] for reason in reasons}
    if codes & _FAILED or any(code.startswith(_UNPROVEN) for code in codes):
        return ServerFault.exit_code
    return Interrupted.exit_code if codes and codes <= _GOES_ON else Refused.exit_code
